// librdkafka's producer, which is replaced when it dies and fed with care: for what `DirectProducer` does not do.
//
// An idempotent producer numbers its records, and when the broker and it no longer agree on the numbers (its state
// expired, a replica was lost, the log was truncated), it stops for good rather than risk disorder. What is not
// acknowledged by then comes back with its reports, and this class writes it again through a new producer, in the order
// of the callers' tags, before anything newer. The caller sees neither the failure nor the reports of it.
//
// Some of what is sent again may have been written the first time: consumers see it twice, and the report says so. Fanout's
// consumers drop repeats by the source position or id that each record carries.
//
// librdkafka keeps a lost answer and a later refusal apart as `DirectProducer` does: it says that the record may be written
// and goes on in a new epoch. But it takes a broker's word that a batch is a duplicate for an acknowledgement, also when
// it was sent for the first time, so that another producer has its id. Such a report names no place; it is not believed.
//
// While a handful of records to a partition are under way, further ones wait here and go together when those are
// acknowledged. They could wait in librdkafka, but its thread (2.0.2) polls without a timeout as long as a partition has
// both more to send and five *records* without an answer (docs/decisions/006): that was 92 % of the CPU time of a join
// under load. Gathering also makes fewer and larger requests, and costs a record nothing as long as the partition keeps up.
internal import CRdKafka
internal import Wire

@safe
final class GatheringProducer {
    private let configuration: KafkaConfiguration
    private let options: ProducerOptions
    private let log: KafkaLogSink?
    private let wake: WakeDescriptor
    private var producer: Producer
    private var saved = [SavedRecord]()
    /// By topic and partition.
    private var lanes: [[Lane]] = []
    private var waitingCount = 0
    private var waitingBytes = 0
    /// Lanes whose records are to be given.
    private var due: [(topic: Int, partition: Int)] = []
    private var patientTopics: Set<Int> = []
    private var lastTag: UInt64?
    private var replacementsInVain = 0
    /// The broker said that it has a record, and not where: another producer has this one's id.
    private var isDoubted = false
    /// Records sent again that may be in the log already.
    private var repeatedTags: Set<UInt64> = []
    /// How often the producer inside was replaced.
    private(set) var replacementCount = 0

    init(
        _ configuration: KafkaConfiguration, _ options: ProducerOptions = ProducerOptions(), log: KafkaLogSink? = nil
    ) throws(KafkaError) {
        self.configuration = configuration
        self.options = options
        self.log = log
        wake = try WakeDescriptor()
        producer = try Producer(configuration, options, log: log, wake: wake)
    }

    /// Readable while there may be something to `poll`; the same for the life of this object.
    var wakeDescriptor: Int32 { wake.descriptor }

    var inFlight: Int { producer.inFlight + saved.count + waitingCount }

    func topic(_ name: String) throws(KafkaError) -> ProducerTopic { try producer.topic(name) }

    /// A topic that nobody waits for: its records gather until `sendGathered`, or until they are worth a request.
    func patientTopic(_ name: String) throws(KafkaError) -> ProducerTopic {
        let topic = try producer.topic(name)
        patientTopics.insert(topic.index)
        return topic
    }

    func warmUp(topics names: [String], timeoutMs: Int = 5000) throws(KafkaError) -> [Int32] {
        try producer.warmUp(topics: names, timeoutMs: timeoutMs)
    }

    /// As `Producer.produce`. Tags must grow from record to record: they are the order in which records are sent again.
    /// After a fatal failure it answers `.queueFull` until `poll` has replaced the producer and sent the old records.
    func produce(
        _ topic: ProducerTopic, partition: Int32? = nil, key: Span<UInt8>?, value: Span<UInt8>?, tag: UInt64
    ) throws(KafkaError) -> ProduceResult {
        guard saved.isEmpty else { return .queueFull }
        do throws(KafkaError) {
            if let partition, mustWait(topic, partition, byteCount: (key?.count ?? 0) + (value?.count ?? 0)) {
                let record = SavedRecord(
                    tag: tag, topic: topic, partition: partition, key: copy(key), value: copy(value))
                return took(wait(record), tag)
            }
            let result = try producer.produce(topic, partition: partition, key: key, value: value, tag: tag)
            if let partition, result == .queued { gave(topic, partition) }
            return took(result, tag)
        } catch {
            return try wait(for: error)
        }
    }

