import KafkaClient
import TestSupport
import Testing
import Wire

/// Producers whose every fourth append is lost, late, repeated or refused on its way to a real log: the embedded broker, or
/// Apache Kafka by `FANOUT_TEST_KAFKA`.
@Suite struct ProducerProxyTests {
    private static let records: UInt64 = 400

    /// librdkafka stops for good after some refusals, and the producer that replaces it cannot know of what its first one
    /// sent again by itself: it meets the faults of the network only.
    @Test(arguments: [(ClientEngine.direct, true), (.direct, false), (.librdkafka, false)])
    func `what is acknowledged is where it is said to be, in order and once; what failed for certain is absent`(
        _ engine: ClientEngine, _ refuses: Bool
    ) throws {
        let seed = SeededGenerator.freshSeed()
        print("seed \(seed) (a producer behind a proxy, \(engine); FANOUT_SEED=\(seed) runs it again)")
        for round in 0..<4 as Range<UInt64> { try run(engine, refuses, seed: seed &+ round) }
    }

    private func run(_ engine: ClientEngine, _ refuses: Bool, seed: UInt64) throws {
        let address = try TestKafka.shared().address
        let plain = KafkaConfiguration(bootstrapServers: address)
        let name = TestKafka.unique("t")
        _ = try Admin(plain) { _ in }.createTopics([NewTopic(name, partitions: 2, replicationFactor: 1)])
        let proxy = try FaultyProxy(to: address, seed: seed, refuses: refuses)
        var options = ProducerOptions()
        options.deliveryTimeoutMs = refuses ? 1000 : 0
        options.batchMessagesMax = 10
        let producer = try ResendingProducer(
            engine.configuration(KafkaConfiguration(bootstrapServers: proxy.address)), options
        ) { _ in }
        let topic = try producer.topic(name)
        var random = SeededGenerator(seed)
        var reports: [UInt64: DeliveryReport] = [:]
        func take(_ report: DeliveryReport) {
            #expect(reports.updateValue(report, forKey: report.tag) == nil, "seed \(seed): reported twice")
        }
        for tag in 0..<Self.records {
            let value = Array("\(tag)".utf8)
            #expect(
                try producer.produce(topic, partition: Int32(tag % 2), key: nil, value: value.span, tag: tag) == .queued
            )
            if Int.random(in: 0..<8, using: &random) == 0 {
                try producer.poll(timeoutMs: Int.random(in: 0...20, using: &random), take)
            }
        }
        #expect(try producer.flush(deadlineMs: 60_000, take))
        #expect(proxy.heal() > 0)
        // What was late has arrived, and nothing else will.
        #expect(producer.close(deadlineMs: 10_000, take))
        try check(name, reports, plain, seed)
    }

    private func check(
        _ topic: String, _ reports: [UInt64: DeliveryReport], _ configuration: KafkaConfiguration, _ seed: UInt64
    ) throws {
        #expect(reports.count == Int(Self.records))
        let consumer = try Consumer(configuration, ConsumerOptions()) { _ in }
        let partitions = (0..<2).map { TopicPartition(topic, $0) }
        let ends = try partitions.map { try consumer.watermarks($0).high }
        try consumer.assign(partitions.map { PartitionStart($0, at: .beginning) })
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count == ends.reduce(0) { $0 + Int($1) } }
        for partition in 0..<2 as Range<Int32> {
            let log = seen.filter { $0.partition == partition }.compactMap { UInt64($0.value ?? "") }
            var counts: [UInt64: Int] = [:]
            var last: UInt64?
            for tag in log {
                counts[tag, default: 0] += 1
                guard counts[tag] == 1 else { continue }
                #expect(last.map { tag > $0 } ?? true, "seed \(seed): \(tag) stands behind \(last ?? 0) in \(log)")
                last = tag
            }
            for (tag, report) in reports where Int32(tag % 2) == partition {
                if report.succeeded {
                    let offset = Int(report.offset ?? -1)
                    let isThere = log.indices.contains(offset) && log[offset] == tag
                    #expect(isThere, "seed \(seed): \(tag) is not at \(offset) of \(log)")
                    #expect(counts[tag] == 1 || report.mayBeRepeated, "seed \(seed): \(tag) is repeated in \(log)")
                } else if !report.mayBeWritten {
                    #expect(counts[tag] == nil, "seed \(seed): \(tag) failed for certain and is in \(log)")
                }
            }
        }
    }
}
