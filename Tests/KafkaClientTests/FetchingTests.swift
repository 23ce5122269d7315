import Foundation
import KafkaClient
import System
import TestSupport
import Testing

/// Reading by either engine: what goes wrong on the way, and what other tools have written. Against the embedded broker, a
/// mock cluster where there have to be several brokers, or Apache Kafka by `FANOUT_TEST_KAFKA`.
@Suite struct FetchingTests {
    private func configuration() throws -> KafkaConfiguration {
        KafkaConfiguration(bootstrapServers: try TestKafka.shared().address)
    }

    private func topic(partitions: Int) throws -> String {
        let name = TestKafka.unique("t")
        _ = try Admin(configuration()).createTopics([
            NewTopic(name, partitions: partitions, replicationFactor: 1)
        ])
        return name
    }

    /// Writes numbers, in turn to each partition, and waits until all are acknowledged.
    private func write(
        _ numbers: Range<Int>, to topic: String, _ configuration: KafkaConfiguration, partitions: Int32 = 1,
        _ compression: ProducerOptions.Compression = .none
    ) throws {
        var options = ProducerOptions()
        options.compression = compression
        let producer = try ResendingProducer(configuration, options) { _ in }
        let handle = try producer.topic(topic)
        try producer.warmUp(topics: [topic])
        for number in numbers {
            let value = Array("\(number)".utf8)
            #expect(
                try producer.produce(
                    handle, partition: Int32(number) % partitions, key: nil, value: value.span, tag: UInt64(number))
                    == .queued)
        }
        var failures = 0
        #expect(try producer.flush(deadlineMs: 30_000) { failures += $0.succeeded ? 0 : 1 })
        #expect(failures == 0)
        producer.close(deadlineMs: 5000) { _ in }
    }

    private func starts(_ topic: String, _ partitions: Int32) -> [PartitionStart] {
        (0..<partitions).map { PartitionStart(TopicPartition(topic, $0), at: .beginning) }
    }

    @Test(arguments: ClientEngine.allCases, ProducerOptions.Compression.allCases)
    func `records in any codec are read`(_ engine: ClientEngine, _ codec: ProducerOptions.Compression) throws {
        let topic = try topic(partitions: 1)
        try write(0..<1000, to: topic, configuration(), partitions: 1, codec)
        let consumer = try Consumer(engine.configuration(configuration()), ConsumerOptions())
        try consumer.assign([PartitionStart(TopicPartition(topic, 0), at: .offset(100))])
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count >= 900 }
        #expect(seen.map(\.value) == (100..<1000).map { "\($0)" })
        #expect(seen.map(\.offset) == Array(100..<1000))
    }

    @Test(arguments: ClientEngine.allCases)
    func `batches that are longer than a partition's share of an answer come all the same`(_ engine: ClientEngine)
        throws
    {
        let topic = try topic(partitions: 3)
        for partition in 0..<3 as Range<Int32> {
            let producer = try ResendingProducer(configuration()) { _ in }
            let handle = try producer.topic(topic)
            try producer.warmUp(topics: [topic])
            for tag in 0..<5 as Range<UInt64> {
                let value = [UInt8](repeating: UInt8(tag), count: 60_000)
                _ = try producer.produce(handle, partition: partition, key: nil, value: value.span, tag: tag)
            }
            var failures = 0
            #expect(try producer.flush(deadlineMs: 10_000) { failures += $0.succeeded ? 0 : 1 })
            #expect(failures == 0)
        }
        var options = ConsumerOptions()
        options.partitionFetchBytesMax = 1000
        options.fetchWaitMs = 50
        let consumer = try Consumer(engine.configuration(configuration()), options)
        try consumer.assign(starts(topic, 3))
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count >= 15 }
        for partition in 0..<3 as Range<Int32> {
            #expect(seen.filter { $0.partition == partition }.map(\.offset) == [0, 1, 2, 3, 4])
        }
    }

    @Test(arguments: ClientEngine.allCases)
    func `connections that are cut again and again lose and repeat no record that is read`(_ engine: ClientEngine)
        throws
    {
        guard try TestKafka.shared().isEmbedded else { return }
        let broker = try BrokerProcess()
        let plain = KafkaConfiguration(bootstrapServers: broker.address)
        _ = try Admin(plain) { _ in }.createTopics([NewTopic("t", partitions: 3, replicationFactor: 1)])
        var options = ConsumerOptions()
        options.fetchWaitMs = 20
        let consumer = try Consumer(engine.configuration(plain), options) { _ in }
        try consumer.assign(starts("t", 3))
        var random = SeededGenerator.announced(#function)
        let producer = try ResendingProducer(plain) { _ in }
        let handle = try producer.topic("t")
        var (seen, cuts) = ([Seen](), 0)
        for round in 0..<40 as Range<UInt64> {
            for tag in round * 60..<round * 60 + 60 {
                let value = Array("\(tag)".utf8)
                _ = try producer.produce(handle, partition: Int32(tag % 3), key: nil, value: value.span, tag: tag)
            }
            try producer.poll(timeoutMs: Int.random(in: 0...5, using: &random)) { _ in }
            _ = consumer.take(
                &seen, maxMessages: Int.random(in: 1...100, using: &random),
                timeoutMs: Int.random(in: 0...20, using: &random))
            if Bool.random(using: &random) { cuts += try ForeignConnections.cut(of: broker.pid) }
        }
        #expect(try producer.flush(deadlineMs: 60_000) { _ in })
        try consumer.takeUntil(&seen) { $0.count >= 2400 }
        #expect(cuts > 0)
        for partition in 0..<3 as Range<Int32> {
            let values = seen.filter { $0.partition == partition }.compactMap { Int($0.value ?? "") }
            #expect(values == (0..<800).map { $0 * 3 + Int(partition) })
        }
    }

    @Test(arguments: ClientEngine.allCases)
    func `a broker that is killed and comes back is read on where it was left`(_ engine: ClientEngine) throws {
        guard try TestKafka.shared().isEmbedded else { return }
        let broker = try BrokerProcess()
        let plain = KafkaConfiguration(bootstrapServers: broker.address)
        _ = try Admin(plain) { _ in }.createTopics([NewTopic("t", partitions: 2, replicationFactor: 1)])
        let consumer = try Consumer(engine.configuration(plain), ConsumerOptions()) { _ in }
        try consumer.assign(starts("t", 2))
        var seen: [Seen] = []
        for round in 0..<3 {
            try write(round * 100..<round * 100 + 100, to: "t", plain, partitions: 2)
            // Some of it before, some after.
            try consumer.takeUntil(&seen) { $0.count >= round * 100 + 30 }
            broker.kill()
            _ = consumer.take(&seen, timeoutMs: 50)
            try broker.restart()
            try consumer.takeUntil(&seen) { $0.count >= round * 100 + 100 }
        }
        for partition in 0..<2 as Range<Int32> {
            #expect(seen.filter { $0.partition == partition }.map(\.offset) == Array(0..<150))
        }
    }

    @Test(arguments: ClientEngine.allCases)
    func `what is deleted before it is read is said, and the partition stands still until it is sought`(
        _ engine: ClientEngine
    ) throws {
        let topic = try topic(partitions: 1)
        try write(0..<20, to: topic, configuration())
        let partition = TopicPartition(topic, 0)
        _ = try Admin(configuration()).deleteRecords(before: [(partition, offset: 12)])
        for start in [ConsumerOptions.StartWithoutCommit.earliest, .error] {
            var options = ConsumerOptions()
            options.startWithoutCommit = start
            let consumer = try Consumer(engine.configuration(configuration()), options) { _ in }
            try consumer.assign([PartitionStart(partition, at: .offset(5))])
            var (seen, places) = ([Seen](), [LostPlace]())
            try consumer.takeUntil(&seen) { event in
                guard case .lostPlace(let place) = event else { return }
                places.append(place)
                try consumer.seek([PartitionStart(partition, at: .offset(14))])
            } _: {
                $0.count == 6
            }
            #expect(seen.map(\.offset) == Array(14..<20))
            #expect(places.map(\.reason) == [.outOfRange(Watermarks(low: 12, high: 20))])
            #expect(places.map(\.position) == [5])
        }
    }

    @Test(arguments: ClientEngine.allCases)
    func `a partition that moves to another broker is followed there`(_ engine: ClientEngine) throws {
        let cluster = try MockCluster(brokers: 2)
        try cluster.createTopic("t", partitions: 2)
        for partition in 0..<2 as Range<Int32> {
            try cluster.setLeader(TopicPartition("t", partition), broker: Int(partition) + 1)
        }
        var options = ConsumerOptions()
        options.fetchWaitMs = 50
        let consumer = try Consumer(engine.configuration(cluster.configuration), options) { _ in }
        try consumer.assign(starts("t", 2))
        var seen: [Seen] = []
        for round in 0..<4 {
            try write(round * 10..<round * 10 + 10, to: "t", cluster.configuration, partitions: 2)
            try consumer.takeUntil(&seen) { $0.count >= round * 10 + 10 }
            try cluster.setLeader(TopicPartition("t", 0), broker: round % 2 == 0 ? 2 : 1)
            cluster.fail(.fetch, with: [.notLeader, .disconnect])
        }
        for partition in 0..<2 as Range<Int32> {
            #expect(seen.filter { $0.partition == partition }.map(\.offset) == Array(0..<20))
        }
    }

    @Test(arguments: ClientEngine.allCases)
    func `a consumer that may hold little reads everything, a little at a time`(_ engine: ClientEngine) throws {
        let topic = try topic(partitions: 4)
        try write(0..<8000, to: topic, configuration(), partitions: 4)
        var options = ConsumerOptions()
        options.queuedBytesMax = 2048
        options.partitionFetchBytesMax = 4096
        let consumer = try Consumer(engine.configuration(configuration()), options)
        try consumer.assign(starts(topic, 4))
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count >= 8000 }
        for partition in 0..<4 as Range<Int32> {
            #expect(seen.filter { $0.partition == partition }.map(\.offset) == Array(0..<2000))
        }
    }

    @Test func `a reader of our own fetching that only assigns needs nothing of librdkafka's`() throws {
        let topic = try topic(partitions: 1)
        try write(0..<3, to: topic, configuration())
        let consumer = try Consumer(configuration(), ConsumerOptions())
        try consumer.assign(starts(topic, 1))
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count == 3 }
        #expect(consumer.fatalError == nil)
        #expect(consumer.close(deadlineMs: 0), "there is nobody to say goodbye to")
    }

    /// The embedded broker has no transactions.
    @Test(arguments: ClientEngine.allCases)
    func `of transactions only what was committed is read`(_ engine: ClientEngine) throws {
        guard try !TestKafka.shared().isEmbedded else { return }
        let topic = try topic(partitions: 1)
        let script = """
            import sys
            from confluent_kafka import Producer
            address, topic = sys.argv[1:]
            def begin(name):
                producer = Producer({"bootstrap.servers": address, "transactional.id": topic + name})
                producer.init_transactions()
                producer.begin_transaction()
                return producer
            first, second = begin("a"), begin("b")
            for round in range(3):
                for number in range(5):
                    first.produce(topic, f"keep {round} {number}", partition=0)
                    second.produce(topic, f"drop {round} {number}", partition=0)
                first.flush(); second.flush()
                first.commit_transaction(); second.abort_transaction()
                first.begin_transaction(); second.begin_transaction()
            first.produce(topic, "undecided", partition=0)
            first.flush()
            first.abort_transaction()
            plain = Producer({"bootstrap.servers": address})
            plain.produce(topic, "end", partition=0)
            plain.flush()
            """
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let process = Process()
        process.executableURL = root.appending(path: ".venv/bin/python")
        process.arguments = ["-c", script, try TestKafka.shared().address, topic]
        try process.run()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        var options = ConsumerOptions()
        options.reportsEndOfPartition = true
        let consumer = try Consumer(engine.configuration(configuration()), options)
        try consumer.assign(starts(topic, 1))
        var (seen, isAtEnd) = ([Seen](), false)
        try consumer.takeUntil(&seen) { event in
            if case .endOfPartition = event { isAtEnd = true }
        } _: {
            isAtEnd && $0.last?.value == "end"
        }
        #expect(seen.dropLast().map(\.value) == (0..<3).flatMap { round in (0..<5).map { "keep \(round) \($0)" } })
    }
}