    func produce(
        _ topic: ProducerTopic, partition: Int32? = nil, key: Span<UInt8>?, value: Span<UInt8>?,
        headers: borrowing RecordHeaders, timestampMs: Int64? = nil, tag: UInt64
    ) throws(KafkaError) -> ProduceResult {
        guard saved.isEmpty else { return .queueFull }
        do throws(KafkaError) {
            let byteCount = (key?.count ?? 0) + (value?.count ?? 0) + headers.bytes.count
            if let partition, mustWait(topic, partition, byteCount: byteCount) {
                let record = SavedRecord(
                    tag: tag, topic: topic, partition: partition, key: copy(key), value: copy(value),
                    headers: copy headers, timestampMs: timestampMs)
                return took(wait(record), tag)
            }
            let result = try producer.produce(
                topic, partition: partition, key: key, value: value, headers: headers, timestampMs: timestampMs,
                tag: tag)
            if let partition, result == .queued { gave(topic, partition) }
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

    // MARK: Gathering

    private func lane(_ topic: ProducerTopic, _ partition: Int32) -> (topic: Int, partition: Int) {
        while lanes.count <= topic.index { lanes.append([]) }
        while lanes[topic.index].count <= Int(partition) {
            lanes[topic.index].append(Lane(isPatient: patientTopics.contains(topic.index)))
        }
        return (topic.index, Int(partition))
    }

    private func mustWait(_ topic: ProducerTopic, _ partition: Int32, byteCount: Int) -> Bool {
        // What no request can carry is refused by librdkafka, to the caller.
        guard byteCount <= options.messageBytesMax, partition >= 0 else { return false }
        let lane = lane(topic, partition)
        return lanes[lane.topic][lane.partition].gathers
    }

    private func wait(_ record: SavedRecord) -> ProduceResult {
        guard waitingCount + producer.inFlight < options.queueMessagesMax, waitingBytes < options.queueBytesMax else {
            return .queueFull
        }
        let lane = lane(record.topic, record.partition ?? 0)
        lanes[lane.topic][lane.partition].append(record)
        waitingCount += 1
        waitingBytes += record.byteCount
        if lanes[lane.topic][lane.partition].isWorthSending(bytes: options.batchBytesMax / 4), makeDue(lane) {
            wake.signal()
        }
        return .queued
    }

    /// Whether records of patient topics wait for `sendGathered`.
    var hasGathered: Bool {
        patientTopics.contains { $0 < lanes.count && lanes[$0].contains { $0.nextWaiting != nil && !$0.isReleased } }
    }

    /// What patient topics have gathered goes with the next `poll`, or as soon as its partition is free.
    func sendGathered() {
        for topic in patientTopics where topic < lanes.count {
            for partition in lanes[topic].indices where lanes[topic][partition].nextWaiting != nil {
                lanes[topic][partition].isReleased = true
                _ = makeDue((topic, partition))
            }
        }
    }

    /// Whether it has become due by this.
    private func makeDue(_ lane: (topic: Int, partition: Int)) -> Bool {
        guard lanes[lane.topic][lane.partition].becomeDue() else { return false }
        due.append(lane)
        return true
    }

    private func gave(_ topic: ProducerTopic, _ partition: Int32) {
        let lane = lane(topic, partition)
        lanes[lane.topic][lane.partition].underWay += 1
    }

    private func reported(_ report: DeliveryReport) {
        guard report.partition >= 0, report.topic.index < lanes.count,
            Int(report.partition) < lanes[report.topic.index].count
        else { return }
        let (topic, partition) = (report.topic.index, Int(report.partition))
        lanes[topic][partition].underWay -= 1
        if lanes[topic][partition].isReleased { _ = makeDue((topic, partition)) }
    }

    /// Gives what waits in lanes that are free again, as much of it as goes in one request.
    private func giveWaiting(_ body: (DeliveryReport) -> Void) {
        guard saved.isEmpty, !due.isEmpty else { return }
        var again: [(topic: Int, partition: Int)] = []
        for (topic, partition) in due {
            var (records, bytes) = (0, 0)
            // Half of a request, since a record takes more there than its key and value.
            while records < options.batchMessagesMax, bytes < options.batchBytesMax / 2,
                let record = lanes[topic][partition].nextWaiting
            {
                do throws(KafkaError) {
                    guard try record.produce(with: producer) == .queued else { break }
                    lanes[topic][partition].underWay += 1
                } catch {
                    if error.code == .fatal { break }
                    body(record.report(error))
                }
                lanes[topic][partition].dropFirst()
                records += 1
                bytes += record.byteCount
                waitingCount -= 1
                waitingBytes -= record.byteCount
            }
            if lanes[topic][partition].endRun() { again.append((topic, partition)) }
        }
        due = again
    }

    /// Everything that waits, to be sent by another producer or to be given up.
    private func takeWaiting() -> [SavedRecord] {
        let all = lanes.flatMap { $0.flatMap(\.waiting) }
        lanes = []
        due = []
        (waitingCount, waitingBytes) = (0, 0)
        return all
    }

    // MARK: Reports

    /// As `Producer.poll`. Throws only when replacing the producer is in vain.
    func poll(timeoutMs: Int = 0, _ body: (DeliveryReport) -> Void) throws(KafkaError) -> Int {
        var reported = 0
        unsafe producer.poll(timeoutMs: saved.isEmpty && due.isEmpty ? timeoutMs : 0) { report, message in
            self.reported(report)
            if unsafe isToBeSentAgain(report, message) { return }
            reported += 1
            body(said(report))
        }
        let doubt =
            isDoubted
            ? KafkaError(RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER, place: "another producer has this one's id") : nil
        if let fatal = producer.fatalError ?? doubt {
            try replace(fatal) {
                reported += 1; body($0)
            }
        }
        if !saved.isEmpty {
            sendAgain {
                reported += 1; body($0)
            }
        }
        giveWaiting {
            reported += 1; body($0)
        }
        return reported
    }

    private func isToBeSentAgain(_ report: DeliveryReport, _ message: UnsafePointer<rd_kafka_message_t>) -> Bool {
        if report.succeeded, report.offset != nil {
            replacementsInVain = 0
            return false
        }
        if report.succeeded { isDoubted = true }
        guard isDoubted || producer.fatalError != nil else { return false }
        saved.append(unsafe SavedRecord(report, message))
        if report.mayBeWritten { repeatedTags.insert(report.tag) }
        return true
    }

    /// With what is known here of how it was sent.
    private func said(_ report: DeliveryReport) -> DeliveryReport {
        guard repeatedTags.remove(report.tag) != nil else { return report }
        var report = report
        report.mayBeRepeated = true
        return report
    }

    private func replace(_ fatal: KafkaError, _ body: (DeliveryReport) -> Void) throws(KafkaError) {
        replacementsInVain += 1
        guard replacementsInVain <= ResendingProducer.replacementsInVainMax else { throw fatal }
        replacementCount += 1
        let names = producer.topicNames
        unsafe producer.close(deadlineMs: 0) { report, message in
            if unsafe !isToBeSentAgain(report, message) { body(said(report)) }
        }
        isDoubted = false
        log?(
            KafkaLogLine(
                level: .warning, facility: "PRODUCER",
                message: "begins again with a new identity, and sends again what is not acknowledged: \(fatal)"))
        saved += takeWaiting()
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
                if let partition = record.partition { gave(record.topic, partition) }
            } catch {
                if error.code == .fatal { break }
                body(record.report(error))
            }
            sent += 1
        }
        wake.signal()
    }

