import KafkaClient
import TestSupport
import Testing

@Suite struct EmbeddedBrokerTests {
    @Test func `a topic can be made and has its partitions`() throws {
        let kafka = try TestKafka.start()
        let admin = try Admin(KafkaConfiguration(bootstrapServers: kafka.address, clientID: "test"))
        let topic = TestKafka.unique("topic")
        let outcomes = try admin.createTopics([NewTopic(topic, partitions: 7)])
        #expect(outcomes.map(\.error) == [nil])
        #expect(try admin.partitionCounts(of: [topic]) == [7])
        _ = admin.close(deadlineMs: 5000)
        kafka.stop()
    }
}
