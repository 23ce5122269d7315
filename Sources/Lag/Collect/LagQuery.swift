public import KafkaClient
public import Wire

/// What to look at.
public struct LagQuery: Sendable {
    public var kafka: KafkaConfiguration
    public var postgres: String?
    public var names = Names()
    /// Groups beside the stages' own, by a regular expression, or all.
    public var otherGroups: (@Sendable (String) -> Bool)?

    /// How many seconds each of these groups may be behind; by the stage's name, or the whole group's. `cdc` is its slot.
    public var groupMax: [String: Double] = [:]

    public init(kafka: KafkaConfiguration) { self.kafka = kafka }

    /// People wait for the join and for delivery; history's readers have the hot window, and a notice may be a little late.
    public static let groupMaxStandards: [String: Double] = [
        "join": 10, "delivery": 10, "history": 30, "push": 30, "cdc": 15,
    ]

    public var thresholds: LagThresholds {
        var thresholds = LagThresholds()
        let all = Self.groupMaxStandards.merging(groupMax) { $1 }
        for (name, seconds) in all {
            if name == "cdc" { thresholds.slotSeconds = seconds }
            thresholds.groups[group(named: name)] = seconds
        }
        return thresholds
    }

    /// A stage's group, or the one that is called so.
    public func group(named name: String) -> String {
        Self.stages.contains { $0.stage == name } ? names.group(name) : name
    }

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
