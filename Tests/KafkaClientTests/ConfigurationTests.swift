import KafkaClient
import Runtime
import Testing

@Suite struct ConfigurationTests {
    private func refusal(_ property: String) -> String? {
        var configuration = KafkaConfiguration(bootstrapServers: "localhost:9092")
        do throws(KafkaError) {
            try configuration.set(property: property)
            return nil
        } catch {
            #expect(error.code == .configuration)
            return error.message
        }
    }

    @Test func `a wrong property is one clear line at once`() {
        #expect(refusal("socket.keepalive.enable=true") == nil)
        #expect(refusal("sasl.mechanism=SCRAM-SHA-512") == nil)
        #expect(refusal("no.such.thing=1") == "no such property \"no.such.thing\"")
        #expect(refusal("linger.ms") == "expected name=value, got \"linger.ms\"")
        #expect(refusal("=1") == "expected name=value, got \"=1\"")
        #expect(refusal("linger.ms=soon")?.contains("linger.ms") == true)
    }

    @Test func `what guarantees rest on cannot be overridden`() {
        #expect(refusal("acks=1") == "acks is fixed at all: delivery guarantees rest on it")
        #expect(refusal("acks=all") == nil)
        #expect(refusal("enable.idempotence=false") != nil)
        #expect(refusal("partitioner=random") != nil)
        #expect(refusal("enable.auto.commit=true") != nil)
        #expect(refusal("group.id=mine") != nil)
        #expect(refusal("bootstrap.servers=elsewhere:9092") != nil)
    }

    @Test func `cooperative rebalancing is refused, as librdkafka 2.0.2 loses its way in it`() {
        #expect(refusal("partition.assignment.strategy=cooperative-sticky")?.contains("range or roundrobin") == true)
        #expect(refusal("partition.assignment.strategy=roundrobin") == nil)
    }

    @Test func `secrets are never printed`() throws {
        var configuration = KafkaConfiguration(bootstrapServers: "localhost:9092")
        try configuration.set(property: "sasl.password=hunter2")
        try configuration.set(property: "ssl.key.password=hunter2=hunter2")
        try configuration.set(property: "debug=broker")
        #expect(!"\(configuration)".contains("hunter2"))
        #expect("\(configuration)".contains("debug=broker"))
        #expect(refusal("ssl.key.pem=hunter2") == nil || refusal("ssl.key.pem=hunter2")?.contains("hunter2") == false)
    }

    @Test func `an operator's property wins over the default`() throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        var configuration = cluster.configuration
        try configuration.set(property: "message.max.bytes=2000")
        let producer = try Producer(configuration)
        let topic = try producer.topic("t")
        let value = [UInt8](repeating: 0, count: 5000)
        let error = #expect(throws: KafkaError.self) {
            try producer.produce(topic, partition: 0, key: nil, value: value.span, tag: 4)
        }
        #expect(error?.code == .messageTooLarge)
    }

    @Test func `small requests are not held back, and a failed fetch is soon tried again`() throws {
        let lines = Lines()
        var configuration = KafkaConfiguration(bootstrapServers: "127.0.0.1:1")
        // Makes the library tell what is not as it comes.
        try configuration.set(property: "debug=conf")
        let producer = try Producer(configuration) { lines.append($0) }
        let consumer = try Consumer(configuration, ConsumerOptions(), log: { lines.append($0) })
        let admin = try Admin(configuration) { lines.append($0) }
        producer.close(deadlineMs: 2000) { _ in }
        consumer.close(deadlineMs: 2000)
        admin.close(deadlineMs: 2000)
        func count(_ setting: String) -> Int { lines.all.count { $0.message.contains(setting) } }
        #expect(count("socket.nagle.disable = true") == 3, "\(lines.all)")
        #expect(count("fetch.error.backoff.ms = 10") == 1)
    }

    @Test func `log lines of the library go to the sink`() throws {
        let lines = Lines()
        var configuration = KafkaConfiguration(bootstrapServers: "127.0.0.1:1")
        try configuration.set(property: "debug=broker")
        let producer = try Producer(configuration) { lines.append($0) }
        producer.close(deadlineMs: 2000) { _ in }
        #expect(lines.all.contains { $0.level == .debug && $0.facility == "INIT" })
    }
}

final class Lines: Sendable {
    private let lines = Guarded<[KafkaLogLine]>([])

    var all: [KafkaLogLine] { lines.withLock { $0 } }

    func append(_ line: KafkaLogLine) { lines.withLock { $0.append(line) } }
}
