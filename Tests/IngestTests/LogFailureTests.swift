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

    @Test func `a server that can write no more is not ready, says why, and ends with that error`() throws {
        let cluster = try cluster()
        var configuration = IngestConfiguration(
            instance: "test", listen: Address(host: "127.0.0.1", port: 0),
            pushListen: Address(host: "127.0.0.1", port: 0), pushHost: "127.0.0.1", pushSecret: Bench.pushSecret,
            kafka: cluster.configuration, tokens: TokenConfiguration(keys: .hs256(secret: Bench.secret)))
        configuration.limits.drainMs = 100
        let said = Guarded<[UInt8]>([])
        let log = Log(component: "chat", clock: SystemClock()) { line in said.withLock { $0 += line } }
        let server = try ChatServer(configuration, log: log, metrics: Metrics())
        let ended = Mutex<IngestError?>(nil)
        let thread = System.Thread.start(name: "server") {
            do { try server.run() } catch { ended.withLock { $0 = error as? IngestError } }
        }
        defer {
            server.stop()
            thread.join()
        }
        #expect(eventually { server.isReady })
        failForGood(cluster)
        #expect(eventually(seconds: 30) { ended.withLock { $0 } != nil })
        #expect(!server.isReady)
        #expect(ended.withLock { $0?.code } == .log)
        let text = said.withLock { String(decoding: $0, as: UTF8.self) }
        #expect(text.contains("the server cannot go on") && text.contains("OUT_OF_ORDER_SEQUENCE_NUMBER"), "\(text)")
    }

    @Test func `its process ends with a status of its own, for a supervisor to start it again`() throws {
        let cluster = try cluster()
        let process = try FanoutProcess([
            "chat", "--kafka", cluster.bootstrapServers, "--listen", "127.0.0.1:0", "--link-secret", "secret",
            "--token-key", String(repeating: "k", count: 32), "--drain", "100ms",
        ])
        let serves = process.waitForOutput("serving devices", seconds: 60)
        #expect(serves, "\(process.text)")
        failForGood(cluster)
        #expect(process.waitForExit(seconds: 60) == 5, "\(process.text)")
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
}
