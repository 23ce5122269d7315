// Asking the cluster about itself, and changing it.
//
// Requests go out together where the protocol lets them, and each answers for each of its subjects: one topic that
// exists already does not hide that the others were made. All calls block the calling thread up to `timeoutMs`; they
// are for start-up, the command line and slow loops, not for a stage's hot thread.
//
// Left out: ACLs, client quotas, partition reassignment, SCRAM users, transactions.
internal import CRdKafka

@safe
public final class Admin {
    let handle: ClientHandle

    public init(_ configuration: KafkaConfiguration, log: KafkaLogSink? = nil) throws(KafkaError) {
        var properties = PropertySet()
        try properties.set([
            "socket.nagle.disable": "true", "reconnect.backoff.ms": "20", "reconnect.backoff.max.ms": "1000",
            // Groups are asked of their coordinators one request each; they need not wait for one another.
            "max.in.flight.requests.per.connection": "1000",
        ])
        try properties.apply(configuration)
        handle = try ClientHandle(.producer, properties, events: RD_KAFKA_EVENT_ERROR, log: log, place: "admin")
    }

    @discardableResult
    public func close(deadlineMs: Int) -> Bool { handle.destroy(deadline: Deadline(afterMs: deadlineMs)) }

    /// Brokers and all topics.
    public func metadata(timeoutMs: Int = 5000) throws(KafkaError) -> ClusterMetadata {
        try handle.metadata(ofAllTopics: true, timeoutMs: timeoutMs)
    }

    /// The partition counts of these topics, in their order; throws if one does not exist.
    public func partitionCounts(of topics: [String], timeoutMs: Int = 5000) throws(KafkaError) -> [Int32] {
        try handle.partitionCounts(of: topics, timeoutMs: timeoutMs)
    }

    /// The first and next offsets of many partitions, in their order: two requests a thousand partitions and leader.
    public func watermarks(
        _ partitions: [TopicPartition], timeoutMs: Int = 5000
    ) throws(KafkaError) -> [Result<Watermarks, KafkaError>] {
        try handle.watermarks(partitions, timeoutMs: timeoutMs)
    }

    /// The next offsets only, at half the cost.
    public func endOffsets(
        _ partitions: [TopicPartition], timeoutMs: Int = 5000
    ) throws(KafkaError) -> [Result<Int64, KafkaError>] {
        try handle.offsets(partitions.map { ($0, -1) }, timeoutMs: timeoutMs)
    }

    /// The offset of the first record at or after a time; nil where there is none.
    public func offsets(
        at times: [(TopicPartition, timestampMs: Int64)], timeoutMs: Int = 5000
    ) throws(KafkaError) -> [Result<Int64?, KafkaError>] {
        try handle.offsets(times.map { ($0.0, max(0, $0.timestampMs)) }, timeoutMs: timeoutMs).map { result in
            result.map { $0 >= 0 ? $0 : nil }
        }
    }
}

/// One admin call: options, a queue for its answers, and the answers as they come.
@safe
struct AdminCall: ~Copyable {
    let options: OpaquePointer
    let queue: OpaquePointer
    let deadline: Deadline
    let place: String

    init(
        _ admin: Admin, _ operation: rd_kafka_admin_op_t, timeoutMs: Int, place: String, waitsForEffect: Bool = false
    ) throws(KafkaError) {
        guard let options = unsafe rd_kafka_AdminOptions_new(admin.handle.raw, operation),
            let queue = unsafe rd_kafka_queue_new(admin.handle.raw)
        else { throw KafkaError(.unsupported, "librdkafka does not know this request", place: place) }
        unsafe self.options = options
        unsafe self.queue = queue
        self.place = place
        deadline = Deadline(afterMs: timeoutMs)
        var reason = [CChar](repeating: 0, count: 256)
        let timeout = Int32(clamping: max(1, timeoutMs))
        _ = unsafe rd_kafka_AdminOptions_set_request_timeout(options, timeout, &reason, reason.count)
        if waitsForEffect {
            // The controller answers when the change has reached the brokers, not when it has been accepted.
            _ = unsafe rd_kafka_AdminOptions_set_operation_timeout(options, timeout, &reason, reason.count)
        }
    }

    deinit {
        unsafe rd_kafka_AdminOptions_destroy(options)
        unsafe rd_kafka_queue_destroy(queue)
    }

    /// Waits for the next answer and lends it to `body`; the request's own failure throws.
    func answer<R>(_ body: (OpaquePointer) throws(KafkaError) -> R) throws(KafkaError) -> R {
        // librdkafka answers by its own timeout; the margin covers the way back.
        guard let event = unsafe rd_kafka_queue_poll(queue, deadline.remainingMs &+ 500) else {
            throw KafkaError(.timedOut, "no answer in time", place: place)
        }
        defer { unsafe rd_kafka_event_destroy(event) }
        let code = unsafe rd_kafka_event_error(event)
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR else {
            let text = unsafe rd_kafka_event_error_string(event).map { unsafe String(cString: $0) }
            throw KafkaError(code, message: text, place: place)
        }
        return try unsafe body(event)
    }
}

func adminString(_ raw: UnsafePointer<CChar>?) -> String { unsafe raw.map { unsafe String(cString: $0) } ?? "" }
