import KafkaClient
import Testing

/// A message copied out of its batch.
struct Seen: Equatable {
    var topic: String
    var partition: Int32
    var offset: Int64
    var key: String?
    var value: String?
}

func text(_ span: Span<UInt8>?) -> String? {
    guard let span else { return nil }
    return String(decoding: (0..<span.count).map { span[$0] }, as: UTF8.self)
}

extension Consumer {
    /// Appends what one poll gives and hands its event back.
    func take(_ seen: inout [Seen], maxMessages: Int = 1000, timeoutMs: Int = 1000) -> ConsumerEvent? {
        let batch = poll(maxMessages: maxMessages, timeoutMs: timeoutMs)
        for index in 0..<batch.count {
            let message = batch[index]
            seen.append(
                Seen(
                    topic: name(of: message.topic), partition: message.partition, offset: message.offset,
                    key: text(message.key), value: text(message.value)))
        }
        return batch.event
    }

    /// Polls until `isDone`, or fails the test after 20 seconds.
    func takeUntil(
        _ seen: inout [Seen], onEvent: (ConsumerEvent) throws -> Void = { _ in }, _ isDone: ([Seen]) -> Bool
    ) throws {
        let end = ContinuousClock.now + .seconds(20)
        while !isDone(seen) {
            if let event = take(&seen, timeoutMs: 100) { try onEvent(event) }
            try #require(ContinuousClock.now < end, "no progress; saw \(seen.count) messages")
        }
    }
}

/// The two ways in which a `ResendingProducer` writes and a `Consumer` fetches.
enum ClientEngine: String, CaseIterable {
    case direct, librdkafka

    /// Any property that only librdkafka knows makes it librdkafka's work.
    func configuration(_ configuration: KafkaConfiguration) throws -> KafkaConfiguration {
        var configuration = configuration
        if self == .librdkafka { try configuration.set("log_level", to: "6") }
        return configuration
    }
}

/// Writes `values` to one partition and waits until all are acknowledged.
func write(_ values: [String], to topic: String, _ configuration: KafkaConfiguration, partition: Int32 = 0) throws {
    let producer = try Producer(configuration)
    let topic = try producer.topic(topic)
    var failures: [KafkaError] = []
    for value in values {
        let outcome = try producer.produce(
            topic, partition: partition, key: nil, value: Array(value.utf8).span, tag: 0)
        #expect(outcome == .queued)
    }
    #expect(producer.flush(deadlineMs: 10_000) { report in if let error = report.error { failures.append(error) } })
    #expect(failures == [])
    producer.close(deadlineMs: 5000) { _ in }
}
