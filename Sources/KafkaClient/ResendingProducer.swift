// A producer that outlives the death of the one inside it.
//
// An idempotent producer numbers its records, and when the broker and it no longer agree on the numbers (its state
// expired, a replica was lost, the log was truncated), it stops for good rather than risk disorder. What is not
// acknowledged by then comes back with its reports, and this class writes it again through a new producer, in the order
// of the callers' tags, before anything newer. The caller sees neither the failure nor the reports of it.
//
// Some of what is sent again may have been written the first time: consumers see it twice. Fanout's consumers drop
// repeats by the source position or id that each record carries.
internal import CRdKafka

@safe
public final class ResendingProducer {
    private let configuration: KafkaConfiguration
    private let options: ProducerOptions
    private let log: KafkaLogSink?
    private let wake: WakeDescriptor
    private var producer: Producer
    private var saved = [SavedRecord]()
    private var lastTag: UInt64?
    private var replacementsInVain = 0
    /// How often the producer inside was replaced.
    public private(set) var replacementCount = 0

    /// Replacing is given up after this many in a row with no record acknowledged between them.
    static let replacementsInVainMax = 5

    public init(
        _ configuration: KafkaConfiguration, _ options: ProducerOptions = ProducerOptions(), log: KafkaLogSink? = nil
    ) throws(KafkaError) {
        self.configuration = configuration
        self.options = options
        self.log = log
        wake = try WakeDescriptor()
        producer = try Producer(configuration, options, log: log, wake: wake)
    }

    /// Readable while there may be something to `poll`; the same for the life of this object.
    public var wakeDescriptor: Int32 { wake.descriptor }

    public var inFlight: Int { producer.inFlight + saved.count }

    public func topic(_ name: String) throws(KafkaError) -> ProducerTopic { try producer.topic(name) }

    @discardableResult
    public func warmUp(topics names: [String], timeoutMs: Int = 5000) throws(KafkaError) -> [Int32] {
        try producer.warmUp(topics: names, timeoutMs: timeoutMs)
    }

    /// As `Producer.produce`. Tags must grow from record to record: they are the order in which records are sent again.
    /// After a fatal failure it answers `.queueFull` until `poll` has replaced the producer and sent the old records.
    public func produce(
        _ topic: ProducerTopic, partition: Int32? = nil, key: Span<UInt8>?, value: Span<UInt8>?, tag: UInt64
    ) throws(KafkaError) -> ProduceResult {
        guard saved.isEmpty else { return .queueFull }
        do {
            return took(try producer.produce(topic, partition: partition, key: key, value: value, tag: tag), tag)
        } catch {
            return try wait(for: error)
        }
    }

    public func produce(
        _ topic: ProducerTopic, partition: Int32? = nil, key: Span<UInt8>?, value: Span<UInt8>?,
        headers: borrowing RecordHeaders, timestampMs: Int64? = nil, tag: UInt64
    ) throws(KafkaError) -> ProduceResult {
        guard saved.isEmpty else { return .queueFull }
        do {
            let result = try producer.produce(
                topic, partition: partition, key: key, value: value, headers: headers, timestampMs: timestampMs,
                tag: tag)
            return took(result, tag)
        } catch {
            return try wait(for: error)
        }
    }

    private func took(_ result: ProduceResult, _ tag: UInt64) -> ProduceResult {
        if result == .queued {
            if let lastTag { precondition(tag > lastTag, "tags must grow") }
            lastTag = tag
        }
        return result
    }

    private func wait(for error: KafkaError) throws(KafkaError) -> ProduceResult {
        guard error.code == .fatal else { throw error }
        wake.signal()
        return .queueFull
    }

    /// As `Producer.poll`. Throws only when replacing the producer is in vain.
    @discardableResult
    public func poll(timeoutMs: Int = 0, _ body: (DeliveryReport) -> Void) throws(KafkaError) -> Int {
        var reported = 0
        unsafe producer.poll(timeoutMs: saved.isEmpty ? timeoutMs : 0) { report, message in
            if unsafe isToBeSentAgain(report, message) { return }
            reported += 1
            body(report)
        }
        if let fatal = producer.fatalError {
            try replace(fatal) {
                reported += 1; body($0)
            }
        }
        if !saved.isEmpty {
            sendAgain {
                reported += 1; body($0)
            }
        }
        return reported
    }

