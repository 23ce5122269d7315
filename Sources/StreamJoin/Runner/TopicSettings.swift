import KafkaClient
import Wire

/// What the topics' own settings mean for the join.
struct TopicSettings: Equatable {
    /// The largest record that may be written.
    var recordBytesMax: Int
    /// A table that was saved longer ago may have missed deletions: their records are kept for `delete.retention.ms`. Half
    /// of that, because the table may have been as far behind the log when it was saved.
    var tableAgeMaxMs: Int64

    /// What stands around a record in a request.
    private static let frameBytes = 1000
    /// The smallest limit that lets every refusal be written.
    static let recordBytesMin = 512 << 10
    /// Kafka's own default.
    private static let deletesKeptMs: Int64 = 86_400_000

    /// Asks the cluster. One that does not tell is taken to have the defaults.
    init(_ kafka: KafkaConfiguration, _ names: Names, producer: ProducerOptions) throws {
        var settings: [String: [TopicConfig]] = [:]
        let written = [names[.messages], names[.deliveries], names[.rejected]]
        if let admin = try? Admin(kafka) {
            defer { admin.close(deadlineMs: 1000) }
            for (topic, result) in (try? admin.topicConfigs(written + [names[.members]])) ?? [] {
                settings[topic] = try? result.get()
            }
        }
        func number(_ topic: String, _ name: String) -> Int64? {
            settings[topic]?.first { $0.name == name }?.value.flatMap { Int64($0) }
        }
        var limit = producer.messageBytesMax
        for topic in written {
            guard let taken = number(topic, "max.message.bytes").map({ Int(clamping: $0) }) else { continue }
            guard taken >= Self.recordBytesMin else {
                throw JoinError(
                    .topics,
                    "\(topic) takes records of \(taken) bytes; max.message.bytes must be \(Self.recordBytesMin) or more"
                )
            }
            limit = min(limit, taken)
        }
        recordBytesMax = limit - Self.frameBytes
        tableAgeMaxMs = (number(names[.members], "delete.retention.ms") ?? Self.deletesKeptMs) / 2
    }
}
