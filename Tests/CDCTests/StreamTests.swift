import Foundation
import PostgresClient
import TestSupport
import Testing

/// The real command against a real Postgres and the embedded broker.
@Suite struct StreamTests {
    @Test func `snapshot and stream together hold what the tables hold`() throws {
        var random = SeededGenerator.announced("snapshot and stream")
        let setup = try Setup()
        for _ in 0..<20 { try RandomTables.change(&setup.postgres, &random) }
        let cdc = try setup.start()
        for _ in 0..<60 { try RandomTables.change(&setup.postgres, &random) }
        try setup.expectTrue("after 80 transactions")
        #expect(cdc.terminate() == 0)
        // What is confirmed is not sent again.
        let before = try FoldedTopic(setup.topic, kafka: setup.kafka).recordCount
        let again = try setup.start()
        #expect(again.waitForOutput("streaming"))
        try setup.postgres.execute("INSERT INTO keyed VALUES (gen_random_uuid(), 'one more')")
        try setup.expectTrue("after a restart")
        let after = try FoldedTopic(setup.topic, kafka: setup.kafka).recordCount
        #expect(after == before + 1)
    }

    @Test func `values that come in binary make the topic that their text would`() throws {
        var random = SeededGenerator.announced("binary")
        let setup = try Setup()
        for _ in 0..<10 { try RandomTables.change(&setup.postgres, &random) }
        let cdc = try setup.start(["--binary"])
        for _ in 0..<60 { try RandomTables.change(&setup.postgres, &random) }
        try setup.expectTrue("in binary")
        #expect(cdc.terminate() == 0)
    }

    @Test func `columns may be added, renamed and dropped in mid-stream`() throws {
        let setup = try Setup()
        let cdc = try setup.start()
        #expect(cdc.waitForOutput("streaming"))
        try setup.postgres.execute("INSERT INTO keyed VALUES ('00000000-0000-4000-8000-000000000001', 'a')")
        try setup.postgres.execute("ALTER TABLE keyed ADD extra int DEFAULT 7; ALTER TABLE keyed RENAME note TO remark")
        try setup.postgres.execute(
            "INSERT INTO keyed (id, remark) VALUES ('00000000-0000-4000-8000-000000000002', 'b')")
        try setup.postgres.execute("ALTER TABLE keyed DROP COLUMN big")
        try setup.postgres.execute(
            "INSERT INTO keyed (id, remark) VALUES ('00000000-0000-4000-8000-000000000003', 'c')")
        let position = try RandomTables.position(&setup.postgres)
        #expect(try eventually { try RandomTables.isCaughtUp(&setup.postgres, slot: setup.slot, to: position) })
        let rows = try FoldedTopic(setup.topic, kafka: setup.kafka).rows
        let names = (1...3).map { number in
            Set((rows[#"{"id":"00000000-0000-4000-8000-00000000000\#(number)"}"#]?.allKeys as? [String]) ?? [])
        }
        #expect(
            names == [
                ["id", "note", "big", "at"], ["id", "remark", "big", "at", "extra"], ["id", "remark", "at", "extra"],
            ])
    }

    @Test func `a second process waits as a standby and takes over`() throws {
        let setup = try Setup()
        let first = try setup.start()
        #expect(first.waitForOutput("streaming"))
        let second = try FanoutProcess(setup.arguments)
        defer { second.kill() }
        #expect(second.waitForOutput("standby"))
        try setup.postgres.execute("INSERT INTO keyed VALUES (gen_random_uuid(), 'by the first')")
        try setup.expectTrue("by the first")
        first.kill()
        #expect(second.waitForOutput("streaming"))
        try setup.postgres.execute("INSERT INTO keyed VALUES (gen_random_uuid(), 'by the second')")
        setup.cdc = nil
        try setup.expectTrue("by the second")
    }

    @Test func `a lost slot is noticed: read again and delete what is gone, or stop with status 4`() throws {
        var random = SeededGenerator.announced("lost slot")
        let setup = try Setup()
        for _ in 0..<20 { try RandomTables.change(&setup.postgres, &random) }
        #expect(try setup.start().waitForOutput("streaming"))
        try setup.expectTrue("at first")
        #expect(setup.cdc?.terminate() == 0)
        try setup.dropSlot()
        try setup.postgres.execute("DELETE FROM whole WHERE a % 2 = 0; DELETE FROM keyed WHERE note <> 'x'")
        let refusing = try setup.start(["--resnapshot", "never"])
        #expect(refusing.waitForExit() == 4)
        #expect(
            refusing.text.contains("slot is gone") && refusing.text.contains("--resnapshot auto"), "\(refusing.text)")
        let reading = try setup.start()
        #expect(reading.waitForOutput("streaming", seconds: 60), "\(reading.text)")
        try setup.expectTrue("after the slot was dropped")

        // Somebody made it again: nothing shows but the position.
        #expect(reading.terminate() == 0)
        try setup.dropSlot()
        try setup.postgres.execute("DELETE FROM whole WHERE a % 3 = 0")
        try setup.postgres.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [.text(setup.slot)])
        let again = try setup.start()
        #expect(again.waitForOutput("streaming", seconds: 60), "\(again.text)")
        #expect(again.text.contains("made anew"))
        try setup.expectTrue("after the slot was made anew")
    }

    @Test func `one table is read again while changes are streamed`() throws {
        let setup = try Setup()
        #expect(try setup.start().waitForOutput("streaming"))
        // A table that joins the publication later: its old rows are only in the table.
        try setup.postgres.execute("ALTER PUBLICATION p DROP TABLE keyed")
        try setup.postgres.execute("INSERT INTO keyed SELECT gen_random_uuid(), 'old' FROM generate_series(1, 500)")
        try setup.postgres.execute(
            "ALTER PUBLICATION p ADD TABLE keyed; INSERT INTO keyed VALUES (gen_random_uuid(), 'new')")
        let common = ["cdc", "snapshot", "--postgres", setup.database, "--slot", setup.slot, "--publication", "p"]
        let asked = try FanoutProcess.run(common + ["--table", "keyed"])
        #expect(asked.status == 0, "\(asked.text) \(setup.cdc?.text ?? "")")
        try setup.expectTrue("after the snapshot")
        let missing = try FanoutProcess.run(common + ["--table", "nothing"])
        #expect(missing.status == 1 && missing.text.contains("no table public.nothing"))
    }

    @Test func `an interrupted snapshot goes on where it was`() throws {
        var random = SeededGenerator.announced("interrupted snapshot")
        let setup = try Setup()
        try setup.postgres.execute(
            """
            INSERT INTO whole SELECT g, 'b', g, 1.5, true, now(), 1, repeat('x', 500) FROM generate_series(1, 20000) g;
            INSERT INTO keyed SELECT gen_random_uuid(), 'x', repeat('y', 500) FROM generate_series(1, 20000) g
            """)
        let first = try setup.start()
        #expect(first.waitForOutput("table=public.whole"))
        first.kill()
        for _ in 0..<30 { try RandomTables.change(&setup.postgres, &random) }
        let second = try setup.start()
        #expect(second.waitForOutput("streaming", seconds: 60), "\(second.text)")
        for _ in 0..<10 { try RandomTables.change(&setup.postgres, &random) }
        try setup.expectTrue("\(second.text)")
        #expect(!second.text.contains("first start"))
    }
}
