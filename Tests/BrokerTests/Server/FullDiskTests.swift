import Foundation
import KafkaClient
import TestSupport
import Testing

@testable import Broker

/// The broker on a disk that is full: it says so, keeps what it has acknowledged, and goes on when there is room.
@Suite struct FullDiskTests {
    /// Half a mebibyte: something small may still fit the last page of a file on a full disk.
    private static let large = Batches.batch(
        values: [String](repeating: String(repeating: "y", count: 1000), count: 500))
    private static let storageError: Int16 = 56

    /// How often it has said that there is no room.
    private func reports(of broker: BrokerProcess) -> Int {
        broker.text.components(separatedBy: "No space left").count - 1
    }

    /// An OffsetCommit that needs more than a page.
    private func commit(_ writer: inout ResponseWriter) {
        writer.string("filler")
        writer.int32(-1)
        writer.string("")
        writer.int64(-1)
        writer.array(["other"]) { writer, topic in
            writer.string(topic)
            writer.array([Int32](repeating: 0, count: 3)) { writer, partition in
                writer.int32(partition)
                writer.int64(1)
                writer.nullableString(String(repeating: "z", count: 4000))
            }
        }
    }

    private func disk() throws -> SmallDisk? {
        let disk = try SmallDisk(megabytes: 48)
        if disk == nil { print("skipped: a small file system cannot be mounted here; that takes root") }
        return disk
    }

    @Test func `with the disk full, producers wait and readers read, and with room again nothing was lost`() throws {
        guard let disk = try disk() else { return }
        let broker = try BrokerProcess(
            ["--journal-size", "1MiB"], directory: disk.directory + "/data")
        let ledger = try Ledger(broker.address, topic: "full", configs: ["segment.bytes": "1000000"], recordBytes: 1000)
        let admin = try Admin(KafkaConfiguration(bootstrapServers: broker.address, clientID: "test"))
        _ = try admin.createTopics([NewTopic("other", partitions: 1)])
        try admin.setGroupOffsets("group", [CommittedOffset(TopicPartition("other", 0), offset: 7, metadata: "kept")])
        for round in 0..<3 {
            // It runs full under load, at another place in the journal and the segments each time.
            let reported = reports(of: broker)
            try disk.fill(leaving: 600 + 700 * round)
            let isFull = try eventually(seconds: 60) {
                try ledger.send(50, inFlightMax: 1000)
                ledger.poll(5)
                return reports(of: broker) > reported
            }
            #expect(isFull, "\(broker.text)")
            try disk.fill()
            let peer = try RawClient(port: UInt16(broker.port))
            #expect(peer.produce("other", Self.large)?.error == Self.storageError)
            // What it has, it tells, and new clients are let in.
            #expect(peer.ask(18, 0) != nil)
            #expect(try admin.groupOffsets("group", [TopicPartition("other", 0)]).first?.offset == 7)
            try ledger.check()
            // Whatever becomes of these, they are answered.
            #expect(peer.ask(8, 2, commit) != nil)
            _ = try? admin.createTopics([NewTopic("late\(round)", partitions: 1)])
            let before = ledger.acknowledged.count
            try disk.clear()
            #expect(ledger.hasProgressed(since: before), "\(broker.text)")
            #expect(ledger.flush(), "round \(round): \(ledger.failures) failed: \(broker.text.suffix(3000))")
            #expect(peer.produce("other", Self.large)?.error == 0)
        }
        #expect(ledger.acknowledged.count == ledger.sent)
        try ledger.check()
        broker.kill()
        try broker.restart()
        try ledger.check()
        #expect(try admin.groupOffsets("group", [TopicPartition("other", 0)]).first?.metadata == "kept")
        ledger.close()
        admin.close(deadlineMs: 2000)
    }

    @Test func `a broker that is killed with the disk full starts when there is room, with all that it acknowledged`()
        throws
    {
        guard let disk = try disk() else { return }
        let broker = try BrokerProcess(
            ["--journal-size", "1MiB"], directory: disk.directory + "/data")
        let ledger = try Ledger(broker.address, topic: "full", configs: ["segment.bytes": "1000000"], recordBytes: 1000)
        try disk.fill(leaving: 1500)
        let isFull = try eventually(seconds: 60) {
            try ledger.send(50, inFlightMax: 1000)
            ledger.poll(5)
            return reports(of: broker) > 0
        }
        #expect(isFull, "\(broker.text)")
        try disk.fill()
        broker.kill()
        // It may need more than there is; then it says so and ends, and nothing is worse than before.
        do {
            try broker.restart()
            broker.kill()
        } catch let failure as BrokerProcess.Failure {
            #expect(failure.description.contains("No space left"), "\(failure)")
        }
        let before = ledger.acknowledged.count
        try disk.clear()
        try broker.restart()
        #expect(ledger.hasProgressed(since: before), "\(broker.text)")
        #expect(ledger.flush(), "\(ledger.failures) failed: \(broker.text.suffix(3000))")
        try ledger.check()
        ledger.close()
    }
}
