// A producer that speaks Kafka's protocol itself, on its owner's thread.
//
// librdkafka hands each record to a thread of its own, which is woken to send it and again for the answer, and wakes the
// owner with the report: under light loads, where every message is a request, that was a quarter of a stage's time.
// Here the owner's thread builds the request, sends it and reads the answer, when its own loop wakes it for that.
//
// Everything of a turn that goes to one broker is one request. What is not acknowledged is sent again: with the same
// numbers after a lost connection or a refusal that passes, and in a new epoch when the broker and this producer no longer
// agree on the numbers of a partition (its state expired, the log was truncated). Some of what is sent again may then be
// written twice, in order; Fanout's consumers drop repeats by the source position or id that each record carries.
//
// A refusal of what may be written all the same (an answer was lost before) is reported so, and its numbers are used
// for nothing else: the partition goes on in a new epoch (docs/decisions/010).
internal import CRdKafka
internal import System
internal import Wire

final class DirectProducer: ClusterClient {
    struct Place {
        var topic: Int
        var partition: Int
    }

    let loop: EventLoop
    private let ticker: Ticker
    private let options: ProducerOptions
    let cluster: Cluster
    let log: KafkaLogSink?
    var topics: [OutgoingTopic] = []
    var identity: ProducerIdentity?
    var asksIdentity = false
    /// Why there is none.
    var identityError: Int16 = 0
    /// Where there may be something to send.
    private var due: [Place] = []
    var reports: [DeliveryReport] = []
    /// The owner's loop has been told that there is something to do.
    private var isWoken = false
    /// What comes up now is done before the turn ends.
    private var isTurning = false
    var waitingBytes = 0
    /// Records taken and not yet reported on.
    private(set) var inFlight = 0
    var replacementCount = 0
    var replacementsInVain = 0
    /// Why it began again the last time.
    var disagreement: rd_kafka_resp_err_t?
    private var isClosed = false

    /// The broker gives up on an append that its replicas do not confirm.
    private static let requestTimeoutMs: Int32 = 30_000
    private static let requestBytesMax = 8 << 20
    /// A topic that nobody knows for so long will not come.
    private static let unknownTopicNs: UInt64 = 30_000_000_000
    static let refusalPauseNs: UInt64 = 20_000_000

    /// Whether this producer can do all that is asked for; else librdkafka must.
    static func serves(_ configuration: KafkaConfiguration, _ options: ProducerOptions) -> Bool {
        options.lingerMs == 0 && options.compression == .none && Cluster.serves(configuration)
    }

    init(_ configuration: KafkaConfiguration, _ options: ProducerOptions, log: KafkaLogSink?) throws(KafkaError) {
        do throws(SystemError) {
            loop = try EventLoop()
            ticker = try Ticker()
        } catch {
            throw KafkaError(.other, "\(error)", place: "producer")
        }
        self.options = options
        self.log = log
        cluster = Cluster(configuration, on: loop, log: log)
        cluster.client = self
        do throws(SystemError) {
            _ = try loop.watch(ticker.descriptor) { [ticker] _ in ticker.clear() }
        } catch {
            throw KafkaError(.other, "\(error)", place: "producer")
        }
    }

    deinit { if !isClosed { loop.close() } }

    /// Readable while there may be something to `poll`.
    var wakeDescriptor: Int32 { loop.descriptor }

    // MARK: Topics

    func topic(_ name: String, isPatient: Bool) -> ProducerTopic {
        let index = topics.firstIndex { $0.name == name } ?? topics.endIndex
        if index == topics.endIndex {
            topics.append(OutgoingTopic(name: name, isPatient: isPatient))
            cluster.wantsMetadata = true
        } else if isPatient {
            topics[index].becomePatient()
        }
        return ProducerTopic(index: index)
    }

