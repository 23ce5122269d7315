/// Every topic of Fanout. What each is for, who writes it and how it is kept stands in `kafka/topics.json`.
public enum Topic: String, CaseIterable, Sendable {
    case incoming = "chat.incoming"
    case signals = "chat.signals"
    case members = "chat.members"
    case users = "chat.users"
    case messages = "chat.messages"
    case rejected = "chat.rejected"
    case deliveries = "chat.deliveries"
    case presence = "chat.presence"
    case push = "chat.push"
    case pushDead = "chat.push.dead"
    case instances = "chat.instances"
}

/// Topic and group names as they are on the cluster: several Fanouts can share one cluster under different prefixes.
public struct Names: Sendable, Equatable {
    public let prefix: String

    public init(prefix: String = "") {
        self.prefix = prefix
    }

    public subscript(topic: Topic) -> String { prefix + topic.rawValue }

    /// The consumer group of a stage: `fanout.join`, `fanout.delivery`, …
    public func group(_ stage: String) -> String { prefix + "fanout." + stage }

    /// The topic that a name on the cluster stands for.
    public func topic(named name: String) -> Topic? {
        guard name.hasPrefix(prefix) else { return nil }
        return Topic(rawValue: String(name.dropFirst(prefix.count)))
    }
}

/// Where a record stands in the log. As the value of the Kafka header `src` it names the record that a delivery came
/// from: `topic@tag/partition/offset`. The tag, eight hexadecimal digits, tells runs of offsets apart (`LogRun`); without
/// one nothing was known of the log.
public struct SourcePosition: Hashable, Sendable, CustomStringConvertible {
    public static let header = "src"

    public var topic: String
    public var tag: UInt32?
    public var partition: Int32
    public var offset: Int64

    public init(topic: String, tag: UInt32? = nil, partition: Int32, offset: Int64) {
        self.topic = topic
        self.tag = tag
        self.partition = partition
        self.offset = offset
    }

    public init?(text: Span<UInt8>) {
        let parts = String(showing: text).split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 3, let partition = Int32(parts[1]), let offset = Int64(parts[2]), partition >= 0,
            offset >= 0
        else { return nil }
        let name = parts[0].split(separator: "@", omittingEmptySubsequences: false)
        guard name.count <= 2, let topic = name.first, !topic.isEmpty else { return nil }
        self.init(topic: String(topic), partition: partition, offset: offset)
        guard name.count == 2 else { return }
        guard name[1].utf8.count == 8, let tag = UInt32(name[1], radix: 16) else { return nil }
        self.tag = tag
    }

    public var description: String { "\(Self.name(of: topic, tag))/\(partition)/\(offset)" }

    /// What stands before the partition.
    public static func name(of topic: String, _ tag: UInt32?) -> String {
        guard let tag else { return topic }
        let digits = String(tag, radix: 16)
        return topic + "@" + String(repeating: "0", count: 8 - digits.count) + digits
    }
}
