import KafkaClient
import Runtime
import Wire

/// Writes what cannot be told to `chat.push.dead` and what cannot be read to `chat.rejected`. Each is settled only once
/// the log has it.
final class DeadLetters {
    let producer: Producer
    private let deadTopic: ProducerTopic
    private let rejectedTopic: ProducerTopic
    private let log: Log
    private var waiting: [UInt64: () -> Void] = [:]
    private var nextTag: UInt64 = 0
    private var json = JSONWriter()
    private var key: [UInt8] = []

    init(_ configuration: PushConfiguration, log: Log) throws(KafkaError) {
        var options = ProducerOptions()
        options.deliveryTimeoutMs = 0
        producer = try Producer(configuration.kafka, options)
        deadTopic = try producer.topic(configuration.names[.pushDead])
        rejectedTopic = try producer.topic(configuration.names[.rejected])
        self.log = log
    }

    func poll() {
        _ = producer.poll { report in
            if let error = report.error {
                log.error("a dead letter could not be written", ["error": "\(error)"])
            } else {
                waiting.removeValue(forKey: report.tag)?()
            }
        }
    }

    func close() { producer.close(deadlineMs: 2000) { _ in } }

    /// A notice that nobody took: the notice as it was sent, and the last reason.
    func bury(
        _ notice: Notice, reason: String, showsPreview: Bool, nowMs: Int64, _ written: @escaping () -> Void
    ) {
        json.removeAll()
        json.beginObject()
        json.field("reason", reason)
        json.name("notice")
        NoticeBody.write(notice, showsPreview: showsPreview, nowMs: nowMs, to: &json)
        json.endObject()
        key.removeAll(keepingCapacity: true)
        notice.user.uuid.appendText(to: &key)
        write(deadTopic, key: key, written)
    }

    func reject(
        _ value: Span<UInt8>, reason: String, topic: String, _ position: RecordPosition, _ written: @escaping () -> Void
    ) {
        json.removeAll()
        RejectedRecord.write(
            reason: "malformed", detail: reason,
            source: SourcePosition(topic: topic, partition: position.partition, offset: position.offset), record: value,
            to: &json)
        write(rejectedTopic, key: nil, written)
    }

    private func write(_ topic: ProducerTopic, key: [UInt8]?, _ written: @escaping () -> Void) {
        nextTag += 1
        waiting[nextTag] = written
        do throws(KafkaError) {
            let result: ProduceResult
            if let key {
                result = try producer.produce(topic, key: key.span, value: json.bytes.span, tag: nextTag)
            } else {
                result = try producer.produce(topic, key: nil, value: json.bytes.span, tag: nextTag)
            }
            // Unsettled, so it is not committed and comes again after a restart.
            if result == .queueFull { log.warning("the log takes no dead letters now") }
        } catch {
            log.error("a dead letter could not be written", ["error": "\(error)"])
        }
    }
}