    func warmUp(topics names: [String], timeoutMs: Int) throws(KafkaError) -> [Int32] {
        let indices = names.map { name in
            topics.firstIndex { $0.name == name } ?? topic(name, isPatient: false).index
        }
        let deadline = Deadline(afterMs: timeoutMs)
        for index in indices where topics[index].partitionCount == nil { topics[index].error = 0 }
        cluster.wantsMetadata = true
        loop.adopt()
        while true {
            if indices.allSatisfy({ topics[$0].partitionCount != nil }) {
                if !reports.isEmpty { wake() }
                return indices.map { topics[$0].partitionCount ?? 0 }
            }
            for index in indices where topics[index].error != 0 {
                let error = KafkaError(
                    rd_kafka_resp_err_t(Int32(topics[index].error)), place: "metadata of \(topics[index].name)")
                // A leader that is being elected is there soon; a topic that does not exist is not.
                if error.code != .unavailable { throw error }
            }
            if deadline.hasPassed {
                throw KafkaError(.transport, "no broker answers", place: "metadata of \(names.joined(separator: ","))")
            }
            turn(timeoutMs: min(50, Int(deadline.remainingMs)))
        }
    }

    // MARK: Taking records

    func produce(
        _ topic: ProducerTopic, partition: Int32?, key: Span<UInt8>?, value: Span<UInt8>?,
        headers: borrowing RecordHeaders, timestampMs: Int64?, tag: UInt64
    ) throws(KafkaError) -> ProduceResult {
        let byteCount = (key?.count ?? 0) + (value?.count ?? 0) + headers.bytes.count
        guard byteCount <= options.messageBytesMax else {
            throw KafkaError(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, place: "produce \(topics[topic.index].name)")
        }
        guard inFlight < options.queueMessagesMax, waitingBytes + byteCount <= max(options.queueBytesMax, byteCount)
        else { return .queueFull }
        let timestamp = timestampMs ?? SystemClock().wallMs
        inFlight += 1
        waitingBytes += byteCount
        if let count = topics[topic.index].partitionCount {
            if let partition, partition >= count {
                inFlight -= 1
                waitingBytes -= byteCount
                throw KafkaError(
                    RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, place: "produce \(topics[topic.index].name)/\(partition)")
            }
            let placed = partition ?? Self.partition(key, count: count)
            add(
                Place(topic: topic.index, partition: Int(placed)), key: key, value: value, headers: headers,
                timestampMs: timestamp, tag: tag)
        } else {
            topics[topic.index].unplaced.append(
                UnplacedRecord(
                    partition: partition, key: copy(key), value: copy(value),
                    headers: copy headers, timestampMs: timestamp, tag: tag, atNs: loop.monotonicNs))
            cluster.wantsMetadata = true
            wake()
        }
        return .queued
    }

    static func partition(_ key: Span<UInt8>?, count: Int32) -> Int32 {
        guard let key else { return Int32.random(in: 0..<max(1, count)) }
        return Wire.partition(forKey: key, count: max(1, count))
    }

    func add(
        _ place: Place, key: Span<UInt8>?, value: Span<UInt8>?, headers: borrowing RecordHeaders, timestampMs: Int64,
        tag: UInt64
    ) {
        let byteCount = (key?.count ?? 0) + (value?.count ?? 0) + headers.bytes.count
        let limits = OutgoingPartition.Limits(
            batchBytes: options.batchBytesMax, batchRecords: options.batchMessagesMax)
        // A record is larger than its key, value and headers by some lengths and numbers.
        let batch = topics[place.topic].partitions[place.partition].batch(
            for: byteCount + 64, limits, nowNs: loop.monotonicNs)
        batch.append(key: key, value: value, headers: headers, timestampMs: timestampMs, tag: tag)
        if topics[place.topic].partitions[place.partition].isWorthSending(bytes: options.batchBytesMax / 4) {
            topics[place.topic].partitions[place.partition].release()
        }
        if !topics[place.topic].partitions[place.partition].waitsForRelease { makeDue(place) }
    }

