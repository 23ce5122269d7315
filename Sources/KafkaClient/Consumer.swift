// Reading from the log, on one thread.
//
// A consumer reads either what it assigns itself (`assign`, `add`, `remove`) or what a group gives it (`subscribe`): then
// the group's decisions arrive as events of `poll`, and the caller answers them. Everything — messages, rebalances,
// ends of partitions, commit results — comes through one queue, in order. `wakeDescriptor` is readable while there may
// be something in it, so a thread can wait for Kafka and for its sockets in one place.
//
// Non-obvious:
// - A batch is filled from one blocking poll and then polls that do not wait. librdkafka's own batch calls
//   (`rd_kafka_consume_batch*`) may lose messages around a seek, pause or rebalance in 2.0.2.
// - A rebalance holds the group's other members until it is answered.
// - Polling *any* queue of the client resets `max.poll.interval.ms`, so the group does not notice a member that polls
//   but makes no progress: `fanout lag` does (STALLED).
internal import CRdKafka

@safe
public final class Consumer {
    let handle: ClientHandle
    private let wake: WakeDescriptor
    private let hasGroup: Bool
    private var topics = unsafe [(handle: OpaquePointer, name: String)]()
    private var lastSeen: (handle: OpaquePointer, topic: ConsumerTopic)?
    private var topicsWithLeaders: Set<String> = []
    private var batchesAlive = 0
    private var isClosed = false
    private var mustAnswer: ConsumerEvent?

    public init(
        _ configuration: KafkaConfiguration, _ options: ConsumerOptions, log: KafkaLogSink? = nil
    ) throws(KafkaError) {
        var properties = PropertySet()
        for (name, value) in options.properties { try properties.set(name, to: value) }
        // How soon librdkafka 2.2 and newer look again at a queue that was full; before, it was a second.
        properties.setIfKnown("fetch.queue.backoff.ms", to: "10")
        try properties.apply(configuration)
        hasGroup = options.groupID != nil
        let events =
            RD_KAFKA_EVENT_FETCH | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT
        handle = try ClientHandle(.consumer, properties, events: events, log: log, place: "consumer")
        wake = try WakeDescriptor()
        var one: UInt64 = 1
        unsafe rd_kafka_queue_io_event_enable(handle.queue, wake.descriptor, &one, 8)
    }

    deinit { if !isClosed { close(deadlineMs: 0) } }

    /// Readable while there may be something to `poll`.
    public var wakeDescriptor: Int32 { wake.descriptor }

    /// Set once this consumer can do no more, such as when another took its `groupInstanceID`.
    public var fatalError: KafkaError? { handle.fatalError(place: "consumer") }

    // MARK: Topics

    /// This consumer's number for a topic; cheap after the first time.
    public func topic(_ name: String) -> ConsumerTopic {
        for index in unsafe topics.indices where unsafe topics[index].name == name {
            return ConsumerTopic(index: index)
        }
        guard let made = unsafe rd_kafka_topic_new(handle.raw, name, nil) else {
            preconditionFailure("\"\(name)\" cannot be a topic's name")
        }
        unsafe topics.append((made, name))
        return unsafe ConsumerTopic(index: topics.count - 1)
    }

    public func name(of topic: ConsumerTopic) -> String { unsafe topics[topic.index].name }

    /// The handle kept in `topics` keeps librdkafka from giving its address to another topic.
    private func topic(of raw: OpaquePointer) -> ConsumerTopic {
        if let last = unsafe lastSeen, unsafe last.handle == raw { return unsafe last.topic }
        let topic = topic(unsafe String(cString: rd_kafka_topic_name(raw)))
        unsafe lastSeen = (raw, topic)
        return topic
    }

    // MARK: Polling

