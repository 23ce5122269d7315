import KafkaClient
import PostgresClient
import PushLink
import Runtime
import Store
import System
import Wire

/// One loop's writer to the log: messages, signals and the instance's announcements. A message's sender hears `sent` when
/// the log has acknowledged it, with the place that it has there.
final class LogWriter {
    private struct Sent {
        let number: SessionNumber
        let id: MessageID
        let chat: ChatID
        let partition: Int32
        let atNs: UInt64
    }

    /// What has become of a message that is to be written.
    enum Outcome {
        case queued
        /// The log's queue is full.
        case full
        /// More is under way than the pipeline carries in good time.
        case tooMuch
    }

    private let configuration: IngestConfiguration
    private var output: Output
    /// The log would take nothing from the last producer. Until the next begins, senders are told to try again.
    private var isPausing = false
    private var pauseMs = LogWriter.pauseMsMin
    /// How many partitions the chat-side topics have.
    let chatPartitions: Int32
    private static let pauseMsMin = 500
    private static let pauseMsMax = 10_000

    private struct Output {
        let producer: ResendingProducer
        let incoming: ProducerTopic
        let signals: ProducerTopic
        let instances: ProducerTopic

        init(_ configuration: IngestConfiguration) throws(KafkaError) {
            var options = ProducerOptions()
            // A device asks again after a while; what it no longer waits for need not be tried for minutes.
            options.deliveryTimeoutMs = 30_000
            options.queueMessagesMax = configuration.limits.logQueueRecords
            options.queueBytesMax = configuration.limits.logQueueBytes
            producer = try ResendingProducer(configuration.kafka, options)
            incoming = try producer.topic(configuration.names[.incoming])
            signals = try producer.topic(configuration.names[.signals])
            instances = try producer.topic(configuration.names[.instances])
        }
    }

    private var nextTag: UInt64 = 1
    private var sent: [UInt64: Sent] = [:]
    private var admission: MessageAdmission
    private var json = JSONWriter()
    private var key: [UInt8] = []
    private var registration: Registration?
    private var isClosed = false
    private var numbers: SeqNumbers
    private let incomingName: String
    private var isAskingNumbers = false
    private let log: Log
    private let clock = SystemClock()
    private unowned var chat: ChatLoop?
    private var loop: EventLoop? { chat?.loop }

    init(_ configuration: IngestConfiguration, log: Log) throws {
        self.configuration = configuration
        self.log = log
        output = try Output(configuration)
        let topics = [Topic.incoming, .signals, .instances].map { configuration.names[$0] }
        chatPartitions = try output.producer.warmUp(topics: topics, timeoutMs: 10_000)[0]
        admission = MessageAdmission(partitions: Int(chatPartitions))
        incomingName = configuration.names[.incoming]
        numbers = SeqNumbers(partitionCount: chatPartitions, isAsked: configuration.postgres != nil)
    }

    func start(_ chat: ChatLoop) {
        self.chat = chat
        watch(chat.loop)
        announce(chat)
        learnNumbers(chat)
    }

    private func watch(_ loop: EventLoop) {
        do {
            registration = try loop.watch(output.producer.wakeDescriptor) { [unowned self] _ in poll() }
        } catch {
            preconditionFailure("cannot watch the log writer: \(error)")
        }
    }

    /// Records that the log has not answered for.
    var queuedCount: Int { output.producer.inFlight }

    /// Whether the log has everything.
    var isSettled: Bool { !isPausing && queuedCount == 0 }

    /// Messages that the log has not answered for.
    var isBusy: Bool { !sent.isEmpty || numbers.isWaiting }

    /// Messages whose events have not come back.
    var underWay: Int { admission.underWay }

    func send(_ message: IncomingMessage, source bytes: Span<UInt8>, for number: SessionNumber) -> Outcome {
        let partition = message.chat.partition(count: chatPartitions)
        let nowNs = clock.monotonicNs
        guard admission.admits(to: partition, nowMs: Int64(nowNs / 1_000_000)) else { return .tooMuch }
        json.removeAll()
        message.write(to: &json, source: bytes)
        key.removeAll(keepingCapacity: true)
        message.chat.uuid.appendText(to: &key)
        guard let tag = produce(output.incoming, partition, key: key, value: json.bytes) else { return .full }
        admission.sent(to: partition)
        sent[tag] = Sent(number: number, id: message.id, chat: message.chat, partition: partition, atNs: nowNs)
        return .queued
    }

