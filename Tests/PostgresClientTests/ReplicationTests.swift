import PostgresClient
import TestSupport
import Testing
import Wire

@Suite struct ReplicationTests {
    @Test func `a position reads and prints as Postgres does`() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "0/15E9F38"] { #expect(LSN(text)?.description == text) }
        for text in ["", "/", "1/", "/1", "1/2/3", "g/0", "123456789/0", "-1/0", "+1/0 "] { #expect(LSN(text) == nil) }
        #expect(LSN("1/0")! > LSN("0/FFFFFFFF")!)
    }

    @Test func `a slot's snapshot and its stream meet without gap or overlap`() throws {
        let database = try PostgresCluster.shared().freshDatabase()
        var postgres = try PostgresConnection(database)
        try postgres.execute(
            "CREATE TABLE t (a int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t; INSERT INTO t VALUES (1)")

        var replication = try ReplicationConnection(database)
        let system = try replication.identifySystem()
        #expect(UInt64(system.systemID) != nil && system.position > .zero)
        let slot = "fanout_\(UInt32.random(in: 0 ... .max))"
        let created = try replication.createSlot(slot)
        try postgres.execute("INSERT INTO t VALUES (2)")

        try postgres.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        let snapshot = try #require(created.snapshotName)
        try postgres.execute("SET TRANSACTION SNAPSHOT \(SQL.literal(snapshot))")
        #expect(try postgres.query("SELECT count(*), max(a) FROM t").int(0, 0) == 1)
        try postgres.execute("COMMIT")

        try replication.start(
            slot: slot, options: [("proto_version", "1"), ("publication_names", "p")])
        var kinds = ""
        let complete = try eventually {
            while case .message(let message) = try replication.next() {
                // 'w' and 24 bytes of positions and time go before the plugin's message.
                if message.bytes[0] == UInt8(ascii: "w") {
                    kinds.unicodeScalars.append(Unicode.Scalar(message.bytes[25]))
                }
            }
            return kinds.count >= 4
        }
        #expect(complete && kinds == "BRIC")
        try replication.sendStatus(written: system.position, flushed: .zero, nowMs: 0, replyRequested: true)
        let answered = try eventually {
            guard case .message(let message) = try replication.next() else { return false }
            return message.bytes[0] == UInt8(ascii: "k")
        }
        #expect(answered)
        try postgres.query("SELECT pg_terminate_backend($1::int)", [.int(Int64(replication.backendPID))])
        let error = #expect(throws: PostgresError.self) {
            while true { _ = try replication.next() }
        }
        #expect(error?.isTransient == true)
        _ = try eventually {
            try postgres.query("SELECT active FROM pg_replication_slots WHERE slot_name = $1", [.text(slot)]).bool(0, 0)
                == false
        }
        try postgres.query("SELECT pg_drop_replication_slot($1)", [.text(slot)])
    }

    @Test func `what the server refuses in replication comes as its error`() throws {
        var replication = try ReplicationConnection(PostgresCluster.shared().freshDatabase())
        let missing = #expect(throws: PostgresError.self) {
            try replication.start(slot: "missing", options: [("proto_version", "1")])
        }
        #expect(missing?.sqlState == "42704")
        let isGood = replication.isGood
        #expect(isGood)
        #expect(throws: PostgresError.self) { try replication.createSlot("no such plugin!") }
    }
}
