// Writing to the log.
//
// `produce` hands a record to librdkafka and returns at once; what became of it arrives later as a `DeliveryReport`
// through `poll`, on the same thread. Between the two, librdkafka's own threads batch, compress, send and retry.
// Nothing here blocks for longer than the caller says, and no record is ever dropped without a report: when the queue
// is full, `produce` says `.queueFull` and has taken nothing.
//
// Reports come as events on a queue, many records an event, and `wakeDescriptor` becomes readable when there are some,
// so the owning thread waits for them in the same place as for everything else.
internal import CRdKafka

public struct ProducerOptions: Sendable {
    /// How long a record may wait for others to share a request with. 0 sends at once; batches still form while
    /// earlier requests are under way.
    public var lingerMs: Double = 0
    public var batchBytesMax = 1_000_000
    public var batchMessagesMax = 10_000
    public var compression = Compression.none
    /// When the queue holds this much, `produce` answers `.queueFull`.
    public var queueMessagesMax = 100_000
    public var queueBytesMax = 256 << 20
    /// A record not acknowledged after this long is reported as timed out. 0 tries for ever, which is right for
    /// stages that can do nothing else: with a limit, a record after it may succeed and order is the caller's concern.
    public var deliveryTimeoutMs = 120_000
    public var messageBytesMax = 1_000_000
    /// Idempotent writes may have up to five requests under way on each broker and stay in order.
    public var requestsInFlightMax = 5

    public enum Compression: String, Sendable, CaseIterable { case none, lz4, zstd, gzip, snappy }

    public init() {}
}

/// A topic that this producer knows; valid for the producer that gave it and for those made to replace it.
public struct ProducerTopic: Hashable, Sendable {
    public let index: Int

    @inlinable
    init(index: Int) { self.index = index }
}

/// `produce` took the record, or had no room for it.
public enum ProduceResult: Sendable, Equatable {
    case queued
    /// Nothing was taken. Poll, wait for `wakeDescriptor`, or refuse the work upstream.
    case queueFull
}

/// One idempotent writer, owned by one thread.
@safe
public final class Producer {
    let handle: ClientHandle
    private var topicHandles = unsafe [OpaquePointer]()
    public private(set) var topicNames: [String] = []
    private var topicsByName: [String: ProducerTopic] = [:]
    private let wake: WakeDescriptor
    private var values = unsafe [rd_kafka_vu_t]()
    private var isClosed = false
    private var lastReported: (handle: OpaquePointer, topic: ProducerTopic)?
    /// Records taken and not yet reported.
    public private(set) var inFlight = 0

    public convenience init(
        _ configuration: KafkaConfiguration, _ options: ProducerOptions = ProducerOptions(), log: KafkaLogSink? = nil
    ) throws(KafkaError) {
        try self.init(configuration, options, log: log, wake: WakeDescriptor())
    }

    init(
        _ configuration: KafkaConfiguration, _ options: ProducerOptions, log: KafkaLogSink?, wake: WakeDescriptor
    ) throws(KafkaError) {
        var properties = PropertySet()
        try properties.set(options.properties)
        try properties.apply(configuration)
        handle = try ClientHandle(
            .producer, properties, events: RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR, log: log, place: "producer")
        self.wake = wake
        var one: UInt64 = 1
        unsafe rd_kafka_queue_io_event_enable(handle.queue, wake.descriptor, &one, 8)
    }

    deinit { if !isClosed { close(deadlineMs: 0) { _ in } } }

    /// Readable while there may be something to `poll`.
    public var wakeDescriptor: Int32 { wake.descriptor }

    /// The handle to write to a topic with; cheap after the first time.
    public func topic(_ name: String) throws(KafkaError) -> ProducerTopic {
        if let known = topicsByName[name] { return known }
        guard let made = unsafe rd_kafka_topic_new(handle.raw, name, nil) else {
            throw KafkaError(rd_kafka_last_error(), place: "topic \(name)")
        }
        let topic = ProducerTopic(index: topicNames.count)
        unsafe topicHandles.append(made)
        topicNames.append(name)
        topicsByName[name] = topic
        return topic
    }

