import Foundation
import KafkaClient
import System
import TestSupport
import Testing
import Wire

/// A record as a test made it, or found it.
private struct WrittenRecord: Equatable {
    var key: [UInt8]?
    var value: [UInt8]?
    var headers: [(name: String, value: [UInt8]?)]
    var timestampMs: Int64

    init(key: [UInt8]?, value: [UInt8]?, headers: [(name: String, value: [UInt8]?)], timestampMs: Int64) {
        (self.key, self.value, self.headers, self.timestampMs) = (key, value, headers, timestampMs)
    }

    init(_ message: borrowing Message) {
        key = if let key = message.key { [UInt8](copying: key) } else { nil }
        value = if let value = message.value { [UInt8](copying: value) } else { nil }
        timestampMs = message.timestampMs
        var found: [(name: String, value: [UInt8]?)] = []
        message.forEachHeader { name, value in
            if let value { found.append((name, [UInt8](copying: value))) } else { found.append((name, nil)) }
        }
        headers = found
    }

    static func == (left: Self, right: Self) -> Bool {
        left.key == right.key && left.value == right.value && left.timestampMs == right.timestampMs
            && left.headers.elementsEqual(right.headers) { $0.name == $1.name && $0.value == $1.value }
    }
}

/// What the mock cluster cannot do, against a real log: the embedded broker, or Apache Kafka by `FANOUT_TEST_KAFKA`.
@Suite struct BrokerTests {
    private func admin() throws -> Admin {
        try Admin(KafkaConfiguration(bootstrapServers: TestKafka.shared().address))
    }

    private func configuration() throws -> KafkaConfiguration {
        KafkaConfiguration(bootstrapServers: try TestKafka.shared().address)
    }

    @Test func `topics are made, described, changed, grown and deleted, each with an answer of its own`() throws {
        let admin = try admin()
        let (one, two) = (TestKafka.unique("one"), TestKafka.unique("two"))
        let made = try admin.createTopics([
            NewTopic(one, partitions: 3, replicationFactor: 1, configs: ["cleanup.policy": "compact"]),
            NewTopic(two, partitions: 1, replicationFactor: 1),
        ])
        #expect(made.map(\.name).sorted() == [one, two].sorted())
        #expect(made.allSatisfy { $0.error == nil })
        #expect(try admin.partitionCounts(of: [two, one]) == [1, 3])
        let metadata = try admin.metadata()
        #expect(metadata.topics.first { $0.name == one }?.partitions.map(\.id) == [0, 1, 2])
        #expect(!metadata.brokers.isEmpty)

        let again = try admin.createTopics([
            NewTopic(one, partitions: 3, replicationFactor: 1),
            NewTopic("not a name!", partitions: 1, replicationFactor: 1),
        ])
        #expect(again.first { $0.name == one }?.error?.code == .topicAlreadyExists)
        #expect(again.first { $0.name != one }?.error?.code == .invalidArgument)

        let fresh = TestKafka.unique("valid")
        let valid = try admin.createTopics([NewTopic(fresh, partitions: 1, replicationFactor: 1)], validateOnly: true)
        #expect(valid.first?.error == nil)
        #expect(try !admin.metadata().topics.contains { $0.name == fresh })

        try admin.setTopicConfigs(one, ["retention.ms": "1234567"])
        let configs = try admin.topicConfigs([one])[0].1.get().filter(\.isSetOnTopic)
        #expect(configs.first { $0.name == "retention.ms" }?.value == "1234567")
        #expect(configs.first { $0.name == "cleanup.policy" }?.value == "compact", "other settings stay")

        #expect(try admin.growTopics([(two, 4)])[0].error == nil)
        #expect(eventually { (try? admin.partitionCounts(of: [two])) == [4] })
        #expect(try admin.growTopics([(two, 2)])[0].error != nil)

        #expect(try admin.deleteTopics([one, two]).allSatisfy { $0.error == nil })
        #expect(try admin.deleteTopics([TestKafka.unique("none")])[0].error?.code == .unknownTopicOrPartition)
        #expect(admin.close(deadlineMs: 5000))
    }

