import KafkaClient
import Runtime
import System
import Wire

/// Writes what cannot be told to `chat.push.dead` and what cannot be read to `chat.rejected`. Each is settled only once
/// the log has it, so whatever the log does not take is offered again until it does. On the loop's thread only.
final class DeadLetters {
    private struct Letter {
        let topic: ProducerTopic
        let key: [UInt8]?
        let value: [UInt8]
        let written: () -> Void
    }

    let producer: ResendingProducer
    private let loop: EventLoop
    private let log: Log
    private let deadTopic: ProducerTopic
    private let rejectedTopic: ProducerTopic
    private var underWay: [UInt64: Letter] = [:]
    private var unsent: [Letter] = []
    private var retryTimer: Timer?
    private var nextTag: UInt64 = 0
    private var json = JSONWriter()
    /// What is kept until the log has it.
    private(set) var bytes = 0
    private var acknowledged = 0
    private var toldAcknowledged = 0

    init(_ configuration: PushConfiguration, on loop: EventLoop, log: Log) throws(KafkaError) {
        var options = ProducerOptions()
        options.deliveryTimeoutMs = 0
        producer = try ResendingProducer(configuration.kafka, options)
        deadTopic = try producer.topic(configuration.names[.pushDead])
        rejectedTopic = try producer.topic(configuration.names[.rejected])
        self.loop = loop
        self.log = log
    }

    /// Takes the log's answers. Throws when the log cannot be written to any more.
    func poll() throws(KafkaError) {
        try producer.poll { report in
            guard let letter = underWay.removeValue(forKey: report.tag) else { return }
            if let error = report.error { return keep(letter, "\(error)") }
            bytes -= letter.value.count
            acknowledged += 1
            letter.written()
        }
    }

    /// Whether the log has taken a letter since this was asked last.
    func hasProgressed() -> Bool {
        defer { toldAcknowledged = acknowledged }
        return acknowledged != toldAcknowledged
    }

    /// Waits for what is under way, but not for long: what is not written comes again after a restart.
    func close() {
        retryTimer?.cancel()
        producer.close(deadlineMs: 2000) { report in
            guard report.succeeded else { return }
            underWay.removeValue(forKey: report.tag)?.written()
        }
    }

    /// A notice that nobody took, as the records of `chat.push` that it was, one a chat, each with the last error: written
    /// to `chat.push` again, they are told again.
    func bury(_ notice: Notice, error: String, tries: Int, device: DeviceID?, _ written: @escaping () -> Void) {
        var key: [UInt8] = []
        notice.user.uuid.appendText(to: &key)
        var left = notice.chats.count
        let id = notice.idempotencyKey
        for part in notice.chats {
            json.removeAll()
            json.object { json in
                json.field("user", notice.user)
                json.field("chat", part.chat)
                json.field("count", part.gathered)
                json.field("at", part.newestMs)
                json.field("last", raw: part.last.span)
                json.field("error", error)
                json.field("attempts", tries)
                json.field("notice", id)
                if let device { json.field("device", device) }
            }
            write(
                Letter(topic: deadTopic, key: key, value: json.bytes) {
                    left -= 1
                    if left == 0 { written() }
                })
        }
    }

    func reject(
        _ value: Span<UInt8>, reason: String, topic: String, _ position: RecordPosition, _ written: @escaping () -> Void
    ) {
        json.removeAll()
        RejectedRecord.write(
            reason: "malformed", detail: reason,
            source: SourcePosition(topic: topic, partition: position.partition, offset: position.offset), record: value,
            to: &json)
        write(Letter(topic: rejectedTopic, key: nil, value: json.bytes, written: written))
    }

    private func write(_ letter: Letter) {
        bytes += letter.value.count
        guard unsent.isEmpty else { return unsent.append(letter) }
        offer(letter)
    }

    private func offer(_ letter: Letter) {
        nextTag += 1
        do throws(KafkaError) {
            let result: ProduceResult
            if let key = letter.key {
                result = try producer.produce(letter.topic, key: key.span, value: letter.value.span, tag: nextTag)
            } else {
                result = try producer.produce(letter.topic, key: nil, value: letter.value.span, tag: nextTag)
            }
            guard result == .queued else { return keep(letter, "the producer's queue is full") }
            underWay[nextTag] = letter
        } catch {
            keep(letter, "\(error)")
        }
    }

    private func keep(_ letter: Letter, _ reason: String) {
        unsent.append(letter)
        guard retryTimer == nil else { return }
        log.warning("the log does not take a dead letter; it is offered again", ["error": .string(reason)])
        retryTimer = loop.schedule(afterMs: 1000) { [unowned self] in
            retryTimer = nil
            let letters = unsent
            unsent = []
            for letter in letters { offer(letter) }
        }
    }
}