    /// Fetches the topics' metadata, so that the first record does not wait up to a second for it. Answers the
    /// partition counts in the order of `names`.
    @discardableResult
    public func warmUp(topics names: [String], timeoutMs: Int = 5000) throws(KafkaError) -> [Int32] {
        for name in names { _ = try topic(name) }
        return try handle.partitionCounts(of: names, timeoutMs: timeoutMs)
    }

    /// Gives a record to the log. `partition` nil places it by the hash of its key, as the Java client does (a record
    /// without key goes anywhere). A nil value is a tombstone. The bytes are copied before this returns.
    public func produce(
        _ topic: ProducerTopic, partition: Int32? = nil, key: Span<UInt8>?, value: Span<UInt8>?, tag: UInt64
    ) throws(KafkaError) -> ProduceResult {
        let outcome = unsafe withPointer(key) { key, keyCount in
            unsafe withPointer(value) { value, valueCount in
                unsafe rd_kafka_produce(
                    topicHandles[topic.index], partition ?? -1, Int32(RD_KAFKA_MSG_F_COPY),
                    UnsafeMutableRawPointer(mutating: value), valueCount, key, keyCount,
                    UnsafeMutableRawPointer(bitPattern: UInt(tag)))
            }
        }
        if outcome == 0 {
            inFlight += 1
            return .queued
        }
        return try refusal(rd_kafka_last_error(), topic, partition)
    }

    /// The same with headers or a timestamp of the caller's.
    public func produce(
        _ topic: ProducerTopic, partition: Int32? = nil, key: Span<UInt8>?, value: Span<UInt8>?,
        headers: borrowing RecordHeaders, timestampMs: Int64? = nil, tag: UInt64
    ) throws(KafkaError) -> ProduceResult {
        let entries = headers.entries
        let failure: rd_kafka_resp_err_t = unsafe headers.bytes.withUnsafeBytes { names in
            unsafe withPointer(key) { key, keyCount in
                unsafe withPointer(value) { value, valueCount in
                    unsafe values.removeAll(keepingCapacity: true)
                    unsafe add(RD_KAFKA_VTYPE_RKT) { unsafe $0.u.rkt = topicHandles[topic.index] }
                    unsafe add(RD_KAFKA_VTYPE_PARTITION) { unsafe $0.u.i32 = partition ?? -1 }
                    unsafe add(RD_KAFKA_VTYPE_MSGFLAGS) { unsafe $0.u.i = Int32(RD_KAFKA_MSG_F_COPY) }
                    unsafe add(RD_KAFKA_VTYPE_VALUE) {
                        unsafe $0.u.mem.ptr = UnsafeMutableRawPointer(mutating: value)
                        unsafe $0.u.mem.size = valueCount
                    }
                    unsafe add(RD_KAFKA_VTYPE_KEY) {
                        unsafe $0.u.mem.ptr = UnsafeMutableRawPointer(mutating: key)
                        unsafe $0.u.mem.size = keyCount
                    }
                    unsafe add(RD_KAFKA_VTYPE_OPAQUE) {
                        unsafe $0.u.ptr = UnsafeMutableRawPointer(bitPattern: UInt(tag))
                    }
                    if let timestampMs { unsafe add(RD_KAFKA_VTYPE_TIMESTAMP) { unsafe $0.u.i64 = timestampMs } }
                    for entry in entries {
                        guard let base = names.baseAddress else { break }
                        unsafe add(RD_KAFKA_VTYPE_HEADER) {
                            unsafe $0.u.header.name = (base + entry.nameStart).assumingMemoryBound(to: CChar.self)
                            unsafe $0.u.header.val = entry.valueCount < 0 ? nil : base + entry.valueStart
                            unsafe $0.u.header.size = max(0, entry.valueCount)
                        }
                    }
                    guard let error = unsafe rd_kafka_produceva(handle.raw, &values, values.count) else {
                        return RD_KAFKA_RESP_ERR_NO_ERROR
                    }
                    let code = unsafe rd_kafka_error_code(error)
                    _ = unsafe KafkaError(consuming: error, place: "")
                    return code
                }
            }
        }
        if failure == RD_KAFKA_RESP_ERR_NO_ERROR {
            inFlight += 1
            return .queued
        }
        return try refusal(failure, topic, partition)
    }

