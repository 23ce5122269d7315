// Reading from the log, on one thread.
//
// A consumer reads either what it assigns itself (`assign`, `add`, `remove`) or what a group gives it (`subscribe`): then
// the group's decisions arrive as events of `poll`, and the caller answers them. Everything — messages, rebalances,
// ends of partitions, commit results — comes through `poll`, those of a partition in order. `wakeDescriptor` is readable
// while there may be something, so a thread can wait for Kafka and for its sockets in one place.
//
// Records are fetched by `DirectFetcher` where it can, and by librdkafka where its properties ask for what only librdkafka
// has (docs/decisions/009). Groups, commits and the offsets of many partitions are librdkafka's in any case; to it, a member
// whose records we fetch has nothing assigned.
//
// Non-obvious:
// - A batch of librdkafka's is filled from one blocking poll and then polls that do not wait. Its own batch calls
//   (`rd_kafka_consume_batch*`) may lose messages around a seek, pause or rebalance in 2.0.2.
// - A rebalance holds the group's other members until it is answered.
// - Polling *any* queue of the client resets `max.poll.interval.ms`, so the group does not notice a member that polls
//   but makes no progress: `fanout lag` does (STALLED).
// - Waiting at `wakeDescriptor` is no polling, nor is our own fetching: where librdkafka has nothing to tell for that long,
//   the group would put its member out. So whoever waits at the descriptor calls `stayInGroup` now and then.
internal import CRdKafka
public import Wire

@safe
public final class Consumer {
    let configuration: KafkaConfiguration
    private let options: ConsumerOptions
    private let log: KafkaLogSink?
    let fetcher: DirectFetcher?
    /// librdkafka's part, once there is any.
    private(set) var library: ClientHandle?
    private let wake: WakeDescriptor
    var groupID: String? { options.groupID }
    private var hasGroup: Bool { groupID != nil }
    var coverage = GroupCoverage()
    private var topics = unsafe [(handle: OpaquePointer, name: String)]()
    private var lastSeen: (handle: OpaquePointer, topic: ConsumerTopic)?
    private var topicsWithLeaders: Set<String> = []
    /// Where librdkafka was told to read, in case that it has to be told again.
    var begun: [TopicPartition: PartitionStart] = [:]
    private var batchesAlive = 0
    private var spareSlots: SlotRoom?
    private var isClosed = false
    private var mustAnswer: ConsumerEvent?
    private var polledAtMs = monotonicMs()

    public init(
        _ configuration: KafkaConfiguration, _ options: ConsumerOptions, log: KafkaLogSink? = nil
    ) throws(KafkaError) {
        self.configuration = configuration
        self.options = options
        self.log = log
        wake = try WakeDescriptor()
        fetcher =
            DirectFetcher.serves(configuration, options) ? try DirectFetcher(configuration, options, log: log) : nil
        fetcher?.committedOffsets = { [unowned self] partitions throws(KafkaError) in
            try committed(partitions, timeoutMs: 1000).map { $0?.offset }
        }
        if fetcher == nil || options.groupID != nil { _ = try handle }
    }

    deinit { if !isClosed { close(deadlineMs: 0) } }

    /// librdkafka's part, made when it is first needed: a reader of our own fetching that only assigns may never need it.
    var handle: ClientHandle {
        get throws(KafkaError) {
            if let library { return library }
            precondition(!isClosed, "the consumer is closed")
            var properties = PropertySet()
            for (name, value) in options.properties { try properties.set(name, to: value) }
            // How soon librdkafka 2.2 and newer look again at a queue that was full; before, it was a second.
            properties.setIfKnown("fetch.queue.backoff.ms", to: "10")
            try properties.apply(configuration)
            let events =
                RD_KAFKA_EVENT_FETCH | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT
            let made = try ClientHandle(.consumer, properties, events: events, log: log, place: "consumer")
            var one: UInt64 = 1
            unsafe rd_kafka_queue_io_event_enable(made.queue, wake.descriptor, &one, 8)
            try fetcher?.watch(wake)
            library = made
            return made
        }
    }

    /// Readable while there may be something to `poll`.
    public var wakeDescriptor: Int32 { fetcher?.wakeDescriptor ?? wake.descriptor }

    /// Set once this consumer can do no more, such as when another took its `groupInstanceID`; told once by `poll`.
    public var fatalError: KafkaError? { fenced ?? library?.fatalError(place: "consumer") }
    /// librdkafka 2.0.2 tells of a member that was fenced only as the failure of its commits.
    private var fenced: KafkaError?
    private var isFatalErrorTold = false

