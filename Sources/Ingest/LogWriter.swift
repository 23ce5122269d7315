import KafkaClient
import PushLink
import Runtime
import System
import Wire

/// One loop's writer to the log: messages, signals and the instance's announcements. A message's sender hears `sent` when
/// the log has acknowledged it, with the place that it has there.
final class LogWriter {
    private struct Sent {
        let number: SessionNumber
        let id: MessageID
        let chat: ChatID
        let atNs: UInt64
    }

    private let producer: ResendingProducer
    private let incoming: ProducerTopic
    private let signals: ProducerTopic
    private let instances: ProducerTopic
    /// How many partitions the chat-side topics have.
    let chatPartitions: Int32
    private var nextTag: UInt64 = 1
    private var sent: [UInt64: Sent] = [:]
    private var json = JSONWriter()
    private var key: [UInt8] = []
    private var registration: Registration?
    private let log: Log
    private let clock = SystemClock()
    private unowned var chat: ChatLoop?
    private var loop: EventLoop? { chat?.loop }

    init(_ configuration: IngestConfiguration, log: Log) throws {
        var options = ProducerOptions()
        // A device asks again after a while; what it no longer waits for need not be tried for minutes.
        options.deliveryTimeoutMs = 30_000
        options.queueMessagesMax = configuration.limits.logQueueRecords
        options.queueBytesMax = configuration.limits.logQueueBytes
        self.log = log
        producer = try ResendingProducer(configuration.kafka, options)
        let names = configuration.names
        incoming = try producer.topic(names[.incoming])
        signals = try producer.topic(names[.signals])
        instances = try producer.topic(names[.instances])
        let topics = [names[.incoming], names[.signals], names[.instances]]
        chatPartitions = try producer.warmUp(topics: topics, timeoutMs: 10_000)[0]
    }

    func start(_ chat: ChatLoop) {
        self.chat = chat
        do {
            registration = try chat.loop.watch(producer.wakeDescriptor) { [unowned self] _ in poll() }
        } catch {
            preconditionFailure("cannot watch the log writer: \(error)")
        }
        announce(chat)
    }

    /// Records that the log has not answered for.
    var queuedCount: Int { producer.inFlight }

    /// Messages that the log has not answered for.
    var isBusy: Bool { !sent.isEmpty }

    /// Whether there was room.
    func send(_ message: IncomingMessage, source bytes: Span<UInt8>, for number: SessionNumber) -> Bool {
        json.removeAll()
        message.write(to: &json, source: bytes)
        key.removeAll(keepingCapacity: true)
        message.chat.uuid.appendText(to: &key)
        guard let tag = produce(incoming, of: message.chat, key: key, value: json.bytes) else { return false }
        sent[tag] = Sent(number: number, id: message.id, chat: message.chat, atNs: clock.monotonicNs)
        return true
    }

    func send(_ signal: Wire.Signal) -> Bool {
        json.removeAll()
        signal.write(to: &json)
        key.removeAll(keepingCapacity: true)
        signal.chat.uuid.appendText(to: &key)
        return produce(signals, of: signal.chat, key: key, value: json.bytes) != nil
    }

    private func produce(
        _ topic: ProducerTopic, of chatID: ChatID? = nil, key: [UInt8], value: [UInt8]?
    ) -> UInt64? {
        do {
            let tag = nextTag
            let partition = chatID?.partition(count: chatPartitions)
            guard
                try producer.produce(topic, partition: partition, key: key.span, value: value?.span, tag: tag)
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
            try producer.poll { report in self.take(report) }
        } catch {
            // Replaced again and again in vain: nothing will be written here any more, so nobody is to be sent here.
            chat?.shared.fail(IngestError(.log, "the log takes nothing any more: \(error)"))
        }
    }

    private func take(_ report: DeliveryReport) {
        guard let message = sent.removeValue(forKey: report.tag), let chat else {
            if let error = report.error { log.warning("a record was not written", ["error": .init(error)]) }
            return
        }
        let client = chat.session(message.number)?.0
        // A repeat that the broker recognised without knowing its place any more is in the log; asking again tells where.
        if report.succeeded, let seq = report.offset {
            chat.metrics.messages.add()
            chat.metrics.toLog.record(ns: clock.monotonicNs &- message.atNs)
            client?.send(
                ServerFrame.sent(
                    id: message.id, chat: message.chat, seq: seq, ts: report.timestampMs ?? chat.loop.nowMs))
            return
        }
        if let error = report.error { log.warning("a message was not written", ["error": .init(error)]) }
        chat.metrics.refused(.overloaded)
        client?.send(
            ServerFrame.error(
                .overloaded, "the log does not answer", id: message.id, retryAfterMs: Int.random(in: 500...1500)))
    }

    // MARK: The instance

    func announce(_ chat: ChatLoop) {
        json.removeAll()
        chat.announcement.write(to: &json)
        _ = produce(instances, key: Array(chat.identity.name.utf8), value: json.bytes)
    }

    /// The instance is no more.
    func retire(_ chat: ChatLoop) {
        _ = produce(instances, key: Array(chat.identity.name.utf8), value: nil)
    }

    func close() {
        registration?.cancel()
        registration = nil
        producer.close(deadlineMs: 3000) { self.take($0) }
    }
}

extension ChatLoop {
    var announcement: InstanceRecord {
        let push = links.listener.map { "\(Address(host: configuration.pushHost, port: UInt16($0.port)))" } ?? ""
        return InstanceRecord(
            instance: identity.name, epoch: identity.epoch, pushAddress: push, publicURL: publicURL,
            connections: Int64(clients.count), isDraining: isDraining, ts: loop.nowMs)
    }

    var publicURL: String {
        let address = Address(host: configuration.listen.reachableHost, port: UInt16(port))
        return configuration.publicURL ?? "\(configuration.tls == nil ? "ws" : "wss")://\(address)"
    }
}
