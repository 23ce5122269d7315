import KafkaClient
import Runtime

/// When each group last committed on each partition.
///
/// Kafka's answers about offsets do not tell; its own log of them, `__consumer_offsets`, does: a commit is a record there,
/// and the record's timestamp is the commit's. What is older than the records that are looked at, or a cluster that does
/// not let us read them, leaves the time unknown.
final class CommitTimes {
    static let topic = "__consumer_offsets"
    /// Records of a partition that are looked at when nothing was seen before.
    private static let tail: Int64 = 5000

    private let follower: TopicFollower
    private var times: [String: [TopicPartition: Int64]] = [:]

    init(_ kafka: KafkaConfiguration, clock: any Clock) throws(KafkaError) {
        follower = try TopicFollower(kafka, tail: Self.tail, clock: clock)
    }

    func close(deadlineMs: Int) { follower.close(deadlineMs: deadlineMs) }

    /// Takes in what these groups have committed since the last time.
    func update(
        _ groups: [String], partitionCount: Int, _ admin: Admin, deadlineNs: UInt64, timeoutMs: Int
    ) throws(KafkaError) {
        let wanted = Set(groups)
        times = times.filter { wanted.contains($0.key) }
        let places = Set(groups.map { Self.partition(of: $0, count: partitionCount) }).sorted().map {
            TopicPartition(Self.topic, $0)
        }
        var ends: [TopicPartition: Watermarks] = [:]
        for (place, marks) in zip(places, try admin.watermarks(places, timeoutMs: timeoutMs)) {
            if case .success(let marks) = marks { ends[place] = marks }
        }
        _ = try follower.catchUp(to: ends, deadlineNs: deadlineNs) { _, message in
            guard let key = message.key, let commit = CommitKey(key), wanted.contains(commit.group) else { return }
            times[commit.group, default: [:]][commit.partition] = message.value == nil ? nil : message.timestampMs
        }
    }

    /// Milliseconds since the epoch.
    func committedMs(_ group: String, _ partition: TopicPartition) -> Int64? { times[group]?[partition] }

    /// Where the cluster keeps a group's commits: Java's hash of its name.
    static func partition(of group: String, count: Int) -> Int32 {
        var hash: Int32 = 0
        for unit in group.utf16 { hash = hash &* 31 &+ Int32(unit) }
        return (hash & .max) % Int32(max(1, count))
    }
}

/// The key of a committed offset's record: whose it is and where.
struct CommitKey: Equatable {
    let group: String
    let partition: TopicPartition

    init(group: String, partition: TopicPartition) {
        self.group = group
        self.partition = partition
    }

    /// `nil` for records about groups themselves, and for anything that is not of this form.
    init?(_ bytes: Span<UInt8>) {
        var offset = 0
        func integer(_ width: Int) -> Int? {
            guard offset + width <= bytes.count else { return nil }
            var number = 0
            for index in offset..<offset + width { number = number << 8 | Int(bytes[index]) }
            offset += width
            return number
        }
        func text() -> String? {
            guard let count = integer(2), count < 0x8000, offset + count <= bytes.count else { return nil }
            defer { offset += count }
            return String(decoding: (offset..<offset + count).map { bytes[$0] }, as: UTF8.self)
        }
        guard let version = integer(2), version <= 1, let group = text(), let topic = text(),
            let partition = integer(4), partition <= Int(Int32.max), offset == bytes.count
        else { return nil }
        self.init(group: group, partition: TopicPartition(topic, Int32(partition)))
    }
}
