public import KafkaClient
import Runtime
import System

/// Measures any broker from outside, through librdkafka: how fast records go in and come out, and how long one record takes
/// to be acknowledged by acks=all when it is alone.
///
/// Embedded broker and Apache Kafka are measured by the same client with the same settings, one after the other.
public struct BrokerBenchmark: Sendable {
    public let configuration: KafkaConfiguration
    public let topic: String
    public let messages: Int
    public let valueBytes: Int
    public let partitions: Int
    public let latencySamples: Int

    public struct Figures: Sendable {
        public var producedPerSecond = 0.0
        public var consumedPerSecond = 0.0
        public var latencyP50Ms = 0.0
        public var latencyP99Ms = 0.0
    }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    public init(
        _ configuration: KafkaConfiguration, topic: String, messages: Int, valueBytes: Int, partitions: Int,
        latencySamples: Int = 5000
    ) {
        self.configuration = configuration
        self.topic = topic
        self.messages = messages
        self.valueBytes = valueBytes
        self.partitions = partitions
        self.latencySamples = latencySamples
    }

    /// Makes the topic, measures, and deletes it.
    public func run() throws -> Figures {
        let admin = try Admin(configuration)
        for outcome in try admin.createTopics([NewTopic(topic, partitions: partitions)]) {
            if let error = outcome.error { throw error }
        }
        defer {
            _ = try? admin.deleteTopics([topic])
            _ = admin.close(deadlineMs: 2000)
        }
        var figures = Figures()
        figures.producedPerSecond = try measureProduce()
        figures.consumedPerSecond = try measureConsume()
        try measureLatency(&figures)
        return figures
    }

    private func measureProduce() throws -> Double {
        var options = ProducerOptions()
        options.lingerMs = 5
        options.queueMessagesMax = 500_000
        let producer = try Producer(configuration, options)
        defer { producer.close(deadlineMs: 2000) { _ in } }
        let topic = try producer.topic(topic)
        _ = try producer.warmUp(topics: [self.topic])
        let value = [UInt8](repeating: 0x78, count: valueBytes)
        var acknowledged = 0
        var failure: KafkaError?
        let start = Monotonic.now
        for index in 0..<messages {
            while try producer.produce(
                topic, partition: Int32(index / 100 % partitions), key: nil, value: value.span, tag: 0) == .queueFull
            {
                producer.poll(timeoutMs: 1) { report in
                    acknowledged += 1
                    if let error = report.error { failure = error }
                }
            }
        }
        _ = producer.flush(deadlineMs: 120_000) { report in
            acknowledged += 1
            if let error = report.error { failure = error }
        }
        let seconds = Monotonic.seconds(since: start)
        if let failure { throw failure }
        guard acknowledged == messages else {
            throw Failure(description: "\(acknowledged) of \(messages) acknowledged")
        }
        return Double(messages) / seconds
    }

    private func measureConsume() throws -> Double {
        let consumer = try Consumer(configuration, ConsumerOptions())
        defer { _ = consumer.close(deadlineMs: 2000) }
        try consumer.assign(
            (0..<partitions).map {
                PartitionStart(TopicPartition(topic, Int32($0)), at: .beginning)
            })
        var count = 0
        var start: UInt64?
        let deadline = Monotonic.now + 120_000_000_000
        while count < messages {
            guard Monotonic.now < deadline else { throw Failure(description: "\(count) of \(messages) consumed") }
            let batch = consumer.poll(maxMessages: 5000, timeoutMs: 100)
            // The first batch pays for connections and metadata.
            if start == nil, !batch.isEmpty { start = Monotonic.now }
            count += batch.count
        }
        return Double(count) / Monotonic.seconds(since: start ?? Monotonic.now)
    }

    private func measureLatency(_ figures: inout Figures) throws {
        var options = ProducerOptions()
        options.lingerMs = 0
        let producer = try Producer(configuration, options)
        defer { producer.close(deadlineMs: 2000) { _ in } }
        let topic = try producer.topic(topic)
        _ = try producer.warmUp(topics: [self.topic])
        let value = [UInt8](repeating: 0x78, count: valueBytes)
        let histogram = Histogram()
        for sample in 0..<latencySamples {
            let start = Monotonic.now
            _ = try producer.produce(topic, partition: 0, key: nil, value: value.span, tag: 0)
            var isAcknowledged = false
            while !isAcknowledged {
                producer.poll(timeoutMs: 1000) { _ in isAcknowledged = true }
            }
            if sample >= latencySamples / 20 { histogram.record(ns: Monotonic.now - start) }
        }
        let snapshot = histogram.snapshot()
        figures.latencyP50Ms = snapshot.quantileUs(0.5) / 1000
        figures.latencyP99Ms = snapshot.quantileUs(0.99) / 1000
    }

    private enum Monotonic {
        static let clock = SystemClock()
        static var now: UInt64 { clock.monotonicNs }
        static func seconds(since start: UInt64) -> Double { max(Double(now - start), 1) / 1e9 }
    }
}