    func makeDue(_ place: Place) {
        guard !topics[place.topic].partitions[place.partition].isDue else { return }
        topics[place.topic].partitions[place.partition].isDue = true
        due.append(place)
        wake()
    }

    func wake() {
        guard !isWoken, !isTurning else { return }
        isWoken = true
        loop.remote.wake()
    }

    /// Whether records of patient topics wait for `sendGathered`.
    var hasGathered: Bool { topics.contains { $0.isPatient && $0.partitions.contains { $0.waitsForRelease } } }

    func sendGathered() {
        for topic in topics.indices where topics[topic].isPatient {
            for partition in topics[topic].partitions.indices
            where topics[topic].partitions[partition].waitsForRelease {
                topics[topic].partitions[partition].release()
                makeDue(Place(topic: topic, partition: partition))
            }
        }
    }

    // MARK: Turns

    /// Sends what is due, takes what was answered, and hands over what became of records.
    func poll(timeoutMs: Int, _ body: (DeliveryReport) -> Void) throws(KafkaError) -> Int {
        loop.adopt()
        if timeoutMs > 0, reports.isEmpty {
            let deadline = Deadline(afterMs: timeoutMs)
            repeat { turn(timeoutMs: Int(deadline.remainingMs)) } while reports.isEmpty && !deadline.hasPassed
        } else {
            turn(timeoutMs: 0)
        }
        let taken = reports
        reports = []
        inFlight -= taken.count
        for report in taken { body(report) }
        if replacementsInVain > ResendingProducer.replacementsInVainMax, let disagreement {
            throw KafkaError(
                fatal: disagreement,
                message: "began again \(replacementsInVain - 1) times in a row with nothing acknowledged",
                place: "producer")
        }
        return taken.count
    }

    private func turn(timeoutMs: Int) {
        isWoken = false
        isTurning = true
        send()
        if timeoutMs > 0 { loop.runOnce(timeoutMs: timeoutMs) }
        // What the answers of this tick make possible leaves at its end.
        loop.atTickEnd { [unowned self] in send() }
        loop.runOnce(timeoutMs: 0)
        isTurning = false
        tick()
    }

    /// Sends what is due to whoever can be reached; asks for what must be known first.
    private func send() {
        guard !due.isEmpty || cluster.wantsMetadata else { return }
        if cluster.wantsMetadata { cluster.askMetadata() }
        guard !due.isEmpty else { return }
        guard let identity else { return askIdentity() }
        var waits: [Place] = []
        var requests: [(link: BrokerLink, items: [BrokerLink.Batch], bytes: Int)] = []
        for place in due {
            if topics[place.topic].partitions[place.partition].waitsForTime(nowNs: loop.monotonicNs) {
                waits.append(place)
                continue
            }
            guard topics[place.topic].partitions[place.partition].maySend(nowNs: loop.monotonicNs) else {
                topics[place.topic].partitions[place.partition].isDue = false
                continue
            }
            let leader = topics[place.topic].partitions[place.partition].leader
            guard let link = cluster.link(to: leader), link.isReady else {
                waits.append(place)
                continue
            }
            topics[place.topic].partitions[place.partition].isDue = false
            let batch = topics[place.topic].partitions[place.partition].send(identity)
            let item = BrokerLink.Batch(topic: place.topic, partition: Int32(place.partition), batch: batch)
            let open = requests.firstIndex { request in
                request.link === link && request.bytes + batch.bytes.count <= Self.requestBytesMax
            }
            if let open {
                requests[open].items.append(item)
                requests[open].bytes += batch.bytes.count
            } else {
                requests.append((link, [item], batch.bytes.count))
            }
        }
        due = waits
        for request in requests { send(request.items, to: request.link, byteCount: request.bytes) }
    }

