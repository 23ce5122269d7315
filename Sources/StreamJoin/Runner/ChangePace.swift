/// How many records changes of membership may lead to: a budget of their own, so that they do not stand before messages.
///
/// Whatever a change has to tell stands in the same partitions of `chat.deliveries` as messages, and what reads them takes one
/// record after the other. An import could fill them faster than they are read, and each message would wait behind it. At
/// this rate it takes a fifth of a core from all stages together; what people change by hand never comes near it.
struct ChangePace {
    static let perSecond = 50_000
    /// What may come at once: 20 ms of it, and two changes in a chat of the largest that lists its members.
    static let burst = 1000

    private var left = Double(Self.burst)
    private var atNs: UInt64 = 0

    mutating func hasRoom(nowNs: UInt64) -> Bool {
        if nowNs > atNs {
            left = min(Double(Self.burst), left + Double(nowNs - atNs) * Double(Self.perSecond) / 1e9)
            atNs = nowNs
        }
        return left > 0
    }

    mutating func spend(_ records: Int) { left -= Double(records) }
}
