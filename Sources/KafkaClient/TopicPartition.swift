internal import CRdKafka
public import Wire

public struct TopicPartition: Hashable, Sendable, Comparable, CustomStringConvertible {
    public var topic: String
    public var partition: Int32

    public init(_ topic: String, _ partition: Int32) {
        self.topic = topic
        self.partition = partition
    }

    public var description: String { "\(topic)/\(partition)" }

    public static func < (left: Self, right: Self) -> Bool {
        (left.topic, left.partition) < (right.topic, right.partition)
    }
}

/// A place in a partition to read from or to seek to.
public enum StartPosition: Hashable, Sendable {
    case beginning
    case end
    /// Where the group committed, else what `ConsumerOptions.startWithoutCommit` says.
    case committed
    case offset(Int64)

    var raw: Int64 {
        switch self {
        case .beginning: Int64(RD_KAFKA_OFFSET_BEGINNING)
        case .end: Int64(RD_KAFKA_OFFSET_END)
        case .committed: Int64(RD_KAFKA_OFFSET_STORED)
        case .offset(let offset): offset
        }
    }
}

public struct PartitionStart: Hashable, Sendable {
    public var partition: TopicPartition
    public var position: StartPosition
    /// The log that an offset was taken from. Where another one stands under the name, nothing is read
    /// (`ConsumerEvent.lostPlace`). nil: whichever is there.
    public var log: LogIdentity?
    /// The leader's epoch that the record before an offset was taken in (`Message.leaderEpoch`). Where the log was cut off
    /// below the offset since, nothing is read. nil: that is not looked at.
    public var leaderEpoch: Int32?

    public init(
        _ partition: TopicPartition, at position: StartPosition, log: LogIdentity? = nil, leaderEpoch: Int32? = nil
    ) {
        self.partition = partition
        self.position = position
        self.log = log
        self.leaderEpoch = leaderEpoch
    }
}

/// A position that is or was committed: the offset of the *next* record to read, and the committer's note.
public struct CommittedOffset: Hashable, Sendable {
    public var partition: TopicPartition
    public var offset: Int64
    public var metadata: String

    public init(_ partition: TopicPartition, offset: Int64, metadata: String = "") {
        self.partition = partition
        self.offset = offset
        self.metadata = metadata
    }
}

/// One entry of a list that librdkafka filled in.
struct PartitionEntry {
    let partition: TopicPartition
    let offset: Int64
    let error: rd_kafka_resp_err_t
    let metadata: String

    /// nil when there is none: librdkafka's negative logical offsets never leave this module.
    var offsetIfAny: Int64? { offset >= 0 ? offset : nil }
}

/// Owner of an `rd_kafka_topic_partition_list_t`.
@safe
struct PartitionList: ~Copyable {
    let raw: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>

    init(capacity: Int) {
        guard let made = unsafe rd_kafka_topic_partition_list_new(Int32(clamping: capacity)) else {
            preconditionFailure("librdkafka aborts when out of memory; a list is never nil")
        }
        unsafe raw = made
    }

    init(_ partitions: some Collection<TopicPartition>) {
        self.init(capacity: partitions.count)
        for partition in partitions { add(partition) }
    }

    init(_ starts: some Collection<PartitionStart>) {
        self.init(capacity: starts.count)
        for start in starts { add(start.partition, offset: start.position.raw) }
    }

    init(_ offsets: some Collection<CommittedOffset>) {
        self.init(capacity: offsets.count)
        for offset in offsets { add(offset.partition, offset: offset.offset, metadata: offset.metadata) }
    }

    /// Takes over a list made by librdkafka.
    init(consuming list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>) { unsafe raw = list }

    deinit { unsafe rd_kafka_topic_partition_list_destroy(raw) }

    func add(_ partition: TopicPartition, offset: Int64 = -1001, metadata: String = "") {
        guard let entry = unsafe rd_kafka_topic_partition_list_add(raw, partition.topic, partition.partition) else {
            return
        }
        unsafe entry.pointee.offset = offset
        guard !metadata.isEmpty else { return }
        // librdkafka frees it with the list.
        let bytes = Array(metadata.utf8)
        if let copy = unsafe rd_kafka_mem_malloc(nil, bytes.count) {
            unsafe bytes.withUnsafeBytes {
                unsafe copy.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(copy), byteCount: $0.count)
            }
            unsafe entry.pointee.metadata = copy
            unsafe entry.pointee.metadata_size = bytes.count
        }
    }

    func sort() { unsafe rd_kafka_topic_partition_list_sort(raw, nil, nil) }

    var entries: [PartitionEntry] { unsafe Self.entries(of: raw) }
    var partitions: [TopicPartition] { entries.map(\.partition) }

    /// The first error of a single partition, if any.
    func firstError(place: String) -> KafkaError? {
        for entry in entries where entry.error != RD_KAFKA_RESP_ERR_NO_ERROR {
            return KafkaError(entry.error, place: "\(place) \(entry.partition)")
        }
        return nil
    }

    static func entries(of list: UnsafePointer<rd_kafka_topic_partition_list_t>) -> [PartitionEntry] {
        let count = unsafe Int(list.pointee.cnt)
        var result: [PartitionEntry] = []
        result.reserveCapacity(count)
        // Lists come grouped by topic, so one String serves all of a topic's partitions.
        var lastPointer: UnsafeMutablePointer<CChar>?
        var lastTopic = ""
        for index in 0..<count {
            let entry = unsafe list.pointee.elems[index]
            if unsafe entry.topic != lastPointer {
                let topic = unsafe String(cString: entry.topic)
                if topic != lastTopic { lastTopic = topic }
                unsafe lastPointer = entry.topic
            }
            var metadata = ""
            if let bytes = unsafe entry.metadata, unsafe entry.metadata_size > 0 {
                metadata = unsafe String(
                    decoding: UnsafeRawBufferPointer(start: bytes, count: entry.metadata_size), as: UTF8.self)
            }
            result.append(
                unsafe PartitionEntry(
                    partition: TopicPartition(lastTopic, entry.partition), offset: entry.offset, error: entry.err,
                    metadata: metadata))
        }
        return result
    }
}
