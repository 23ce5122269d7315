internal import CRdKafka

/// Records from one poll, in the order in which they came, and at most one event that came after them.
///
/// The batch owns librdkafka's memory; what it lends (`Message`, its spans) cannot outlive it. Bytes are not copied on
/// the way: they lie in the buffer that came from the socket, or was decompressed into.
@safe
public struct MessageBatch: ~Copyable {
    private var slots: UnsafeMutablePointer<Slot>?
    public private(set) var count = 0
    /// What happened after the last message of this batch. It must be answered before the next poll if it is a
    /// rebalance.
    public internal(set) var event: ConsumerEvent?
    private let consumer: Consumer

    @unsafe
    struct Slot {
        /// Owns the message.
        let owner: OpaquePointer
        let message: UnsafePointer<rd_kafka_message_t>
        let topic: ConsumerTopic
    }

    init(capacity: Int, _ consumer: Consumer) {
        self.consumer = consumer
        unsafe slots = capacity > 0 ? .allocate(capacity: capacity) : nil
        consumer.batchBegan()
    }

    deinit {
        for index in 0..<count { if let slot = unsafe slots?[index] { unsafe rd_kafka_event_destroy(slot.owner) } }
        unsafe slots?.deallocate()
        consumer.batchEnded()
    }

    mutating func append(_ slot: Slot) {
        unsafe slots?[count] = slot
        count += 1
    }

    public var isEmpty: Bool { count == 0 }

    public subscript(_ index: Int) -> Message {
        @_lifetime(borrow self)
        get {
            precondition(index >= 0 && index < count, "index out of the batch")
            guard let slot = unsafe slots?[index] else { preconditionFailure("a batch with messages has slots") }
            return unsafe Message(slot.message, slot.topic, borrowing: self)
        }
    }
}
