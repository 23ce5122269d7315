import KafkaClient
import Testing

@Suite struct AdminTests {
    @Test func `watermarks of many partitions take few requests`() throws {
        let cluster = try MockCluster(brokers: 2)
        try cluster.createTopic("a", partitions: 1200)
        try cluster.createTopic("b", partitions: 3)
        try write(["1", "2", "3"], to: "b", cluster.configuration, partition: 1)
        let admin = try Admin(cluster.configuration)
        #expect(try admin.partitionCounts(of: ["b", "a"]) == [3, 1200])
        // Each answer takes 40 ms: one request a partition would take minutes.
        try cluster.setLatency(broker: 1, milliseconds: 40)
        try cluster.setLatency(broker: 2, milliseconds: 40)
        let partitions = (0..<1200).map { TopicPartition("a", $0) } + (0..<3).map { TopicPartition("b", $0) }
        let start = ContinuousClock.now
        let watermarks = try admin.watermarks(partitions, timeoutMs: 20_000).map { try $0.get() }
        #expect(ContinuousClock.now - start < .seconds(5))
        #expect(watermarks.count == 1203)
        #expect(watermarks[1201] == Watermarks(low: 0, high: 3))
        #expect(watermarks[1202] == Watermarks(low: 0, high: 0))
        #expect(try admin.endOffsets([TopicPartition("b", 1)]).map { try $0.get() } == [3])
    }

    @Test func `a topic that does not exist is an error of its own`() throws {
        let cluster = try MockCluster()
        let admin = try Admin(cluster.configuration)
        cluster.fail(.metadata, with: [])
        try cluster.createTopic("here", partitions: 1)
        let results = try admin.watermarks([TopicPartition("here", 0)])
        #expect(try results[0].get() == Watermarks(low: 0, high: 0))
        let error = #expect(throws: KafkaError.self) {
            _ = try admin.watermarks([TopicPartition("here", 5)], timeoutMs: 1000)
        }
        #expect(error?.code == .unknownTopicOrPartition || error?.code == .timedOut)
    }

    @Test func `committed offsets of several groups come in the order asked`() throws {
        let cluster = try MockCluster()
        try cluster.createTopic("a", partitions: 2)
        try write(["1", "2"], to: "a", cluster.configuration)
        for (group, offset) in [("first", Int64(1)), ("second", 2)] {
            let consumer = try Consumer(cluster.configuration, ConsumerOptions(groupID: group))
            try consumer.commit([CommittedOffset(TopicPartition("a", 0), offset: offset, metadata: "note")])
            #expect(consumer.close(deadlineMs: 5000))
        }
        let admin = try Admin(cluster.configuration)
        let partitions = [TopicPartition("a", 0), TopicPartition("a", 1)]
        #expect(try admin.groupOffsets("second", partitions).map(\.offset) == [2, nil])
        #expect(try admin.groupOffsets("first", partitions).map(\.offset) == [1, nil])
        #expect(try admin.groupOffsets("nobody", partitions).map(\.offset) == [nil, nil])
    }

    @Test func `nobody at the other end is an error within the timeout`() throws {
        var configuration = KafkaConfiguration(bootstrapServers: "127.0.0.1:1")
        try configuration.set("socket.connection.setup.timeout.ms", to: "1000")
        let admin = try Admin(configuration) { _ in }
        let start = ContinuousClock.now
        #expect(throws: KafkaError.self) { try admin.metadata(timeoutMs: 300) }
        #expect(throws: KafkaError.self) { try admin.watermarks([TopicPartition("a", 0)], timeoutMs: 300) }
        #expect(throws: KafkaError.self) { try admin.groups(timeoutMs: 300) }
        #expect(throws: KafkaError.self) { try admin.createTopics([NewTopic("a", partitions: 1)], timeoutMs: 300) }
        #expect(ContinuousClock.now - start < .seconds(8))
        #expect(admin.close(deadlineMs: 2000))
    }
}