    private func send(_ items: [BrokerLink.Batch], to link: BrokerLink, byteCount: Int) {
        let items = items.sorted { $0.topic < $1.topic }
        link.send(.produce, .produce(items), capacity: byteCount + 64 * items.count + 128) { frame, _ in
            frame.null()
            frame.int16(-1)
            frame.int32(Self.requestTimeoutMs)
            let runs = items.indices.filter { $0 == 0 || items[$0].topic != items[$0 - 1].topic }
            frame.int32(Int32(runs.count))
            for (number, start) in runs.enumerated() {
                let end = number + 1 < runs.count ? runs[number + 1] : items.count
                frame.string(topics[items[start].topic].name)
                frame.int32(Int32(end - start))
                for item in items[start..<end] {
                    frame.int32(item.partition)
                    frame.byteArray(item.batch.bytes)
                }
            }
        }
    }

    // MARK: Time

    /// What passes without an answer: connections that hang, records that are too old, questions to repeat. The ticker
    /// runs while there is anything to wait for.
    private func tick() {
        let isBlocked = !due.isEmpty || cluster.wantsMetadata || asksIdentity || cluster.asksMetadata
        let isWaiting = isBlocked || inFlight > reports.count
        ticker.set(everyMs: isBlocked ? 10 : isWaiting ? 250 : nil)
        guard isWaiting, ticker.hasPassed() else { return }
        cluster.checkTimeouts()
        for topic in topics.indices { expire(topic) }
    }

    private func expire(_ topic: Int) {
        if let since = topics[topic].unknownSinceNs {
            cluster.wantsMetadata = true
            if loop.monotonicNs &- since > Self.unknownTopicNs {
                giveUp(topic, before: .max, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)
            }
        }
        guard options.deliveryTimeoutMs > 0 else { return }
        let timeoutNs = UInt64(options.deliveryTimeoutMs) * 1_000_000
        guard loop.monotonicNs > timeoutNs else { return }
        giveUp(topic, before: loop.monotonicNs - timeoutNs, RD_KAFKA_RESP_ERR__MSG_TIMED_OUT)
    }

    private func giveUp(_ topic: Int, before ns: UInt64, _ error: rd_kafka_resp_err_t) {
        let old = topics[topic].unplaced.prefix { $0.atNs < ns }
        topics[topic].unplaced.removeFirst(old.count)
        for record in old { report(record, ProducerTopic(index: topic), error) }
        var wantsIdentity = false
        for partition in topics[topic].partitions.indices {
            let (batches, begins) = topics[topic].partitions[partition].expire(before: ns)
            for batch in batches { report(batch, topic, Int32(partition), error, maybe: batch.isUncertain) }
            switch begins {
            case .epoch: beganEpoch(Place(topic: topic, partition: partition), Self.givenUp)
            case .identity: wantsIdentity = true
            case nil: break
            }
        }
        if wantsIdentity { beginAgain(error, Self.givenUp) }
    }

    private static let givenUp = "records that may be written were given up"

    // MARK: The end

    func close(deadlineMs: Int, _ body: (DeliveryReport) -> Void) -> Bool {
        guard !isClosed else { return true }
        let deadline = Deadline(afterMs: deadlineMs)
        while inFlight > 0 {
            sendGathered()
            let remaining = Int(deadline.remainingMs)
            _ = try? poll(timeoutMs: remaining, body)
            if remaining == 0 { break }
        }
        isClosed = true
        loop.adopt()
        let isFlushed = inFlight == 0
        for topic in topics.indices {
            for record in topics[topic].unplaced {
                report(record, ProducerTopic(index: topic), RD_KAFKA_RESP_ERR__PURGE_QUEUE)
            }
            topics[topic].unplaced = []
            for partition in topics[topic].partitions.indices {
                for batch in topics[topic].partitions[partition].takeAll() {
                    report(batch, topic, Int32(partition), RD_KAFKA_RESP_ERR__PURGE_QUEUE, maybe: batch.isUncertain)
                }
            }
        }
        inFlight = 0
        for report in reports { body(report) }
        reports = []
        loop.close()
        return isFlushed
    }
}
