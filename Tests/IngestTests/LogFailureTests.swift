import Foundation
import Ingest
import KafkaClient
import Runtime
import Synchronization
import System
import TestSupport
import Testing
import WebSocket
import Wire

/// A log that takes nothing.
@Suite(.serialized) struct LogFailureTests {
    /// A log whose writers can be made to fail for good.
    private func cluster() throws -> MockCluster {
        let cluster = try MockCluster()
        for topic in Topic.allCases { try cluster.createTopic(Names()[topic], partitions: 1) }
        return cluster
    }

    private func failForGood(_ cluster: MockCluster) {
        cluster.fail(.produce, with: Array(repeating: .outOfOrderSequence, count: 1000))
    }

    @Test func `a server whose writes are refused for good stays, is not ready, and comes back by itself`() throws {
        let cluster = try cluster()
        var configuration = IngestConfiguration(
            instance: "test", listen: Address(host: "127.0.0.1", port: 0),
            pushListen: Address(host: "127.0.0.1", port: 0), pushHost: "127.0.0.1", pushSecret: Bench.pushSecret,
            kafka: cluster.configuration, tokens: TokenConfiguration(keys: .hs256(secret: Bench.secret)))
        configuration.limits.drainMs = 100
        let said = Guarded<[UInt8]>([])
        let log = Log(component: "chat", clock: SystemClock()) { line in said.withLock { $0 += line } }
        let server = try ChatServer(configuration, log: log, metrics: Metrics())
        let hasEnded = Mutex(false)
        let thread = System.Thread.start(name: "server") {
            try? server.run()
            hasEnded.withLock { $0 = true }
        }
        defer {
            server.stop()
            thread.join()
        }
        #expect(eventually { server.isReady })
        failForGood(cluster)
        let text = { said.withLock { String(decoding: $0, as: UTF8.self) } }
        #expect(eventually(seconds: 30) { text().contains("the log takes nothing from this server") }, "\(text())")
        #expect(eventually(seconds: 30) { !server.isReady })
        #expect(server.health.look().text.contains("log: the log acknowledges nothing that is written"))
        #expect(server.health.look().isAlive)
        #expect(text().contains("OUT_OF_ORDER_SEQUENCE_NUMBER"), "\(text())")
        cluster.stopFailing(.produce)
        #expect(eventually(seconds: 30) { server.isReady }, "\(text())")
        #expect(!hasEnded.withLock { $0 })
    }

    @Test func `a log that is full or gone gets senders told to try again, and takes no more memory`() throws {
        let log = try BrokerProcess()
        let bench = try Bench(kafka: KafkaConfiguration(bootstrapServers: log.address)) {
            $0.limits.logQueueRecords = 20
        }
        let device = try bench.device(UserID.random(), scopes: "bot")
        try bench.wait("in") { device.frames("hello").count == 1 }
        log.kill()
        for _ in 0..<100 {
            device.send(#"{"type":"send","id":"\#(MessageID.random())","chat":"\#(ChatID.random())","text":"x"}"#)
        }
        try bench.wait("what has no room is refused at once") { device.frames("error").count >= 75 }
        #expect(
            device.frames("error").allSatisfy {
                $0.contains(#""code":"overloaded""#) && $0.contains("retry_after_ms")
            })
        try bench.wait("its queue shows") { bench.metric("fanout_ingest_log_queue") >= 20 }
        #expect(device.frames("sent").isEmpty)
        try log.restart()
        try bench.wait("the rest is written", seconds: 40) {
            device.frames("sent").count + device.frames("error").count == 100
        }
        #expect(device.frames("sent").count > 0)
    }

    @Test func `a server that outlives the log's directory announces itself in the new log within seconds`() throws {
        let log = try BrokerProcess()
        let bench = try Bench(kafka: KafkaConfiguration(bootstrapServers: log.address))
        let instances = bench.names[.instances]
        log.kill()
        try FileManager.default.removeItem(atPath: log.directory)
        try log.restart()
        let admin = try Admin(bench.kafka) { _ in }
        let topics = Topic.allCases.map { NewTopic(bench.names[$0], partitions: $0 == .instances ? 1 : 4) }
        _ = try admin.createTopics(topics)
        // Servers that were started since, whose counts of records are ahead.
        for number in 0..<8 {
            let producer = try ResendingProducer(bench.kafka) { _ in }
            let topic = try producer.topic(instances)
            let key = Array("other\(number)".utf8)
            for tag in 0..<100 as Range<UInt64> {
                #expect(try producer.produce(topic, partition: 0, key: key.span, value: [1].span, tag: tag) == .queued)
                #expect(try producer.flush(deadlineMs: 10_000) { _ in })
            }
        }
        let consumer = try Consumer(bench.kafka, ConsumerOptions()) { _ in }
        try consumer.assign([PartitionStart(TopicPartition(instances, 0), at: .end)])
        var announcements = 0
        try bench.wait("it announces itself", seconds: 20) {
            let batch = consumer.poll(timeoutMs: 10)
            for index in 0..<batch.count {
                let message = batch[index]
                if let key = message.key, [UInt8](copying: key) == Array("test".utf8) { announcements += 1 }
            }
            return announcements >= 3
        }
    }
}