    /// Waits up to `timeoutMs` for something, then takes what is there, up to `maxMessages`. An event ends the batch.
    public func poll(maxMessages: Int = 1000, timeoutMs: Int = 0) -> MessageBatch {
        if let event = mustAnswer {
            preconditionFailure("poll before the answer to \(event): assign or unassign first")
        }
        var batch = MessageBatch(capacity: maxMessages, self)
        // Cleared before the queue is emptied: what arrives later signals again.
        wake.clear()
        var timeout = Int32(clamping: timeoutMs)
        while batch.count < maxMessages {
            guard let event = unsafe rd_kafka_queue_poll(handle.queue, timeout) else { return batch }
            timeout = 0
            if unsafe rd_kafka_event_type(event) == RD_KAFKA_EVENT_FETCH,
                let message = unsafe rd_kafka_event_message_next(event),
                unsafe message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR
            {
                unsafe batch.append(.init(owner: event, message: message, topic: topic(of: message.pointee.rkt)))
                continue
            }
            let seen = unsafe self.event(event)
            unsafe rd_kafka_event_destroy(event)
            if let seen {
                batch.event = seen
                break
            }
        }
        // There may be more, and librdkafka signals only when a queue stops being empty.
        wake.signal()
        return batch
    }

    private func event(_ raw: OpaquePointer) -> ConsumerEvent? {
        switch unsafe rd_kafka_event_type(raw) {
        case RD_KAFKA_EVENT_REBALANCE:
            let partitions = unsafe rd_kafka_event_topic_partition_list(raw).map {
                unsafe PartitionList.entries(of: $0)
            }
            let list = (partitions ?? []).map(\.partition)
            let isAssignment = unsafe rd_kafka_event_error(raw) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS
            let event: ConsumerEvent =
                isAssignment
                ? .assigned(list) : .revoked(list, lost: unsafe rd_kafka_assignment_lost(handle.raw) != 0)
            mustAnswer = event
            return event
        case RD_KAFKA_EVENT_OFFSET_COMMIT:
            let failure = unsafe rd_kafka_event_error(raw)
            let entries = unsafe rd_kafka_event_topic_partition_list(raw).map { unsafe PartitionList.entries(of: $0) }
            if failure == RD_KAFKA_RESP_ERR__NO_OFFSET { return nil }
            let offsets = (entries ?? []).map {
                CommittedOffset($0.partition, offset: $0.offset, metadata: $0.metadata)
            }
            var error = failure == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : KafkaError(failure, place: "commit")
            for entry in entries ?? [] where error == nil && entry.error != RD_KAFKA_RESP_ERR_NO_ERROR {
                error = KafkaError(entry.error, place: "commit \(entry.partition)")
            }
            return .committed(offsets, error: error)
        default:
            return unsafe failure(raw)
        }
    }

    private func failure(_ raw: OpaquePointer) -> ConsumerEvent? {
        let code = unsafe rd_kafka_event_error(raw)
        guard code != RD_KAFKA_RESP_ERR_NO_ERROR else { return nil }
        var partition: TopicPartition?
        var offset: Int64 = -1
        if let entry = unsafe rd_kafka_event_topic_partition(raw) {
            partition = unsafe TopicPartition(String(cString: entry.pointee.topic), entry.pointee.partition)
            offset = unsafe entry.pointee.offset
            unsafe rd_kafka_topic_partition_destroy(entry)
        }
        if code == RD_KAFKA_RESP_ERR__PARTITION_EOF, let partition {
            return .endOfPartition(partition, nextOffset: offset)
        }
        let text = unsafe rd_kafka_event_error_string(raw).map { unsafe String(cString: $0) }
        let place = partition.map { "consume \($0)" } ?? "consumer"
        if code == RD_KAFKA_RESP_ERR__FATAL, let fatal = handle.fatalError(place: place) {
            return .error(fatal, partition)
        }
        return .error(KafkaError(code, message: text, place: place), partition)
    }

    func batchBegan() { batchesAlive += 1 }

    func batchEnded() { batchesAlive -= 1 }

    // MARK: Assignment

    /// Joins the group for these topics; what it gives arrives as `ConsumerEvent.assigned`.
    public func subscribe(_ topics: [String]) throws(KafkaError) {
        precondition(hasGroup, "subscribe needs a group id")
        let list = PartitionList(topics.map { TopicPartition($0, -1) })
        try check(unsafe rd_kafka_subscribe(handle.raw, list.raw), "subscribe \(topics.joined(separator: ","))")
    }

    public func unsubscribe() throws(KafkaError) {
        try check(unsafe rd_kafka_unsubscribe(handle.raw), "unsubscribe")
    }

