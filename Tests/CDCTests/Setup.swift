import Foundation
import PostgresClient
import TestSupport
import Testing

/// A database with two tables, a topic for both, and the command that keeps it true to them.
final class Setup {
    let kafka: String
    let database: String
    let topic = TestKafka.unique("tables")
    let slot = "s\(UInt32.random(in: 0 ... .max))"
    var cdc: FanoutProcess?
    var postgres: PostgresConnection

    init(database: String, kafka: String, partitions: Int = 3) throws {
        self.kafka = kafka
        self.database = database
        try createTopic(topic, partitions: partitions, kafka: kafka)
        postgres = try PostgresConnection(database)
        try postgres.execute(RandomTables.schema)
    }

    convenience init() throws {
        try self.init(database: PostgresCluster.shared().freshDatabase(), kafka: TestKafka.shared().address)
    }

    /// So that the server that all tests share keeps no log for it.
    deinit {
        cdc?.kill()
        try? dropSlot()
    }

    /// The server may take a moment to notice that nobody reads it any more.
    func dropSlot(_ other: String? = nil) throws {
        let slot = other ?? slot
        let isGone = try eventually(seconds: 10) {
            try postgres.query(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active",
                [.text(slot)])
            return try postgres.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = $1", [.text(slot)]).isEmpty
        }
        #expect(isGone)
    }

    func slotCount() throws -> Int64? {
        try postgres.query("SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", [.text(slot)]).int(0, 0)
    }

    var arguments: [String] {
        ["cdc", "--postgres", database, "--kafka", kafka, "--slot", slot] + RandomTables.routes(topic)
    }

    @discardableResult
    func start(_ more: [String] = []) throws -> FanoutProcess {
        let process = try FanoutProcess(arguments + more)
        cdc = process
        return process
    }

    /// Waits until everything committed so far is in the topic, then compares it with the tables.
    func expectTrue(_ what: String, seconds: Double = 60, sourceLocation: SourceLocation = #_sourceLocation) throws {
        // Before that the slot's position is where it was made, which says nothing of the snapshot.
        let isStreaming = cdc?.waitForOutput("streaming slot", seconds: seconds) ?? true
        #expect(isStreaming, "\(what): \(cdc?.text ?? "")", sourceLocation: sourceLocation)
        let position = try RandomTables.position(&postgres)
        let isCaughtUp = try eventually(seconds: seconds) {
            try RandomTables.isCaughtUp(&postgres, slot: slot, to: position)
        }
        #expect(isCaughtUp, "\(what): \(cdc?.text ?? "")", sourceLocation: sourceLocation)
        let folded = try FoldedTopic(topic, kafka: kafka)
        expectSame(
            folded.rows, try RandomTables.rows(&postgres),
            "\(what) (\(folded.recordCount) records, \(folded.operations)): \(cdc?.text ?? "")")
    }
}