    /// As `Producer.flush`.
    func flush(deadlineMs: Int, _ body: (DeliveryReport) -> Void) throws(KafkaError) -> Bool {
        let deadline = Deadline(afterMs: deadlineMs)
        while inFlight > 0 {
            sendGathered()
            let remaining = Int(deadline.remainingMs)
            _ = try poll(timeoutMs: remaining, body)
            if remaining == 0 { break }
        }
        return inFlight == 0
    }

    /// As `Producer.close`.
    func close(deadlineMs: Int, _ body: (DeliveryReport) -> Void) -> Bool {
        let deadline = Deadline(afterMs: deadlineMs)
        let flushed = (try? flush(deadlineMs: deadlineMs, body)) ?? false
        for record in saved + takeWaiting() {
            body(record.report(KafkaError(RD_KAFKA_RESP_ERR__PURGE_QUEUE, place: "close")))
        }
        saved = []
        return producer.close(deadlineMs: Int(deadline.remainingMs), body) && flushed
    }
}

/// What is under way to one partition and what waits for it.
private struct Lane {
    /// With as many records under way, librdkafka sends nothing more to the partition, and spins if there is more.
    static let underWayMax = 5

    private let isPatient: Bool
    /// Records given to librdkafka and not yet reported on.
    var underWay = 0
    /// What waits is to go as soon as the partition is free.
    var isReleased: Bool
    private var isDue = false
    private var records: [SavedRecord] = []
    private var next = 0
    private var bytes = 0

