import KafkaClient
import TestSupport
import Testing

/// Numbered records that are sent to a broker of which anything may become, and what it has acknowledged of them.
final class Ledger {
    let topic: String
    private let partitions: Int32
    private let configuration: KafkaConfiguration
    private let producer: Producer
    private let handle: ProducerTopic
    private let padding: String
    private var next: UInt64 = 1
    private(set) var acknowledged: [UInt64: (partition: Int32, offset: Int64?)] = [:]
    private(set) var failures = 0

    /// Makes the topic.
    init(
        _ address: String, topic: String, partitions: Int32 = 4, configs: [String: String] = [:],
        recordBytes: Int = 180
    ) throws {
        self.topic = topic
        self.partitions = partitions
        configuration = KafkaConfiguration(bootstrapServers: address, clientID: "test")
        padding = String(repeating: "x", count: recordBytes)
        let admin = try Admin(configuration)
        for outcome in try admin.createTopics([NewTopic(topic, partitions: Int(partitions), configs: configs)]) {
            if let error = outcome.error { throw error }
        }
        admin.close(deadlineMs: 2000)
        producer = try Producer(configuration)
        handle = try producer.topic(topic)
    }

    var sent: UInt64 { next - 1 }
    var inFlight: Int { producer.inFlight }

    /// Sends so many, as long as not too many are under way.
    func send(_ count: Int, inFlightMax: Int = 20_000) throws {
        for _ in 0..<count where producer.inFlight < inFlightMax {
            let value = Array("\(next) \(padding)".utf8)
            let outcome = try producer.produce(
                handle, partition: Int32(next % UInt64(partitions)), key: nil, value: value.span, tag: next)
            guard outcome == .queued else { break }
            next += 1
        }
    }

    func poll(_ ms: Int) { producer.poll(timeoutMs: ms, note) }

    private func note(_ report: DeliveryReport) {
        if report.succeeded {
            acknowledged[report.tag] = (report.partition, report.offset)
        } else {
            failures += 1
        }
    }

    /// Until something that was under way has been acknowledged since `count` were, or there is nothing.
    func hasProgressed(since count: Int) -> Bool {
        eventually(seconds: 60) {
            poll(20)
            return acknowledged.count > count || producer.inFlight == 0
        }
    }

    /// Until everything is acknowledged.
    func flush() -> Bool { producer.flush(deadlineMs: 120_000, note) && failures == 0 }

    func close() { producer.close(deadlineMs: 2000) { _ in } }

    /// Every acknowledged record is there once, in order, where the acknowledgement said.
    func check() throws {
        let consumer = try Consumer(configuration, ConsumerOptions())
        defer { _ = consumer.close(deadlineMs: 2000) }
        try consumer.assign((0..<partitions).map { PartitionStart(TopicPartition(topic, $0), at: .beginning) })
        var seen: [UInt64: (partition: Int32, offset: Int64)] = [:]
        var last = [UInt64](repeating: 0, count: Int(partitions))
        var repeats = 0
        var disorder = 0
        let isComplete = eventually(seconds: 60) {
            let batch = consumer.poll(maxMessages: 5000, timeoutMs: 100)
            for index in 0..<batch.count {
                let message = batch[index]
                guard let value = message.value else { continue }
                var tag: UInt64 = 0
                var place = 0
                while place < value.count, value[place] != 0x20 {
                    tag = tag * 10 + UInt64(value[place] - 0x30)
                    place += 1
                }
                if seen.updateValue((message.partition, message.offset), forKey: tag) != nil { repeats += 1 }
                if tag <= last[Int(message.partition)] { disorder += 1 }
                last[Int(message.partition)] = tag
            }
            return seen.count >= acknowledged.count
        }
        #expect(isComplete, "\(seen.count) of \(acknowledged.count) acknowledged, \(sent) sent")
        #expect(repeats == 0)
        #expect(disorder == 0)
        let lost = acknowledged.filter { tag, place in
            guard let found = seen[tag] else { return true }
            return found.partition != place.partition || (place.offset.map { $0 != found.offset } ?? false)
        }
        #expect(lost.isEmpty, "\(lost.count) of \(acknowledged.count), e.g. \(lost.first.map { "\($0)" } ?? "")")
    }
}
