import KafkaClient
import TestSupport
import Testing

@testable import Broker

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

    @Test(arguments: [([String](), [String: Int]()), (["--partitions", "2"], ["used": 2])])
    func `nobody makes a topic by using it, unless the broker is told so`(
        options: [String], made: [String: Int]
    ) throws {
        let broker = try BrokerProcess(options)
        let client = try RawClient(port: UInt16(broker.port))
        let metadata = client.ask(MetadataRequest.api.key, 1) { writer in
            writer.int32(1)
            writer.string("used")
        }
        #expect(metadata != nil)
        let admin = try Admin(KafkaConfiguration(bootstrapServers: broker.address, clientID: "test"))
        let topics = try admin.metadata().topics.filter { !$0.name.hasPrefix("__") }
        #expect(Dictionary(uniqueKeysWithValues: topics.map { ($0.name, $0.partitions.count) }) == made)
        _ = admin.close(deadlineMs: 5000)
    }
}