    init(isPatient: Bool) {
        self.isPatient = isPatient
        isReleased = !isPatient
    }

    /// Whether a record has to wait.
    var gathers: Bool { isPatient || underWay >= Self.underWayMax || next < records.count }
    var waiting: ArraySlice<SavedRecord> { records[next...] }
    var nextWaiting: SavedRecord? { next < records.count ? records[next] : nil }

    func isWorthSending(bytes wanted: Int) -> Bool { isPatient && bytes >= wanted }

    mutating func append(_ record: SavedRecord) {
        records.append(record)
        bytes += record.byteCount
    }

    mutating func dropFirst() {
        bytes -= records[next].byteCount
        next += 1
        // Room is given back once half of it is behind, so that each record is moved once at most.
        guard next * 2 >= records.count else { return }
        records.removeFirst(next)
        next = 0
    }

    /// Whether records are to be given that were not to be before.
    mutating func becomeDue() -> Bool {
        guard !isDue, underWay < Self.underWayMax, nextWaiting != nil else { return false }
        isDue = true
        return true
    }

    /// A run has been given. Whether another is due at once.
    mutating func endRun() -> Bool {
        if isPatient, nextWaiting == nil { isReleased = false }
        isDue = underWay < Self.underWayMax && nextWaiting != nil
        return isDue
    }
}

/// A record in our hands: one that waits, or one that came back unacknowledged.
private struct SavedRecord {
    let tag: UInt64
    let topic: ProducerTopic
    let partition: Int32?
    let key: [UInt8]?
    let value: [UInt8]?
    let headers: RecordHeaders
    let timestampMs: Int64?

    var byteCount: Int { (key?.count ?? 0) + (value?.count ?? 0) + headers.bytes.count }

    init(
        tag: UInt64, topic: ProducerTopic, partition: Int32, key: [UInt8]?, value: [UInt8]?,
        headers: consuming RecordHeaders = RecordHeaders(), timestampMs: Int64? = nil
    ) {
        (self.tag, self.topic, self.partition) = (tag, topic, partition)
        (self.key, self.value) = (key, value)
        (self.headers, self.timestampMs) = (headers, timestampMs)
    }

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

func copy(_ span: Span<UInt8>?) -> [UInt8]? {
    guard let span else { return nil }
    return [UInt8](copying: span)
}

private func bytes(_ start: UnsafeRawPointer?, _ count: Int) -> [UInt8]? {
    guard let start = unsafe start else { return nil }
    return unsafe [UInt8](UnsafeRawBufferPointer(start: start, count: count))
}