    /// An event that Delivery has sent: a message of ours may have come back.
    func cameBack(_ event: Span<UInt8>, nowMs: Int64) {
        guard let (chat, seq) = MessageAdmission.place(of: event) else { return }
        admission.cameBack(chat.partition(count: chatPartitions), seq: seq, nowMs: nowMs)
    }

    func send(_ signal: Wire.Signal) -> Bool {
        json.removeAll()
        signal.write(to: &json)
        key.removeAll(keepingCapacity: true)
        signal.chat.uuid.appendText(to: &key)
        let partition = signal.chat.partition(count: chatPartitions)
        return produce(output.signals, partition, key: key, value: json.bytes) != nil
    }

    private func produce(
        _ topic: ProducerTopic, _ partition: Int32? = nil, key: [UInt8], value: [UInt8]?
    ) -> UInt64? {
        guard !isPausing else { return nil }
        do {
            let tag = nextTag
            guard
                try output.producer.produce(topic, partition: partition, key: key.span, value: value?.span, tag: tag)
                    == .queued
            else { return nil }
            nextTag += 1
            return tag
        } catch {
            log.error("the log refuses a record", ["error": .init(error)])
            return nil
        }
    }

    private func poll() {
        do {
            try output.producer.poll { report in self.take(report) }
        } catch {
            beginAgain(error)
        }
    }

    /// The producer was replaced again and again in vain. A server that ended would take its devices along, and all servers
    /// would at once: it stays, tells senders to try again, is not ready, and tries with a new producer after a pause.
    private func beginAgain(_ error: KafkaError) {
        guard !isPausing, let loop else { return }
        let afterMs = Int.random(in: pauseMs / 2...pauseMs)
        pauseMs = min(pauseMs * 2, Self.pauseMsMax)
        isPausing = true
        log.error("the log takes nothing from this server", ["error": .init(error), "retry_ms": .init(afterMs)])
        registration?.cancel()
        registration = nil
        output.producer.close(deadlineMs: 0) { self.take($0) }
        loop.schedule(afterMs: afterMs) { [weak self] in self?.resume() }
    }

    private func resume() {
        guard let chat, isPausing, !isClosed else { return }
        do throws(KafkaError) {
            output = try Output(configuration)
        } catch {
            isPausing = false
            return beginAgain(error)
        }
        isPausing = false
        watch(chat.loop)
        announce(chat)
    }

    private func take(_ report: DeliveryReport) {
        if report.succeeded {
            pauseMs = Self.pauseMsMin
            chat?.health.acknowledged()
        }
        guard let message = sent.removeValue(forKey: report.tag), let chat else {
            if let error = report.error { log.warning("a record was not written", ["error": .init(error)]) }
            return
        }
        let client = chat.session(message.number)?.0
        // A repeat that the broker recognised without knowing its place any more is in the log; asking again tells where.
        if report.succeeded, let offset = report.offset {
            chat.metrics.messages.add()
            chat.metrics.toLog.record(ns: clock.monotonicNs &- message.atNs)
            let answer = SeqNumbers.Answer(
                session: message.number, id: message.id, chat: message.chat, partition: report.partition,
                offset: offset, ts: report.timestampMs ?? chat.loop.nowMs, sentMs: Int64(message.atNs / 1_000_000))
            switch numbers.acknowledged(answer, nowMs: Int64(chat.loop.monotonicMs)) {
            case .answer(let seq): tell(answer, seq, chat)
            case .wait: break
            case .full:
                admission.failed(message.partition)
                refuse(message, client, chat)
            }
            return
        }
        admission.failed(message.partition)
        if let error = report.error { log.warning("a message was not written", ["error": .init(error)]) }
        refuse(message, client, chat)
    }

