/// The 16-byte identity that a topic keeps for life; a topic created again under the same name has another.
struct TopicID: Hashable, Sendable {
    var high: UInt64
    var low: UInt64

    static let zero = TopicID(high: 0, low: 0)

    static func random(using generator: inout some RandomNumberGenerator) -> TopicID {
        TopicID(high: generator.next(), low: generator.next())
    }
}

extension TopicID {
    /// Hexadecimal, as the cluster id is shown.
    var text: String {
        [high, low].map { word in
            let digits = String(word, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }
}