    /// Reads exactly these partitions from now on. Also the answer to `.assigned`: then name at least what was given,
    /// and any partitions of other topics to read beside them.
    public func assign(_ starts: [PartitionStart]) throws(KafkaError) {
        learnLeaders(of: starts)
        let list = PartitionList(starts)
        mustAnswer = nil
        try check(unsafe rd_kafka_assign(handle.raw, list.raw), "assign")
    }

    /// Reads nothing from now on. Also the answer to `.revoked`.
    public func unassign() throws(KafkaError) {
        mustAnswer = nil
        try check(unsafe rd_kafka_assign(handle.raw, nil), "unassign")
    }

    /// Reads these too, without disturbing the others. For consumers without a group's assignment.
    public func add(_ starts: [PartitionStart]) throws(KafkaError) {
        learnLeaders(of: starts)
        let list = PartitionList(starts)
        if let error = unsafe KafkaError(
            consuming: rd_kafka_incremental_assign(handle.raw, list.raw), place: "assign more")
        {
            throw error
        }
    }

    public func remove(_ partitions: [TopicPartition]) throws(KafkaError) {
        let list = PartitionList(partitions)
        if let error = unsafe KafkaError(
            consuming: rd_kafka_incremental_unassign(handle.raw, list.raw), place: "unassign some")
        {
            throw error
        }
    }

    /// A partition that is assigned before its leader is known waits half a second for a timer of librdkafka's; asking
    /// first costs one round trip. Not knowing is no error here: librdkafka goes on asking.
    private func learnLeaders(of starts: [PartitionStart]) {
        let unknown = Set(starts.map(\.partition.topic)).subtracting(topicsWithLeaders)
        guard !unknown.isEmpty else { return }
        if (try? handle.partitionCounts(of: unknown.sorted(), timeoutMs: 1000)) != nil {
            topicsWithLeaders.formUnion(unknown)
        }
    }

    public var assignment: [TopicPartition] {
        var list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?
        guard unsafe rd_kafka_assignment(handle.raw, &list) == RD_KAFKA_RESP_ERR_NO_ERROR, let list = unsafe list else {
            return []
        }
        return unsafe PartitionList(consuming: list).partitions
    }

    private func check(_ code: rd_kafka_resp_err_t, _ place: @autoclosure () -> String) throws(KafkaError) {
        if code == RD_KAFKA_RESP_ERR_NO_ERROR { return }
        if let fatal = handle.fatalError(place: place()) { throw fatal }
        throw KafkaError(code, place: place())
    }

    // MARK: End

    /// Leaves the group and ends, waiting no longer than `deadlineMs`: a broker which does not answer cannot hold up a
    /// shutdown. Commit before. Answers false if the deadline came first; the group then notices by its session timeout.
    @discardableResult
    public func close(deadlineMs: Int) -> Bool {
        guard !isClosed else { return true }
        isClosed = true
        precondition(batchesAlive == 0, "a batch is still in use while its consumer closes")
        let deadline = Deadline(afterMs: deadlineMs)
        if mustAnswer != nil { try? unassign() }
        var isClean = true
        if let error = unsafe KafkaError(
            consuming: rd_kafka_consumer_close_queue(handle.raw, handle.queue), place: "close")
        {
            isClean = error.code == .fatal
        } else {
            while unsafe rd_kafka_consumer_closed(handle.raw) == 0 {
                let remaining = deadline.remainingMs
                if remaining == 0 {
                    isClean = false
                    break
                }
                guard let event = unsafe rd_kafka_queue_poll(handle.queue, min(remaining, 100)) else { continue }
                if unsafe rd_kafka_event_type(event) == RD_KAFKA_EVENT_REBALANCE {
                    _ = unsafe rd_kafka_assign(handle.raw, nil)
                }
                unsafe rd_kafka_event_destroy(event)
            }
        }
        unsafe topics.forEach { unsafe rd_kafka_topic_destroy($0.handle) }
        unsafe topics = []
        let grace = Deadline(afterMs: max(Int(deadline.remainingMs), 500))
        return handle.destroy(deadline: grace) && isClean
    }
}
