public import Wire

/// The topics as they must be: `kafka/topics.json`, the one list of them.
///
/// All chat-side topics have the same number of partitions, and so have all user-side ones: the join reads partition n
/// of several topics together, and who computes a partition from a key must find the record there. A cluster on which
/// they differ is refused (`problems`), because nothing would fail there: messages would silently miss their chats.
public struct TopicPlan: Sendable {
    public enum Side: String, Sendable, CaseIterable {
        case chat, user
        /// A single partition.
        case one
    }

    public struct Entry: Sendable {
        public var topic: Topic
        public var side: Side
        public var key: String
        public var writtenBy: String
        public var about: String
        public var configs: [String: String]
    }

    public private(set) var entries: [Entry] = []
    /// How many partitions a side's topics are made with.
    public var partitions: [Side: Int] = [:]

    public static let standard: TopicPlan = {
        let bytes = [UInt8](json.utf8)
        do throws(JSONError) {
            return try TopicPlan(decoding: bytes.span)
        } catch {
            preconditionFailure("kafka/topics.json: \(error)")
        }
    }()

    // MARK: A cluster

    /// What is wrong with a cluster.
    public enum Problem: Sendable, Equatable, CustomStringConvertible {
        case missing(String)
        /// The topics of a side differ: the counts by topic.
        case unequal(Side, [String])
        case partitions(String, Int, expected: Int)
        case config(String, name: String, value: String?, expected: String)
        case durability(TopicDurability.Fault, topics: [String])

        public var description: String {
            switch self {
            case .missing(let topic): "\(topic) is missing; fanout topics create makes it"
            case .unequal(let side, let counts):
                "the \(side.rawValue)-side topics must have equal numbers of partitions: "
                    + counts.joined(separator: ", ") + Self.anew("those that are wrong", "NAME")
            case .partitions(let topic, let count, let expected):
                "\(topic) has \(count) partitions, not \(expected)" + Self.anew("it", topic)
            case .config(let topic, let name, let value, let expected):
                "\(topic): \(name) is \(value ?? "not set"), not \(expected)"
                    + (isFatal
                        ? "; kafka-configs.sh --alter --topic \(topic) --add-config \(name)=\(expected) mends it" : "")
            case .durability(let fault, let topics): "\(fault.words) (\(topics.joined(separator: ", ")))"
            }
        }

        /// A topic's keys would move if it were grown, and none can shrink.
        private static func anew(_ what: String, _ topic: String) -> String {
            "; stop the stages, delete \(what) (kafka-topics.sh --delete --topic \(topic), its records are lost), and run "
                + "fanout topics create"
        }

        /// Whether the pipeline must not run like this. Other settings are an operator's choice.
        public var isFatal: Bool {
            switch self {
            case .missing, .unequal, .partitions: true
            case .durability: false
            // What messages' times are made of, and what keeps the last row of each key.
            case .config(_, let name, _, _): name == "cleanup.policy" || name == "message.timestamp.type"
            }
        }
    }

    /// The topics to be made where these exist.
    public func missing(
        _ existing: Set<String>, names: Names, replicationFactor: Int
    ) -> [NewTopic] {
        let durable = TopicDurability.configs(replicationFactor: replicationFactor)
        return entries.filter { !existing.contains(names[$0.topic]) }.map { entry in
            NewTopic(
                names[entry.topic], partitions: count(of: entry.side), replicationFactor: replicationFactor,
                configs: entry.configs.merging(durable) { own, _ in own })
        }
    }

    /// Makes the topics that are missing; those that exist are left as they are. Answers the names of those made.
    /// - Parameter replicationFactor: -1 leaves it to the cluster; then `min.insync.replicas` is the cluster's, too.
    public func create(
        _ admin: Admin, names: Names, replicationFactor: Int = -1, timeoutMs: Int = 30_000
    ) throws(KafkaError) -> [String] {
        let existing = Set(try admin.metadata(timeoutMs: timeoutMs).topics.map(\.name))
        let wanted = missing(existing, names: names, replicationFactor: replicationFactor)
        var made: [String] = []
        for outcome in try admin.createTopics(wanted, timeoutMs: timeoutMs) {
            switch outcome.error?.code {
            case nil: made.append(outcome.name)
            // Somebody was faster.
            case .topicAlreadyExists?: break
            default: if let error = outcome.error { throw error }
            }
        }
        return made
    }

    public func problems(
        _ admin: Admin, names: Names, timeoutMs: Int = 30_000
    ) throws(KafkaError) -> [Problem] {
        var counts: [String: Int] = [:]
        let metadata = try admin.metadata(timeoutMs: timeoutMs)
        for topic in metadata.topics where topic.error == nil {
            counts[topic.name] = topic.partitions.count
        }
        var problems: [Problem] = []
        for side in Side.allCases {
            let present = entries.filter { $0.side == side }.compactMap { entry in
                counts[names[entry.topic]].map { (name: names[entry.topic], count: $0) }
            }
            if side == .one {
                for topic in present where topic.count != 1 {
                    problems.append(.partitions(topic.name, topic.count, expected: 1))
                }
            } else if Set(present.map(\.count)).count > 1 {
                problems.append(.unequal(side, present.map { "\($0.name) has \($0.count)" }))
            }
        }
        let present = entries.filter { counts[names[$0.topic]] != nil }
        for entry in entries where counts[names[entry.topic]] == nil { problems.append(.missing(names[entry.topic])) }
        let settings = try admin.topicConfigs(present.map { names[$0.topic] }, timeoutMs: timeoutMs)
        for (entry, (topic, result)) in zip(present, settings) {
            let configs = try result.get()
            for (setting, expected) in entry.configs.sorted(by: { $0.key < $1.key }) {
                let value = configs.first { $0.name == setting }?.value
                if value != expected {
                    problems.append(.config(topic, name: setting, value: value, expected: expected))
                }
            }
        }
        return problems + durabilityProblems(metadata, settings)
    }

    public func count(of side: Side) -> Int { partitions[side] ?? 1 }
}

extension TopicPlan {
    private enum Field: String, CaseIterable { case partitions, topics }
    private enum EntryField: String, CaseIterable {
        case name, side, key, about, configs
        case writtenBy = "written_by"
    }
    private static let fields = JSONFields<Field>()
    private static let entryFields = JSONFields<EntryField>()

    init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .partitions:
                try reader.beginObject()
                while let side = try reader.nextField() {
                    let count = try reader.readInt()
                    if let side = Side(rawValue: side.text(in: bytes)) { partitions[side] = Int(count) }
                }
            case .topics:
                try reader.beginArray()
                while try reader.nextElement() { entries.append(try Self.entry(&reader)) }
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
    }

    private static func entry(_ reader: inout JSONReader) throws(JSONError) -> Entry {
        let bytes = reader.bytes
        let start = reader.offset
        var topic: Topic?
        var side: Side?
        var entry = Entry(topic: .incoming, side: .chat, key: "", writtenBy: "", about: "", configs: [:])
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch entryFields.find(name, in: bytes) {
            case .name: topic = Topic(rawValue: try reader.readText())
            case .side: side = Side(rawValue: try reader.readText())
            case .key: entry.key = try reader.readText()
            case .writtenBy: entry.writtenBy = try reader.readText()
            case .about: entry.about = try reader.readText()
            case .configs:
                try reader.beginObject()
                while let setting = try reader.nextField() {
                    entry.configs[setting.text(in: bytes)] = try reader.readText()
                }
            case nil: try reader.skipValue()
            }
        }
        guard let topic, let side else { throw JSONError(.badValue, at: start) }
        (entry.topic, entry.side) = (topic, side)
        return entry
    }
}