    @Test func `groups are listed, described, rewound and deleted`() throws {
        let admin = try admin()
        let topic = TestKafka.unique("t")
        let group = TestKafka.unique("g")
        _ = try admin.createTopics([NewTopic(topic, partitions: 2, replicationFactor: 1)])
        try write(["a", "b", "c"], to: topic, configuration())
        var options = ConsumerOptions(groupID: group)
        options.groupInstanceID = "member-1"
        let consumer = try Consumer(configuration(), options)
        try consumer.subscribe([topic])
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { event in
            if case .assigned(let partitions) = event {
                try consumer.assign(partitions.map { PartitionStart($0, at: .committed) })
            }
        } _: {
            $0.count == 3
        }
        try consumer.commit([CommittedOffset(TopicPartition(topic, 0), offset: 2, metadata: "note")])

        #expect(try admin.groups().contains { $0.id == group && $0.state == .stable })
        let description = try #require(try admin.describeGroups([group]).first).1.get()
        #expect(description.state == .stable && description.assignor == "range")
        #expect(description.members.first?.groupInstanceID == "member-1")
        #expect(description.members.first?.partitions == [TopicPartition(topic, 0), TopicPartition(topic, 1)])
        #expect(try admin.deleteGroups([group])[0].error?.code == .groupNotEmpty)
        #expect(consumer.close(deadlineMs: 10_000))

        let offsets = try admin.groupOffsets([group, TestKafka.unique("nobody")])
        #expect(
            try offsets[0].1.get().filter { $0.offset != nil } == [
                try #require(try admin.groupOffsets(group, [TopicPartition(topic, 0)]).first)
            ])
        #expect(try offsets[0].1.get().first { $0.offset != nil }?.metadata == "note")
        #expect(try offsets[1].1.get().allSatisfy { $0.offset == nil })
    }

    @Test(arguments: ClientEngine.allCases)
    func `a second member takes over half, and what was committed is not read again`(_ engine: ClientEngine) throws {
        let topic = TestKafka.unique("shared")
        _ = try admin().createTopics([NewTopic(topic, partitions: 2, replicationFactor: 1)])
        for partition in 0..<2 as Range<Int32> {
            try write(["a", "b"], to: topic, configuration(), partition: partition)
        }
        var options = ConsumerOptions(groupID: TestKafka.unique("group"))
        options.sessionTimeoutMs = 6000
        options.heartbeatIntervalMs = 200
        let first = try Consumer(engine.configuration(configuration()), options)
        try first.subscribe([topic])
        var events: [String] = []
        var held: Set<TopicPartition> = []
        func answer(_ consumer: Consumer, _ held: inout Set<TopicPartition>, _ event: ConsumerEvent) throws {
            switch event {
            case .assigned(let partitions):
                held = Set(partitions)
                try consumer.assign(partitions.map { PartitionStart($0, at: .committed) })
            case .revoked(let partitions, let lost):
                events.append("revoked \(partitions.count)\(lost ? " lost" : "")")
                held = []
                try consumer.unassign()
            case .error(let error, _): Issue.record("\(error)")
            default: break
            }
        }
        var seen: [Seen] = []
        try first.takeUntil(&seen, onEvent: { try answer(first, &held, $0) }) { $0.count == 4 }
        #expect(held.count == 2)
        try first.commit(held.map { CommittedOffset($0, offset: 2) })

        let second = try Consumer(engine.configuration(configuration()), options)
        try second.subscribe([topic])
        var more: [Seen] = []
        var heldBySecond: Set<TopicPartition> = []
        let end = ContinuousClock.now + .seconds(60)
        while held.count != 1 || heldBySecond.count != 1 {
            if let event = first.take(&more, timeoutMs: 50) { try answer(first, &held, event) }
            if let event = second.take(&more, timeoutMs: 50) { try answer(second, &heldBySecond, event) }
            try #require(ContinuousClock.now < end, "no balance: \(held) \(heldBySecond)")
        }
        #expect(more == [], "committed records are not read again")
        #expect(held.isDisjoint(with: heldBySecond))
        #expect(events.first == "revoked 2")
        #expect(second.close(deadlineMs: 10_000))
        #expect(first.close(deadlineMs: 10_000))
    }

    @Test func `offsets are found by time, and records deleted`() throws {
        let admin = try admin()
        let topic = TestKafka.unique("t")
        _ = try admin.createTopics([NewTopic(topic, partitions: 1, replicationFactor: 1)])
        let producer = try Producer(configuration())
        let handle = try producer.topic(topic)
        // Today's, which retention leaves alone.
        let startMs = SystemClock().wallMs - 3_600_000
        for index in 0..<10 as Range<Int64> {
            _ = try producer.produce(
                handle, partition: 0, key: nil, value: [1].span, headers: RecordHeaders(),
                timestampMs: startMs + index * 1000, tag: 0)
            #expect(producer.flush(deadlineMs: 10_000) { _ in })
        }
        let partition = TopicPartition(topic, 0)
        let found = try admin.offsets(at: [(partition, timestampMs: startMs + 4500)])
        #expect(try found[0].get() == 5)
        #expect(try admin.offsets(at: [(partition, timestampMs: startMs + 1_000_000_000)])[0].get() == nil)
        let consumer = try Consumer(configuration(), ConsumerOptions())
        #expect(try consumer.offsets(at: [(partition, timestampMs: startMs + 4500)]) == [5])
        #expect(try consumer.watermarks(partition) == Watermarks(low: 0, high: 10))
        let deleted = try admin.deleteRecords(before: [(partition, offset: 4)])
        #expect(try deleted[0].1.get() == 4)
        #expect(try consumer.watermarks(partition) == Watermarks(low: 4, high: 10))
    }

    @Test func `the lag of many groups and partitions takes few requests`() throws {
        let admin = try admin()
        let topic = TestKafka.unique("many")
        _ = try admin.createTopics([NewTopic(topic, partitions: 500, replicationFactor: 1)])
        let partitions = (0..<500).map { TopicPartition(topic, $0) }
        let groups = (0..<10).map { _ in TestKafka.unique("g") }
        for group in groups {
            let consumer = try Consumer(configuration(), ConsumerOptions(groupID: group))
            try consumer.commit(partitions.map { CommittedOffset($0, offset: 0) }, timeoutMs: 20_000)
            #expect(consumer.close(deadlineMs: 5000))
        }
        let start = ContinuousClock.now
        let answers = try admin.groupOffsets(groups, timeoutMs: 20_000)
        let ends = try admin.endOffsets(partitions, timeoutMs: 20_000)
        // One request a group and partition would be five thousand.
        #expect(ContinuousClock.now - start < .seconds(10))
        #expect(answers.map(\.group) == groups)
        #expect(try answers.allSatisfy { try $0.1.get().count { $0.offset == 0 } == 500 })
        #expect(try ends.allSatisfy { try $0.get() == 0 })
    }

    @Test(arguments: ClientEngine.allCases)
    func `a broker that is killed and comes back loses nothing that was acknowledged, and order is kept`(
        _ engine: ClientEngine
    ) throws {
        guard try TestKafka.shared().isEmbedded else { return }
        let broker = try BrokerProcess()
        let configuration = KafkaConfiguration(bootstrapServers: broker.address)
        let admin = try Admin(configuration) { _ in }
        _ = try admin.createTopics([NewTopic("t", partitions: 2, replicationFactor: 1)])
        var options = ProducerOptions()
        options.deliveryTimeoutMs = 0
        let producer = try ResendingProducer(engine.configuration(configuration), options) { _ in }
        let topic = try producer.topic("t")
        var acknowledged: Set<UInt64> = []
        var failures: [KafkaError] = []
        let note: (DeliveryReport) -> Void = { report in
            if let error = report.error { failures.append(error) } else { acknowledged.insert(report.tag) }
        }
        var tag: UInt64 = 0
        for round in 0..<4 {
            for _ in 0..<500 {
                tag += 1
                let value = Array("\(tag)".utf8)
                while try producer.produce(
                    topic, partition: Int32(tag % 2), key: nil, value: value.span, tag: tag) == .queueFull
                { try producer.poll(timeoutMs: 100, note) }
            }
            try producer.poll(timeoutMs: 20, note)
            if round < 3 {
                broker.kill()
                try broker.restart()
            }
        }
        #expect(try producer.flush(deadlineMs: 60_000, note))
        #expect(failures == [])
        #expect(acknowledged.count == 2000)
        let consumer = try Consumer(configuration, ConsumerOptions()) { _ in }
        try consumer.assign((0..<2).map { PartitionStart(TopicPartition("t", $0), at: .beginning) })
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { Set($0.map(\.value)).count == 2000 }
        for partition in 0..<2 as Range<Int32> {
            var kept: [Int] = []
            for value in seen.filter({ $0.partition == partition }).compactMap({ Int($0.value ?? "") })
            where value > (kept.last ?? -1) { kept.append(value) }
            #expect(kept.count == 1000)
        }
    }

    @Test(arguments: ClientEngine.allCases)
    func `producers that outlive the broker's directory share no id with newer ones: what is acknowledged is there`(
        _ engine: ClientEngine
    ) throws {
        guard try TestKafka.shared().isEmbedded else { return }
        let broker = try BrokerProcess()
        let configuration = try engine.configuration(KafkaConfiguration(bootstrapServers: broker.address))
        func makeTopic() throws {
            let admin = try Admin(configuration) { _ in }
            _ = try admin.createTopics([NewTopic("t", partitions: 1, replicationFactor: 1)])
        }
        func producers(_ count: Int) throws -> [(producer: ResendingProducer, topic: ProducerTopic)] {
            try (0..<count).map { _ in
                let producer = try ResendingProducer(configuration) { _ in }
                return (producer, try producer.topic("t"))
            }
        }
        var tag: UInt64 = 0
        var places: [UInt64: Int64] = [:]
        /// Each writes one record a request.
        func write(_ count: Int, by writers: [(producer: ResendingProducer, topic: ProducerTopic)]) throws {
            for _ in 0..<count {
                for writer in writers {
                    tag += 1
                    let value = Array("\(tag)".utf8)
                    let taken = try writer.producer.produce(
                        writer.topic, partition: 0, key: nil, value: value.span, tag: tag)
                    #expect(taken == .queued)
                    let isFlushed = try writer.producer.flush(deadlineMs: 30_000) { report in
                        #expect(report.succeeded)
                        places[report.tag] = report.offset ?? -1
                    }
                    #expect(isFlushed)
                }
            }
        }
        try makeTopic()
        let old = try producers(4)
        try write(5, by: old)
        broker.kill()
        try FileManager.default.removeItem(atPath: broker.directory)
        places = [:]
        try broker.restart()
        try makeTopic()
        try write(10, by: try producers(4))
        try write(5, by: old)
        #expect(places.count == 60)
        let consumer = try Consumer(configuration, ConsumerOptions()) { _ in }
        try consumer.assign([PartitionStart(TopicPartition("t", 0), at: .beginning)])
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count >= 60 }
        let kept = Dictionary(uniqueKeysWithValues: seen.map { ($0.offset, $0.value ?? "") })
        for (tag, offset) in places { #expect(kept[offset] == "\(tag)") }
    }

    @Test(arguments: ClientEngine.allCases)
    func `connections that are cut again and again lose no record, and repeat and reorder none`(
        _ engine: ClientEngine
    ) throws {
        guard try TestKafka.shared().isEmbedded else { return }
        let broker = try BrokerProcess()
        let configuration = KafkaConfiguration(bootstrapServers: broker.address)
        _ = try Admin(configuration) { _ in }.createTopics([NewTopic("t", partitions: 2, replicationFactor: 1)])
        var options = ProducerOptions()
        options.deliveryTimeoutMs = 0
        let producer = try ResendingProducer(engine.configuration(configuration), options) { _ in }
        let topic = try producer.topic("t")
        var random = SeededGenerator.announced(#function)
        var (reported, cuts) = ([UInt64](), 0)
        for round in 0..<40 as Range<UInt64> {
            for tag in round * 50..<round * 50 + 50 {
                let value = Array("\(tag)".utf8)
                #expect(
                    try producer.produce(topic, partition: Int32(tag % 2), key: nil, value: value.span, tag: tag)
                        == .queued)
            }
            try producer.poll(timeoutMs: Int.random(in: 0...10, using: &random)) { reported.append($0.tag) }
            if Bool.random(using: &random) { cuts += try ForeignConnections.cut(of: broker.pid) }
        }
        #expect(try producer.flush(deadlineMs: 60_000) { reported.append($0.tag) })
        #expect(cuts > 0)
        #expect(reported.sorted() == Array(0..<2000))
        let consumer = try Consumer(configuration, ConsumerOptions()) { _ in }
        try consumer.assign((0..<2).map { PartitionStart(TopicPartition("t", $0), at: .beginning) })
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count >= 2000 }
        for partition in 0..<2 as Range<Int32> {
            let values = seen.filter { $0.partition == partition }.compactMap { Int($0.value ?? "") }
            #expect(values == (0..<1000).map { $0 * 2 + Int(partition) })
        }
        #expect(producer.replacementCount == 0)
    }

    @Test(arguments: ClientEngine.allCases)
    func `records are read as they were written: key, value, headers, time, none and empty`(
        _ engine: ClientEngine
    ) throws {
        let topic = TestKafka.unique("t")
        _ = try admin().createTopics([NewTopic(topic, partitions: 1, replicationFactor: 1)])
        let producer = try ResendingProducer(engine.configuration(configuration())) { _ in }
        let handle = try producer.topic(topic)
        try producer.warmUp(topics: [topic])
        var random = SeededGenerator.announced(#function)
        // Of today: what is older than the topic's retention is deleted before it can be read.
        let nowMs = SystemClock().wallMs
        func bytes() -> [UInt8]? {
            Int.random(in: 0..<5, using: &random) == 0
                ? nil : (0..<Int.random(in: 0..<300, using: &random)).map { _ in .random(in: 0...255, using: &random) }
        }
        var written: [WrittenRecord] = []
        var offsets: [Int64] = []
        for tag in 0..<500 as Range<UInt64> {
            let record = WrittenRecord(
                key: bytes(), value: bytes(),
                headers: (0..<Int.random(in: 0..<3, using: &random)).map { ("h\($0)", bytes()) },
                timestampMs: nowMs + Int64.random(in: -5000...5000, using: &random))
            var headers = RecordHeaders()
            for (name, value) in record.headers { headers.append(name, value?.span) }
            #expect(
                try producer.produce(
                    handle, partition: 0, key: record.key?.span, value: record.value?.span, headers: headers,
                    timestampMs: record.timestampMs, tag: tag) == .queued)
            written.append(record)
            if tag % 50 == 0 { try producer.poll { offsets.append($0.offset ?? -1) } }
        }
        #expect(try producer.flush(deadlineMs: 10_000) { offsets.append($0.offset ?? -1) })
        #expect(offsets == Array(0..<500))
        var options = ConsumerOptions()
        options.checksCRCs = true
        let consumer = try Consumer(engine.configuration(configuration()), options)
        try consumer.assign([PartitionStart(TopicPartition(topic, 0), at: .beginning)])
        var read: [WrittenRecord] = []
        let end = ContinuousClock.now + .seconds(20)
        while read.count < 500, ContinuousClock.now < end {
            let batch = consumer.poll(timeoutMs: 100)
            for index in 0..<batch.count { read.append(WrittenRecord(batch[index])) }
        }
        #expect(read == written)
    }

    @Test func `a topic that takes only small batches gets its records one by one, and refuses what is too large`()
        throws
    {
        let topic = TestKafka.unique("small")
        _ = try admin().createTopics([
            NewTopic(topic, partitions: 1, replicationFactor: 1, configs: ["max.message.bytes": "2000"])
        ])
        let producer = try ResendingProducer(configuration()) { _ in }
        let handle = try producer.topic(topic)
        try producer.warmUp(topics: [topic])
        for tag in 0..<20 as Range<UInt64> {
            let value = [UInt8](repeating: UInt8(tag), count: tag == 7 ? 3000 : 500)
            #expect(try producer.produce(handle, partition: 0, key: nil, value: value.span, tag: tag) == .queued)
        }
        var reports: [DeliveryReport] = []
        #expect(try producer.flush(deadlineMs: 10_000) { reports.append($0) })
        #expect(reports.filter { !$0.succeeded }.map(\.tag) == [7])
        #expect(reports.first { !$0.succeeded }?.error?.code == .messageTooLarge)
        #expect(reports.filter(\.succeeded).map(\.offset) == (0..<19).map { $0 })
        #expect(producer.replacementCount == 0)
    }

    @Test func `records to a topic that is made later wait for it; to one that never is, they are refused in time`()
        throws
    {
        let topic = TestKafka.unique("soon")
        var options = ProducerOptions()
        options.deliveryTimeoutMs = 1500
        let producer = try ResendingProducer(configuration(), options) { _ in }
        let (soon, never) = (try producer.topic(topic), try producer.topic(TestKafka.unique("never")))
        #expect(try producer.produce(soon, key: [1].span, value: [1].span, tag: 0) == .queued)
        try producer.poll { _ in Issue.record("nothing can be known yet") }
        _ = try admin().createTopics([NewTopic(topic, partitions: 3, replicationFactor: 1)])
        var reports: [DeliveryReport] = []
        #expect(try producer.flush(deadlineMs: 10_000) { reports.append($0) })
        #expect(reports.map(\.succeeded) == [true])
        #expect(try producer.produce(never, key: [1].span, value: [1].span, tag: 1) == .queued)
        #expect(try producer.flush(deadlineMs: 20_000) { reports.append($0) })
        #expect(reports.last?.tag == 1)
        #expect(reports.last?.succeeded == false)
    }

    @Test func `a topic that is made after the subscription is read`() throws {
        let topic = TestKafka.unique("later")
        var configuration = try configuration()
        try configuration.set("topic.metadata.refresh.interval.ms", to: "300")
        let consumer = try Consumer(configuration, ConsumerOptions(groupID: TestKafka.unique("g"))) { _ in }
        try consumer.subscribe([topic])
        var seen: [Seen] = []
        _ = consumer.take(&seen, timeoutMs: 1000)
        let admin = try admin()
        _ = try admin.createTopics([NewTopic(topic, partitions: 2, replicationFactor: 1)])
        try write(["a"], to: topic, configuration, partition: 1)
        try consumer.takeUntil(&seen) { event in
            switch event {
            case .assigned(let partitions):
                try consumer.assign(partitions.map { PartitionStart($0, at: .committed) })
            case .revoked: try consumer.unassign()
            default: break
            }
        } _: {
            $0.count == 1
        }
        #expect(seen.first?.partition == 1)
    }
}