    private func add(_ type: rd_kafka_vtype_t, _ fill: (inout rd_kafka_vu_t) -> Void) {
        var value = unsafe rd_kafka_vu_t()
        unsafe value.vtype = type
        unsafe fill(&value)
        unsafe values.append(value)
    }

    private func refusal(
        _ code: rd_kafka_resp_err_t, _ topic: ProducerTopic, _ partition: Int32?
    ) throws(KafkaError) -> ProduceResult {
        if code == RD_KAFKA_RESP_ERR__QUEUE_FULL { return .queueFull }
        let place = "produce \(topicNames[topic.index])/\(partition.map { "\($0)" } ?? "by key")"
        // Some calls name the fatal failure itself, not that it is fatal.
        if let fatal = handle.fatalError(place: place) { throw fatal }
        throw KafkaError(code, place: place)
    }

    /// Hands over what became of records, waiting at most `timeoutMs` for the first report. Answers how many there were.
    @discardableResult
    public func poll(timeoutMs: Int = 0, _ body: (DeliveryReport) -> Void) -> Int {
        unsafe poll(timeoutMs: timeoutMs) { report, _ in body(report) }
    }

    /// The same with the record itself, whose bytes are valid during the call.
    @discardableResult
    func poll(timeoutMs: Int, _ body: (DeliveryReport, UnsafePointer<rd_kafka_message_t>) -> Void) -> Int {
        var reported = 0
        var timeout = Int32(clamping: timeoutMs)
        // Cleared before the queue is emptied: what arrives later signals again.
        wake.clear()
        while let event = unsafe rd_kafka_queue_poll(handle.queue, timeout) {
            timeout = 0
            if unsafe rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR {
                while let message = unsafe rd_kafka_event_message_next(event) {
                    reported += 1
                    inFlight -= 1
                    unsafe body(report(on: message), message)
                }
            }
            unsafe rd_kafka_event_destroy(event)
        }
        return reported
    }

    func report(on message: UnsafePointer<rd_kafka_message_t>) -> DeliveryReport {
        var type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
        let timestamp = unsafe rd_kafka_message_timestamp(message, &type)
        let error = unsafe message.pointee.err
        let offset = unsafe message.pointee.offset
        return unsafe DeliveryReport(
            tag: UInt64(UInt(bitPattern: message.pointee._private)),
            topic: topic(of: message.pointee.rkt), partition: message.pointee.partition,
            offset: error == RD_KAFKA_RESP_ERR_NO_ERROR && offset >= 0 ? offset : nil,
            timestampMs: type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE || timestamp < 0 ? nil : timestamp, rawError: error,
            mayBeWritten: rd_kafka_message_status(message) != RD_KAFKA_MSG_STATUS_NOT_PERSISTED)
    }

    private func topic(of raw: OpaquePointer?) -> ProducerTopic {
        if let last = unsafe lastReported, unsafe last.handle == raw { return unsafe last.topic }
        for index in 0..<topicNames.count where unsafe topicHandles[index] == raw {
            let topic = ProducerTopic(index: index)
            if let raw = unsafe raw { unsafe lastReported = (raw, topic) }
            return topic
        }
        preconditionFailure("a report on a topic that this producer never opened")
    }

    /// Set once this producer can do no more: make another, or use `ResendingProducer`.
    public var fatalError: KafkaError? { handle.fatalError(place: "producer") }

