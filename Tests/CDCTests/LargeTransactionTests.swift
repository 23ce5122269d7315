import Foundation
import PostgresClient
import System
import TestSupport
import Testing
import Wire

@testable import CDC

/// Transactions that the server sends while they are under way.
@Suite struct LargeTransactionTests {
    private func messages(_ spilled: SpilledTransactions, _ xid: UInt32) throws -> [String] {
        var messages: [String] = []
        try spilled.commit(xid) { messages.append(String(showing: $0)) }
        return messages
    }

    private func append(_ spilled: SpilledTransactions, _ text: String, of xid: UInt32) throws {
        try spilled.append(text.utf8.span, of: xid)
    }

    @Test func `parts of several transactions come back whole, without what was rolled back`() throws {
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        let spilled = SpilledTransactions(directory: directory + "/spill")
        for part in 0..<3 {
            for xid: UInt32 in [10, 20, 30] {
                try spilled.start(xid)
                try append(spilled, "I\(xid) part \(part)", of: xid)
                try append(spilled, "Isub \(part)", of: xid + 1)
                // What a table looks like outlives the subtransaction that brought it up.
                try append(spilled, "R\(part)", of: xid + 1)
                try spilled.stop()
            }
        }
        spilled.abort(10, 11)
        spilled.abort(30, 30)
        #expect(spilled.count == 2 && spilled.bytes > 0)
        #expect(try messages(spilled, 30).isEmpty)
        #expect(try messages(spilled, 10) == (0..<3).flatMap { ["I10 part \($0)", "R\($0)"] })
        #expect(try messages(spilled, 20) == (0..<3).flatMap { ["I20 part \($0)", "Isub \($0)", "R\($0)"] })
        #expect(spilled.count == 0 && spilled.bytes == 0)
        #expect(try Directory.list(directory + "/spill").isEmpty)
        spilled.close()
        #expect(!File.exists(directory + "/spill"))
    }

    @Test func `messages of any length come back as they were, and what a crash has left is gone`() throws {
        var random = SeededGenerator.announced("spilled messages")
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        try Directory.create(directory + "/spill")
        try File.replaceAtomically(directory + "/spill/7", with: [1, 2, 3])
        let spilled = SpilledTransactions(directory: directory + "/spill")
        var wanted: [[UInt8]] = []
        for part in 0..<40 {
            try spilled.start(7)
            for _ in 0..<Int.random(in: 0...20, using: &random) {
                let count = Int.random(in: 0...(part == 20 ? 600_000 : 20_000), using: &random)
                let message = [UInt8(ascii: "I")] + [UInt8](repeating: UInt8(part), count: count)
                wanted.append(message)
                try spilled.append(message.span, of: 7)
            }
            try spilled.stop()
        }
        var found: [[UInt8]] = []
        try spilled.commit(7) { found.append([UInt8](copying: $0)) }
        #expect(found == wanted)
    }

    @Test
    func
        `a large transaction is on our disk before it commits, in the topic after, and nowhere when it is rolled back`()
        throws
    {
        let cluster = try PostgresCluster(settings: ["logical_decoding_work_mem": "64kB"])
        let setup = try Setup(database: cluster.freshDatabase(), kafka: TestKafka.shared().address)
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        var configuration = setup.configuration
        configuration.spillDirectory = directory
        let cdc = RunningCDC(configuration)
        #expect(cdc.waitFor("streaming"))
        var other = try PostgresConnection(setup.database)
        for ending in ["ROLLBACK", "COMMIT"] {
            try setup.postgres.execute("BEGIN")
            try setup.postgres.execute(
                "INSERT INTO keyed SELECT gen_random_uuid(), 'large', repeat('x', 500) FROM generate_series(1, 5000)")
            try setup.postgres.execute("SAVEPOINT s")
            try setup.postgres.execute(
                "INSERT INTO whole SELECT g, 'gone', g FROM generate_series(1, 5000) g; DELETE FROM keyed WHERE note = 'large'"
            )
            try setup.postgres.execute("ROLLBACK TO s")
            try setup.postgres.execute("INSERT INTO whole SELECT g, 'kept', g FROM generate_series(1, 3000) g")
            // What is small goes by meanwhile.
            try other.execute("INSERT INTO keyed VALUES (gen_random_uuid(), 'small')")
            #expect(eventually { (cdc.value("fanout_cdc_spilled_bytes") ?? 0) > 1_000_000 }, "\(cdc.text)")
            let before = try FoldedTopic(setup.topic, kafka: setup.kafka)
            #expect(before.rows.values.allSatisfy { ($0["note"] as? String) == "small" })
            try setup.postgres.execute(ending)
            let position = try RandomTables.position(&setup.postgres)
            #expect(try eventually { try setup.confirmed() >= position }, "\(cdc.text)")
            #expect(eventually { cdc.value("fanout_cdc_spilled_bytes") == 0 })
        }
        let folded = try FoldedTopic(setup.topic, kafka: setup.kafka)
        expectSame(folded.rows, try RandomTables.rows(&setup.postgres), "after the commit: \(cdc.text)")
        #expect(folded.rows.count == 8002)
        #expect(cdc.stop() == nil)
        #expect(try Directory.list(directory).isEmpty)
    }
}