    private func isToBeSentAgain(_ report: DeliveryReport, _ message: UnsafePointer<rd_kafka_message_t>) -> Bool {
        if report.succeeded {
            replacementsInVain = 0
            return false
        }
        guard producer.fatalError != nil else { return false }
        saved.append(unsafe SavedRecord(report, message))
        return true
    }

    private func replace(_ fatal: KafkaError, _ body: (DeliveryReport) -> Void) throws(KafkaError) {
        replacementsInVain += 1
        guard replacementsInVain <= Self.replacementsInVainMax else { throw fatal }
        replacementCount += 1
        let names = producer.topicNames
        unsafe producer.close(deadlineMs: 0) { report, message in
            if unsafe !isToBeSentAgain(report, message) { body(report) }
        }
        saved.sort { $0.tag < $1.tag }
        producer = try Producer(configuration, options, log: log, wake: wake)
        // In the same order, so that the callers' `ProducerTopic`s stay true.
        for name in names { _ = try producer.topic(name) }
    }

    private func sendAgain(_ body: (DeliveryReport) -> Void) {
        var sent = 0
        defer { saved.removeFirst(sent) }
        for record in saved {
            do throws(KafkaError) {
                guard try record.produce(with: producer) == .queued else { break }
            } catch {
                if error.code == .fatal { break }
                body(record.report(error))
            }
            sent += 1
        }
        wake.signal()
    }

    /// As `Producer.flush`.
    public func flush(deadlineMs: Int, _ body: (DeliveryReport) -> Void) throws(KafkaError) -> Bool {
        let deadline = Deadline(afterMs: deadlineMs)
        while inFlight > 0 {
            let remaining = Int(deadline.remainingMs)
            try poll(timeoutMs: remaining, body)
            if remaining == 0 { break }
        }
        return inFlight == 0
    }

    /// As `Producer.close`.
    @discardableResult
    public func close(deadlineMs: Int, _ body: (DeliveryReport) -> Void) -> Bool {
        let deadline = Deadline(afterMs: deadlineMs)
        let flushed = (try? flush(deadlineMs: deadlineMs, body)) ?? false
        return producer.close(deadlineMs: Int(deadline.remainingMs), body) && flushed
    }
}

/// A record that came back unacknowledged.
private struct SavedRecord {
    let tag: UInt64
    let topic: ProducerTopic
    let partition: Int32?
    let key: [UInt8]?
    let value: [UInt8]?
    let headers: RecordHeaders
    let timestampMs: Int64?

    init(_ report: DeliveryReport, _ message: UnsafePointer<rd_kafka_message_t>) {
        tag = report.tag
        topic = report.topic
        partition = report.partition >= 0 ? report.partition : nil
        key = unsafe bytes(message.pointee.key, message.pointee.key_len)
        value = unsafe bytes(message.pointee.payload, message.pointee.len)
        timestampMs = report.timestampMs
        var headers = RecordHeaders()
        var raw: OpaquePointer?
        if unsafe rd_kafka_message_headers(message, &raw) == RD_KAFKA_RESP_ERR_NO_ERROR {
            var index = 0
            var name: UnsafePointer<CChar>?
            var start: UnsafeRawPointer?
            var count = 0
            while unsafe rd_kafka_header_get_all(raw, index, &name, &start, &count) == RD_KAFKA_RESP_ERR_NO_ERROR {
                index += 1
                let value = unsafe bytes(start, count)
                unsafe headers.append(adminString(name), value?.span)
            }
        }
        self.headers = headers
    }

    func produce(with producer: Producer) throws(KafkaError) -> ProduceResult {
        try producer.produce(
            topic, partition: partition, key: key?.span, value: value?.span, headers: headers,
            timestampMs: timestampMs, tag: tag)
    }

    func report(_ error: KafkaError) -> DeliveryReport {
        DeliveryReport(
            tag: tag, topic: topic, partition: partition ?? -1, offset: nil, timestampMs: timestampMs,
            rawError: rd_kafka_resp_err_t(error.rawCode), mayBeWritten: true)
    }
}

private func bytes(_ start: UnsafeRawPointer?, _ count: Int) -> [UInt8]? {
    guard let start = unsafe start else { return nil }
    return unsafe [UInt8](UnsafeRawBufferPointer(start: start, count: count))
}
