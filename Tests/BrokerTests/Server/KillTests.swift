import Foundation
import KafkaClient
import TestSupport
import Testing

/// The broker as a process that is killed in the middle of its work.
@Suite struct KillTests {
    /// What every setting of `--fsync` promises of a process that is killed; only of what a machine forgets do they differ.
    @Test(arguments: [("group", 20), ("always", 4), ("interval:50", 4), ("never", 4)])
    func `after SIGKILLs under load every acknowledged record is there once, in order`(
        fsync: String, rounds: Int
    ) throws {
        var random = SeededGenerator.announced("KillTests.\(fsync)")
        // A small journal, so that checkpoints and rotation are hit too.
        let broker = try BrokerProcess(["--journal-size", "2MiB", "--fsync", fsync])
        let ledger = try Ledger(broker.address, topic: "kill", configs: ["segment.bytes": "1000000"])
        for round in 0..<rounds {
            let end = ContinuousClock.now + .milliseconds(Int.random(in: 30...250, using: &random))
            while ContinuousClock.now < end {
                try ledger.send(200)
                ledger.poll(1)
            }
            let before = ledger.acknowledged.count
            broker.kill()
            try broker.restart()
            // It must serve again before the next round, or rounds would kill an idle broker.
            #expect(ledger.hasProgressed(since: before), "round \(round): \(broker.text)")
        }
        #expect(ledger.flush())
        #expect(ledger.acknowledged.count == ledger.sent)
        broker.kill()
        try broker.restart()
        try ledger.check()
        ledger.close()
    }

    @Test func `committed offsets and topics survive SIGKILL and SIGTERM`() throws {
        let broker = try BrokerProcess()
        let configuration = KafkaConfiguration(bootstrapServers: broker.address, clientID: "test")
        var admin = try Admin(configuration)
        _ = try admin.createTopics([NewTopic("kept", partitions: 3, configs: ["retention.ms": "123456789"])])
        for round in 1...4 {
            let offsets = (0..<3).map {
                CommittedOffset(
                    TopicPartition("kept", Int32($0)), offset: Int64(round * 10 + $0), metadata: "note \(round)")
            }
            try admin.setGroupOffsets("group", offsets)
            if round % 2 == 0 { broker.kill() } else { broker.terminate() }
            try broker.restart()
            admin.close(deadlineMs: 1000)
            admin = try Admin(configuration)
            #expect(try admin.partitionCounts(of: ["kept"]) == [3])
            let found = try admin.groupOffsets("group", (0..<3).map { TopicPartition("kept", Int32($0)) })
            #expect(found.compactMap(\.offset).sorted() == offsets.map(\.offset))
            #expect(Set(found.map(\.metadata)) == ["note \(round)"])
        }
        admin.close(deadlineMs: 1000)
    }

    @Test func `a second broker is refused the data directory, and keeps off other networks`() throws {
        let broker = try BrokerProcess()
        let second = try FanoutProcess.run([
            "broker", "--data", broker.directory, "--listen", "127.0.0.1:0",
        ])
        #expect(second.status == 1)
        #expect(second.text.contains("in use by another broker"))
        let exposed = try FanoutProcess.run([
            "broker", "--data", broker.directory + "-other", "--listen", "0.0.0.0:0",
        ])
        #expect(exposed.status == 1)
        #expect(exposed.text.contains("--insecure-listen"))
        try? FileManager.default.removeItem(atPath: broker.directory + "-other")
    }
}