    private func tell(_ answer: SeqNumbers.Answer, _ seq: Int64, _ chat: ChatLoop) {
        admission.answered(answer.partition, seq: seq, sentMs: answer.sentMs)
        chat.session(answer.session)?.0.send(
            ServerFrame.sent(id: answer.id, chat: answer.chat, seq: seq, ts: answer.ts))
    }

    private func refuse(_ message: Sent, _ client: Client?, _ chat: ChatLoop) {
        chat.metrics.refused(.overloaded)
        client?.send(
            ServerFrame.error(
                .overloaded, "the log does not answer", id: message.id, retryAfterMs: Int.random(in: 500...1500)))
    }

    // MARK: Numbers

    /// Asks which generations `chat.incoming` has, when it is another or it is time.
    func learnNumbers(_ chat: ChatLoop) {
        guard let database = chat.database, !isAskingNumbers else { return }
        let present: LogIdentity?
        switch chat.shared.present.answer {
        case .unknown: return
        // There is one run, as far as anybody knows.
        case .untold: return learned([], of: nil, chat)
        case .log(let log): present = log
        }
        guard let asked = numbers.look(at: present, nowMs: Int64(chat.loop.monotonicMs)) else { return }
        isAskingNumbers = true
        database.rows(LogGenerations.known(incomingName, asked)) { [weak self, weak chat] result in
            guard let self, let chat else { return }
            isAskingNumbers = false
            switch result {
            case .success(let entries):
                if numbers.isComplete(entries.map { ($0.partition, $0.generation) }, of: asked) {
                    learned(entries, of: asked, chat)
                } else {
                    claimNumbers(asked, database, chat)
                }
            case .failure(let error): cannotLearn(error)
            }
        }
    }

    private func claimNumbers(_ asked: LogIdentity, _ database: Database, _ chat: ChatLoop) {
        var floors: [Int32: Int32] = [:]
        for partition in 0..<chatPartitions { floors[partition] = numbers.floor(partition) }
        isAskingNumbers = true
        database.rows(LogGenerations.claim(incomingName, asked, atLeast: floors)) { [weak self, weak chat] result in
            guard let self, let chat else { return }
            isAskingNumbers = false
            switch result {
            case .success(let entries): learned(entries, of: asked, chat)
            case .failure(let error): cannotLearn(error)
            }
        }
    }

    private func learned(_ entries: [LogGenerations.Entry], of asked: LogIdentity?, _ chat: ChatLoop) {
        let answers = numbers.learned(
            entries.map { ($0.partition, $0.generation) }, of: asked, nowMs: Int64(chat.loop.monotonicMs))
        for (answer, seq) in answers { tell(answer, seq, chat) }
    }

    private func cannotLearn(_ error: PostgresError) {
        guard numbers.isWaiting else { return }
        log.warning(
            "Postgres does not tell the generation of chat.incoming; senders wait for their answers",
            ["error": .init("\(error)")])
    }

    // MARK: The instance

    func announce(_ chat: ChatLoop) {
        json.removeAll()
        chat.announcement.write(to: &json)
        _ = produce(output.instances, key: Array(chat.identity.name.utf8), value: json.bytes)
    }

    /// The instance is no more.
    func retire(_ chat: ChatLoop) {
        _ = produce(output.instances, key: Array(chat.identity.name.utf8), value: nil)
    }

    func close() {
        isClosed = true
        registration?.cancel()
        registration = nil
        guard !isPausing else { return }
        output.producer.close(deadlineMs: 3000) { self.take($0) }
    }
}

extension ChatLoop {
    var announcement: InstanceRecord {
        let push = links.listener.map { "\(Address(host: configuration.pushHost, port: UInt16($0.port)))" } ?? ""
        return InstanceRecord(
            instance: identity.name, epoch: identity.epoch, pushAddress: push, publicURL: publicURL,
            connections: Int64(clients.count), isDraining: isDraining,
            workers: links.workers, ts: loop.nowMs)
    }

    var publicURL: String {
        let address = Address(host: configuration.listen.reachableHost, port: UInt16(port))
        return configuration.publicURL ?? "\(configuration.tls == nil ? "ws" : "wss")://\(address)"
    }
}