    /// Waits until every record is reported on; false if the deadline came first.
    public func flush(deadlineMs: Int, _ body: (DeliveryReport) -> Void) -> Bool {
        unsafe flush(deadlineMs: deadlineMs) { report, _ in body(report) }
    }

    private func flush(
        deadlineMs: Int, _ body: (DeliveryReport, UnsafePointer<rd_kafka_message_t>) -> Void
    ) -> Bool {
        let deadline = Deadline(afterMs: deadlineMs)
        while inFlight > 0 {
            let remaining = Int(deadline.remainingMs)
            unsafe poll(timeoutMs: remaining, body)
            if remaining == 0 { break }
        }
        return inFlight == 0
    }

    /// Gives up on every record that is not acknowledged; each is reported as `.purged`.
    public func purge(_ body: (DeliveryReport) -> Void) { unsafe purge { report, _ in body(report) } }

    private func purge(_ body: (DeliveryReport, UnsafePointer<rd_kafka_message_t>) -> Void) {
        _ = unsafe rd_kafka_purge(handle.raw, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT)
        _ = unsafe flush(deadlineMs: 1000, body)
    }

    /// Sends what it can until the deadline, gives up on the rest, and ends. Every record gets its report.
    /// Answers true if all were acknowledged and the client ended in time.
    @discardableResult
    public func close(deadlineMs: Int, _ body: (DeliveryReport) -> Void) -> Bool {
        unsafe close(deadlineMs: deadlineMs) { report, _ in body(report) }
    }

    @discardableResult
    func close(deadlineMs: Int, _ body: (DeliveryReport, UnsafePointer<rd_kafka_message_t>) -> Void) -> Bool {
        guard !isClosed else { return true }
        isClosed = true
        let deadline = Deadline(afterMs: deadlineMs)
        let flushed = unsafe flush(deadlineMs: deadlineMs, body)
        if !flushed { unsafe purge(body) }
        unsafe topicHandles.forEach { unsafe rd_kafka_topic_destroy($0) }
        unsafe topicHandles = []
        let grace = Deadline(afterMs: max(Int(deadline.remainingMs), 500))
        return handle.destroy(deadline: grace) && flushed
    }
}

/// Lends a span's memory to C. A present but empty span has an address too: to Kafka, nil means "none".
@inline(__always)
func withPointer<R>(_ span: Span<UInt8>?, _ body: (UnsafeRawPointer?, Int) -> R) -> R {
    guard let span else { return body(nil, 0) }
    return unsafe span.withUnsafeBytes { bytes in
        guard let base = bytes.baseAddress else {
            return unsafe withUnsafeBytes(of: UInt8(0)) { unsafe body($0.baseAddress, 0) }
        }
        return unsafe body(base, bytes.count)
    }
}

extension ProducerOptions {
    var properties: KeyValuePairs<String, String> {
        [
            "enable.idempotence": "true",
            "acks": "all",
            "partitioner": "murmur2_random",
            "max.in.flight.requests.per.connection": "\(requestsInFlightMax)",
            // A small record must not wait for the acknowledgement of the TCP segment before it.
            "socket.nagle.disable": "true",
            "linger.ms": "\(lingerMs)",
            "batch.size": "\(batchBytesMax)",
            "batch.num.messages": "\(batchMessagesMax)",
            "compression.type": compression.rawValue,
            "queue.buffering.max.messages": "\(queueMessagesMax)",
            "queue.buffering.max.kbytes": "\(max(1, queueBytesMax >> 10))",
            "message.timeout.ms": "\(deliveryTimeoutMs)",
            "message.max.bytes": "\(messageBytesMax)",
            // Reconnect quickly after a broker's restart; librdkafka adds jitter and doubles up to the maximum.
            "reconnect.backoff.ms": "20",
            "reconnect.backoff.max.ms": "1000",
            "retry.backoff.ms": "20",
            "topic.metadata.refresh.fast.interval.ms": "50",
        ]
    }
}