    private func untoldFatalError() -> ConsumerEvent? {
        guard hasGroup, !isFatalErrorTold, let fatalError else { return nil }
        isFatalErrorTold = true
        return .error(fatalError, nil)
    }

    /// After this nothing more is committed.
    func noteFencing(_ code: rd_kafka_resp_err_t, place: String) {
        guard code == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, fenced == nil else { return }
        fenced = KafkaError(fatal: code, message: "fenced", place: place)
    }

    /// Makes `wakeDescriptor` readable when librdkafka has not been polled for a second.
    public func stayInGroup() {
        if hasGroup, monotonicMs() - polledAtMs >= 1000 { wake.signal() }
    }

    // MARK: Topics

    /// This consumer's number for a topic; cheap after the first time.
    public func topic(_ name: String) -> ConsumerTopic {
        if let fetcher { return ConsumerTopic(index: fetcher.topic(name)) }
        for index in unsafe topics.indices where unsafe topics[index].name == name {
            return ConsumerTopic(index: index)
        }
        guard let library, let made = unsafe rd_kafka_topic_new(library.raw, name, nil) else {
            preconditionFailure("\"\(name)\" cannot be a topic's name")
        }
        unsafe topics.append((made, name))
        return unsafe ConsumerTopic(index: topics.count - 1)
    }

    public func name(of topic: ConsumerTopic) -> String {
        if let fetcher { return fetcher.topics[topic.index] }
        return unsafe topics[topic.index].name
    }

    /// The handle kept in `topics` keeps librdkafka from giving its address to another topic.
    private func topic(of raw: OpaquePointer) -> ConsumerTopic {
        if let last = unsafe lastSeen, unsafe last.handle == raw { return unsafe last.topic }
        let topic = topic(unsafe String(cString: rd_kafka_topic_name(raw)))
        unsafe lastSeen = (raw, topic)
        return topic
    }

    /// Which log stands under a topic's name, as far as the brokers have told; nil also where librdkafka fetches, which does
    /// not tell (2.0.2). It is known by the time that records of the topic come.
    public func identity(of topic: String) -> LogIdentity? { fetcher?.cluster.identity(of: topic) }

    // MARK: Polling

