// What cannot be stored, on its way to `chat.rejected`.
internal import KafkaClient
internal import Runtime
internal import Wire

/// A record that is passed over.
struct Refusal {
    var source: SourcePosition
    var reason: String
    var detail = ""
    var key: [UInt8]?
    var value: [UInt8]?
}

/// Writes refusals and waits for the log's acknowledgement: only behind it does the sink move past a refused record. The
/// wait costs a round trip and comes with bad data only.
final class RejectLog {
    private let producer: ResendingProducer
    private let topic: ProducerTopic
    private var tag: UInt64 = 0

    /// Longer than any hiccup of a broker, and short enough that the group still takes the sink for alive.
    static let waitMs = 10_000
    private static let turnMs = 100

    init(_ configuration: KafkaConfiguration, topic name: String, log: @escaping KafkaLogSink) throws {
        var options = ProducerOptions()
        options.deliveryTimeoutMs = 0
        producer = try ResendingProducer(configuration, options, log: log)
        topic = try producer.topic(name)
    }

    /// Answers whether all of them are in the log. What has not been acknowledged in time may still come to be there, and
    /// then again with the next try: a refusal names its source, so a repeat is known for one.
    func write(_ refusals: [Refusal]) throws(KafkaError) -> Bool {
        guard !refusals.isEmpty else { return true }
        // What an earlier try left under way goes first, so that tries do not add up.
        guard try producer.flush(deadlineMs: Self.waitMs, { _ in }) else { return false }
        var failure: KafkaError?
        let note = { (report: DeliveryReport) in failure = failure ?? report.error }
        for refusal in refusals {
            let (key, value) = (refusal.key, refusal.value)
            var json = JSONWriter()
            RejectedRecord.write(
                reason: refusal.reason, detail: refusal.detail, source: refusal.source, record: value?.span, to: &json)
            tag += 1
            var turns = 0
            while try producer.produce(topic, key: key?.span, value: json.bytes.span, tag: tag) == .queueFull {
                guard turns < Self.waitMs / Self.turnMs else { return false }
                turns += 1
                try producer.poll(timeoutMs: Self.turnMs, note)
            }
        }
        guard try producer.flush(deadlineMs: Self.waitMs, note) else { return false }
        if let failure { throw failure }
        return true
    }

    /// Takes what the client has to tell while there is nothing to write.
    func poll() throws(KafkaError) { try producer.poll { _ in } }

    func close() { producer.close(deadlineMs: 5000) { _ in } }

    /// How many partitions a topic has, asked of the cluster.
    func partitionCount(of topic: String) throws(KafkaError) -> Int32 { try producer.warmUp(topics: [topic])[0] }
}
