internal import CRdKafka

/// Records from one poll, in the order in which they came, and at most one event that came after them.
///
/// The batch owns the memory; what it lends (`Message`, its spans) cannot outlive it. Bytes are not copied on the way:
/// they lie in the answer that came from the socket, or where it was decompressed to.
@safe
public struct MessageBatch: ~Copyable {
    private var slots: SlotRoom
    public private(set) var count = 0
    /// What happened after the last message of this batch. It must be answered before the next poll if it is a
    /// rebalance.
    public internal(set) var event: ConsumerEvent?
    private let consumer: Consumer
    /// What the records of our own fetching lie in.
    private var contents: [AnswerBytes] = []

    /// Where one record and its parts are.
    @unsafe
    struct Slot {
        var topic: ConsumerTopic
        var partition: Int32
        /// -1 when it is not known.
        var leaderEpoch: Int32 = -1
        var hasLogAppendTime: Bool
        var offset: Int64
        /// 0 when there is none.
        var timestampMs: Int64
        var key: UnsafePointer<UInt8>?
        var keyCount = 0
        var value: UnsafePointer<UInt8>?
        var valueCount = 0
        var headers = unsafe MessageHeaders.none
        /// librdkafka's event that the record lies in.
        var owner: OpaquePointer?
    }

    init(_ consumer: Consumer) {
        self.consumer = consumer
        slots = consumer.batchBegan()
    }

    deinit {
        for index in 0..<count {
            if let owner = unsafe slots.start[index].owner { unsafe rd_kafka_event_destroy(owner) }
        }
        consumer.batchEnded(slots)
    }

    mutating func append(_ slot: Slot) {
        if count == slots.capacity { slots = slots.grown() }
        unsafe (slots.start + count).initialize(to: slot)
        count += 1
    }

    /// Appends a record of librdkafka's.
    mutating func append(
        _ message: UnsafePointer<rd_kafka_message_t>, of topic: ConsumerTopic, owner: OpaquePointer
    ) {
        var kind = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
        let timestampMs = unsafe rd_kafka_message_timestamp(message, &kind)
        var slot = unsafe Slot(
            topic: topic, partition: message.pointee.partition,
            hasLogAppendTime: kind == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME, offset: message.pointee.offset,
            timestampMs: max(0, timestampMs))
        unsafe slot.key = message.pointee.key.map { unsafe UnsafePointer($0.assumingMemoryBound(to: UInt8.self)) }
        unsafe slot.keyCount = message.pointee.key_len
        unsafe slot.value = message.pointee.payload.map { unsafe UnsafePointer($0.assumingMemoryBound(to: UInt8.self)) }
        unsafe slot.valueCount = message.pointee.len
        unsafe slot.headers = .library(message)
        unsafe slot.owner = owner
        unsafe append(slot)
    }

    /// Appends a record of our own fetching.
    mutating func append(
        _ found: IncomingRecords.Found, in content: AnswerBytes, from start: Int, _ topic: ConsumerTopic,
        _ partition: Int32
    ) {
        if contents.last !== content { contents.append(content) }
        let base = unsafe content.start + start
        let record = found.record
        var slot = unsafe Slot(
            topic: topic, partition: partition, leaderEpoch: found.leaderEpoch,
            hasLogAppendTime: found.hasLogAppendTime, offset: found.offset, timestampMs: max(0, found.timestampMs))
        if let key = record.key { unsafe (slot.key, slot.keyCount) = (base + key.lowerBound, key.count) }
        if let value = record.value { unsafe (slot.value, slot.valueCount) = (base + value.lowerBound, value.count) }
        if record.headerCount > 0 {
            unsafe slot.headers = .encoded(base + record.headers.lowerBound, record.headers.count, record.headerCount)
        }
        unsafe append(slot)
    }

    public var isEmpty: Bool { count == 0 }

    public subscript(_ index: Int) -> Message {
        @_lifetime(borrow self)
        get {
            precondition(index >= 0 && index < count, "index out of the batch")
            return unsafe Message(slots.start + index, borrowing: self)
        }
    }
}

/// Room for the slots of a batch, which one batch after the other uses.
@safe
final class SlotRoom {
    let capacity: Int
    @unsafe let start: UnsafeMutablePointer<MessageBatch.Slot>

    init(capacity: Int) {
        self.capacity = capacity
        unsafe start = .allocate(capacity: capacity)
    }

    // Slots own nothing that would have to be let go.
    deinit { unsafe start.deallocate() }

    func grown() -> SlotRoom {
        let larger = SlotRoom(capacity: capacity * 2)
        unsafe larger.start.initialize(from: start, count: capacity)
        return larger
    }
}