    /// Waits up to `timeoutMs` for something, then takes what is there, up to `maxMessages`. An event ends the batch.
    public func poll(maxMessages: Int = 1000, timeoutMs: Int = 0) -> MessageBatch {
        if let event = mustAnswer {
            preconditionFailure("poll before the answer to \(event): assign or unassign first")
        }
        do throws(KafkaError) { try checkCoverage() } catch {
            tell(KafkaLogLine(level: .debug, facility: "GROUP", message: "\(error)"))
        }
        if let fetcher { return poll(fetcher, maxMessages, timeoutMs) }
        var batch = MessageBatch(self)
        if let fatal = untoldFatalError() {
            batch.event = fatal
            return batch
        }
        guard let library else { return batch }
        // Cleared before the queue is emptied: what arrives later signals again.
        wake.clear()
        polledAtMs = monotonicMs()
        var timeout = Int32(clamping: timeoutMs)
        while batch.count < maxMessages {
            guard let event = unsafe rd_kafka_queue_poll(library.queue, timeout) else { return batch }
            timeout = 0
            if unsafe rd_kafka_event_type(event) == RD_KAFKA_EVENT_FETCH,
                let message = unsafe rd_kafka_event_message_next(event),
                unsafe message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR
            {
                unsafe batch.append(message, of: topic(of: message.pointee.rkt), owner: event)
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

    private func poll(_ fetcher: DirectFetcher, _ maxMessages: Int, _ timeoutMs: Int) -> MessageBatch {
        var batch = MessageBatch(self)
        let deadline = Deadline(afterMs: timeoutMs)
        var waitMs = 0
        stayInGroup()
        if let fatal = untoldFatalError() {
            batch.event = fatal
            return batch
        }
        while true {
            fetcher.turn(timeoutMs: fetcher.hasArrivals ? 0 : waitMs)
            if fetcher.hasControl, let event = controlEvent(fetcher) {
                batch.event = event
                break
            }
            if let event = fetcher.take(into: &batch, max: maxMessages) {
                batch.event = event
                break
            }
            if batch.count > 0 || timeoutMs == 0 { break }
            waitMs = Int(deadline.remainingMs)
            if waitMs == 0 { break }
        }
        if fetcher.hasArrivals || fetcher.hasControl { fetcher.wake() }
        return batch
    }

    /// What the group, or a commit, has to tell.
    private func controlEvent(_ fetcher: DirectFetcher) -> ConsumerEvent? {
        guard let library else {
            fetcher.tookControl()
            return nil
        }
        polledAtMs = monotonicMs()
        while let event = unsafe rd_kafka_queue_poll(library.queue, 0) {
            let seen = unsafe self.event(event)
            unsafe rd_kafka_event_destroy(event)
            if let seen { return seen }
        }
        fetcher.tookControl()
        return nil
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
                ? .assigned(list)
                : .revoked(list, lost: library.map { unsafe rd_kafka_assignment_lost($0.raw) != 0 } ?? false)
            mustAnswer = event
            if isAssignment { coverage.assigned(list, nowMs: monotonicMs()) }
            return event
        case RD_KAFKA_EVENT_OFFSET_COMMIT:
            let failure = unsafe rd_kafka_event_error(raw)
            let entries = unsafe rd_kafka_event_topic_partition_list(raw).map { unsafe PartitionList.entries(of: $0) }
            if failure == RD_KAFKA_RESP_ERR__NO_OFFSET { return nil }
            let offsets = (entries ?? []).map {
                CommittedOffset($0.partition, offset: $0.offset, metadata: $0.metadata)
            }
            var error = failure == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : KafkaError(failure, place: "commit")
            noteFencing(failure, place: "commit")
            for entry in entries ?? [] where error == nil && entry.error != RD_KAFKA_RESP_ERR_NO_ERROR {
                error = KafkaError(entry.error, place: "commit \(entry.partition)")
                noteFencing(entry.error, place: "commit \(entry.partition)")
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
        if code == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, let partition {
            // No commit is nothing that comes here (`resolveCommitted`), except where that is to be an error.
            let text = unsafe rd_kafka_event_error_string(raw).map { unsafe String(cString: $0) } ?? ""
            let place = LostPlace(
                partition: partition, position: offset >= 0 ? offset : nil, log: nil, leaderEpoch: nil,
                reason: .outOfRange(try? watermarks(partition, timeoutMs: 1000)))
            log?(KafkaLogLine(level: .debug, facility: "FETCH", message: "\(place.partition): \(text)"))
            return .lostPlace(place)
        }
        let text = unsafe rd_kafka_event_error_string(raw).map { unsafe String(cString: $0) }
        let place = partition.map { "consume \($0)" } ?? "consumer"
        // Whatever the event is called: librdkafka 2.0.2 has several names for a member that was fenced.
        noteFencing(code, place: place)
        if let fatal = untoldFatalError() { return fatal }
        return .error(KafkaError(code, message: text, place: place), partition)
    }

    func batchBegan() -> SlotRoom {
        batchesAlive += 1
        defer { spareSlots = nil }
        return spareSlots ?? SlotRoom(capacity: 64)
    }

    func batchEnded(_ slots: SlotRoom) {
        batchesAlive -= 1
        spareSlots = slots
    }

    // MARK: The group

    /// Joins the group for these topics; what it gives arrives as `ConsumerEvent.assigned`.
    public func subscribe(_ topics: [String]) throws(KafkaError) {
        precondition(hasGroup, "subscribe needs a group id")
        coverage.subscribed(topics)
        try rejoin(topics)
    }

    func rejoin(_ topics: [String]) throws(KafkaError) {
        let list = PartitionList(topics.map { TopicPartition($0, -1) })
        let raw = try unsafe handle.raw
        try check(unsafe rd_kafka_subscribe(raw, list.raw), "subscribe \(topics.joined(separator: ","))")
    }

    public func unsubscribe() throws(KafkaError) {
        coverage.subscribed([])
        let raw = try unsafe handle.raw
        try check(unsafe rd_kafka_unsubscribe(raw), "unsubscribe")
    }

    /// Answers a rebalance, as far as librdkafka is concerned: what it is to fetch, which is nothing where we do.
    func answer(_ starts: [PartitionStart]?) throws(KafkaError) {
        mustAnswer = nil
        guard fetcher == nil || hasGroup else { return }
        let raw = try unsafe handle.raw
        guard let starts else { return try check(unsafe rd_kafka_assign(raw, nil), "unassign") }
        if fetcher == nil { try learnLeaders(of: starts) }
        let list = PartitionList(fetcher == nil ? try resolved(starts) : [])
        begun = Dictionary(starts.map { ($0.partition, $0) }) { $1 }
        try check(unsafe rd_kafka_assign(raw, list.raw), "assign")
    }

    /// To librdkafka, a partition without a commit and one whose place fell out of the log are the same. So the first is
    /// decided here, and only the second is left to its `auto.offset.reset=error`.
    private func resolved(_ starts: [PartitionStart]) throws(KafkaError) -> [PartitionStart] {
        let asked = starts.indices.filter { starts[$0].position == .committed }
        guard hasGroup, !asked.isEmpty, options.startWithoutCommit != .error else { return starts }
        var starts = starts
        for (index, offset) in zip(asked, try committed(asked.map { starts[$0].partition })) where offset == nil {
            starts[index].position = options.startWithoutCommit == .earliest ? .beginning : .end
        }
        return starts
    }

    /// A partition that is assigned before its leader is known waits half a second for a timer of librdkafka's; asking
    /// first costs one round trip. Not knowing is no error here: librdkafka goes on asking.
    func learnLeaders(of starts: [PartitionStart]) throws(KafkaError) {
        let unknown = Set(starts.map(\.partition.topic)).subtracting(topicsWithLeaders)
        guard !unknown.isEmpty else { return }
        if (try? handle.partitionCounts(of: unknown.sorted(), timeoutMs: 1000)) != nil {
            topicsWithLeaders.formUnion(unknown)
        }
    }

    func tell(_ line: KafkaLogLine) { log?(line) }

    func check(_ code: rd_kafka_resp_err_t, _ place: @autoclosure () -> String) throws(KafkaError) {
        if code == RD_KAFKA_RESP_ERR_NO_ERROR { return }
        if let fatal = library?.fatalError(place: place()) { throw fatal }
        throw KafkaError(code, place: place())
    }

    // MARK: End

    /// Takes a static member that has unsubscribed, or is closed, out of its group; others are out by that already. Answers
    /// why it could not: then the group gives its partitions to others when its session times out.
    private func depart(_ member: String?, _ deadline: Deadline) -> KafkaError? {
        guard let group = options.groupID, let instance = options.groupInstanceID, let member, fatalError == nil else {
            return nil
        }
        return GroupDeparture(group: group, member: member, instance: instance).run(configuration, deadline: deadline)
    }

    private var memberID: String? {
        guard let library, let text = unsafe rd_kafka_memberid(library.raw) else { return nil }
        defer { unsafe rd_kafka_mem_free(library.raw, text) }
        return unsafe text.pointee == 0 ? nil : String(cString: text)
    }

    /// Leaves the group for now: what it had given is taken away by `ConsumerEvent.revoked`, and others get it at once.
    /// Answers why they will not before the member's session times out.
    public func leave(deadlineMs: Int) throws(KafkaError) -> KafkaError? {
        let member = memberID
        try unsubscribe()
        return depart(member, Deadline(afterMs: deadlineMs))
    }

    /// Ends for good: the group gives the partitions to others at once, also those of a static member, which would else be
    /// waited for. Commit before. Answers why it does not.
    public func closeForGood(deadlineMs: Int) -> KafkaError? {
        let deadline = Deadline(afterMs: deadlineMs)
        let member = isClosed ? nil : memberID
        let wasFenced = fatalError != nil
        close(deadlineMs: deadlineMs)
        return wasFenced ? nil : depart(member, deadline)
    }

    /// Leaves the group, unless as a static member, and ends, waiting no longer than `deadlineMs`: a broker which does not
    /// answer cannot hold up a shutdown. Commit before. Answers false if the deadline came first; the group then notices
    /// by its session timeout.
    @discardableResult
    public func close(deadlineMs: Int) -> Bool {
        guard !isClosed else { return true }
        isClosed = true
        precondition(batchesAlive == 0, "a batch is still in use while its consumer closes")
        fetcher?.close()
        guard let library else { return true }
        if mustAnswer != nil { _ = unsafe rd_kafka_assign(library.raw, nil) }
        mustAnswer = nil
        unsafe topics.forEach { unsafe rd_kafka_topic_destroy($0.handle) }
        unsafe topics = []
        return library.destroy(deadline: Deadline(afterMs: max(deadlineMs, 500)))
    }
}
