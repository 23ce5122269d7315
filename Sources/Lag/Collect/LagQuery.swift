public import KafkaClient
public import Wire

/// What to look at.
public struct LagQuery: Sendable {
    public var kafka: KafkaConfiguration
    public var postgres: String?
    public var names = Names()
    /// Groups beside the stages' own, by a regular expression, or all.
    public var otherGroups: (@Sendable (String) -> Bool)?

    public init(kafka: KafkaConfiguration) { self.kafka = kafka }

    /// The stages that read the log, and what each commits.
    public static let stages: [(stage: String, topics: [Topic])] = [
        ("join", [.incoming, .signals, .members]), ("delivery", [.deliveries]), ("history", [.messages, .signals]),
        ("push", [.push]),
    ]

    /// What a group reads, when it is a stage's.
    func topics(of group: String) -> [String]? {
        Self.stages.first { names.group($0.stage) == group }?.topics.map { names[$0] }
    }
}
