import Foundation
import PostgresClient
import TestSupport
import Testing

/// What is not set up is one line that says what to run.
@Suite struct BadInputTests {
    @Test func `each thing that is missing is told with what to run`() throws {
        let setup = try Setup()
        let base = [
            "cdc", "--postgres", setup.database, "--kafka", setup.kafka, "--slot", setup.slot, "--own-tables", "no",
        ]
        let cases: [(arguments: [String], wanted: [String])] = [
            (
                ["--table", "keyed=\(setup.topic):id", "--publication", "none"],
                ["no publication none", "CREATE PUBLICATION"]
            ),
            (["--table", "nothing=\(setup.topic):id", "--publication", "p"], ["no table public.nothing"]),
            (
                ["--table", "keyed=\(setup.topic):note", "--publication", "p"],
                ["not in the replica identity", "REPLICA IDENTITY FULL"]
            ),
            (["--table", "keyed=\(setup.topic):none", "--publication", "p"], ["has no column none"]),
            (["--table", "keyed=no topic:id", "--publication", "p"], ["cannot use Kafka", "topic"]),
            (["--publication", "p"], ["no table is given"]),
        ]
        for (arguments, wanted) in cases {
            let result = try FanoutProcess.run(base + arguments)
            #expect(result.status == 1, "\(arguments): \(result.text)")
            for text in wanted { #expect(result.text.contains(text), "\(arguments): \(result.text)") }
            #expect(result.text.split(separator: "\n").count { $0.contains("error") } == 1, "\(result.text)")
        }
        try setup.postgres.execute("CREATE TABLE unpublished (id int PRIMARY KEY)")
        let unpublished = try FanoutProcess.run(
            base + ["--publication", "p", "--table", "unpublished=\(setup.topic):id"])
        #expect(unpublished.text.contains(#"ALTER PUBLICATION "p" ADD TABLE "public"."unpublished""#))
        for arguments in [["--table", "keyed"], ["--table", "keyed=x"], ["--slot", "No-Slot"], ["elsewhere"]] {
            let result = try FanoutProcess.run(base + arguments)
            #expect(result.status == 2, "\(arguments): \(result.text)")
        }
    }

    @Test func `a server that is not made for it says how to make it so`() throws {
        let kafka = try TestKafka.shared()
        let cluster = try PostgresCluster(settings: [
            "wal_level": "replica", "max_replication_slots": "0", "max_wal_senders": "0",
        ])
        let database = try cluster.freshDatabase(migrated: true)
        let level = try FanoutProcess.run(["cdc", "--postgres", database, "--kafka", kafka.address])
        #expect(level.status == 1 && level.text.contains("ALTER SYSTEM SET wal_level = logical"), "\(level.text)")

        let shared = try PostgresCluster.shared()
        let other = try shared.freshDatabase(migrated: true)
        var postgres = try PostgresConnection(other)
        let role = "weak\(UInt32.random(in: 0 ... .max))"
        try postgres.execute("CREATE ROLE \(role) LOGIN")
        let weak = other.replacing("user=postgres", with: "user=\(role)")
        let right = try FanoutProcess.run(["cdc", "--postgres", weak, "--kafka", kafka.address])
        #expect(right.status == 1 && right.text.contains("ALTER ROLE \"\(role)\" REPLICATION"), "\(right.text)")
        try postgres.execute("DROP ROLE \(role)")
    }

    @Test func `what may not be read is told before a slot is made`() throws {
        let setup = try Setup()
        let role = "reader\(UInt32.random(in: 0 ... .max))"
        try setup.postgres.execute("CREATE ROLE \(role) LOGIN REPLICATION; GRANT SELECT ON whole TO \(role)")
        defer { _ = try? setup.postgres.execute("DROP OWNED BY \(role); DROP ROLE \(role)") }
        var arguments = setup.arguments
        arguments[2] = setup.database.replacing("user=postgres", with: "user=\(role)")
        func refused(_ wanted: [String]) throws {
            let result = try FanoutProcess.run(arguments)
            #expect(result.status == 1, "\(result.text)")
            for text in wanted { #expect(result.text.contains(text), "\(result.text)") }
            #expect(try setup.slotCount() == 0)
        }
        try refused(["may not read table public.keyed", #"GRANT SELECT ON "public"."keyed" TO "\#(role)""#])
        try setup.postgres.execute("GRANT SELECT ON keyed TO \(role); ALTER TABLE keyed ENABLE ROW LEVEL SECURITY")
        try refused(["row security hides rows of public.keyed", #"ALTER ROLE "\#(role)" BYPASSRLS"#])
        let function = "FUNCTION pg_logical_emit_message(boolean, text, text)"
        try setup.postgres.execute(
            "ALTER TABLE keyed DISABLE ROW LEVEL SECURITY; REVOKE EXECUTE ON \(function) FROM PUBLIC")
        try refused(["may not execute pg_logical_emit_message"])
        try setup.postgres.execute("GRANT EXECUTE ON \(function) TO \(role)")
        let cdc = try FanoutProcess(arguments)
        defer { cdc.kill() }
        #expect(cdc.waitForOutput("streaming"), "\(cdc.text)")
    }

    @Test func `a first start that fails for good takes its slot away, and the next begins as the first`() throws {
        let setup = try Setup()
        // Found by nothing but reading the rows.
        try setup.postgres.execute(
            """
            INSERT INTO whole (a, b) VALUES (0, 'x'), (1, 'y');
            ALTER PUBLICATION p SET TABLE whole WHERE (1 / a > 0), keyed
            """)
        let failed = try FanoutProcess.run(setup.arguments)
        #expect(failed.status == 1 && failed.text.contains("division by zero"), "\(failed.text)")
        #expect(try failed.text.contains("dropped the slot") && setup.slotCount() == 0, "\(failed.text)")
        try setup.postgres.execute("ALTER PUBLICATION p SET TABLE whole, keyed")
        #expect(try setup.start().waitForOutput("streaming"))
        #expect(setup.cdc?.text.contains("first start") == true, "\(setup.cdc?.text ?? "")")
        try setup.expectTrue("after a failed start")
    }

    @Test func `no free slot is told before anything is tried`() throws {
        let kafka = try TestKafka.shared()
        let cluster = try PostgresCluster(settings: ["max_replication_slots": "1"])
        let database = try cluster.freshDatabase(migrated: true)
        var postgres = try PostgresConnection(database)
        try postgres.execute("SELECT pg_create_logical_replication_slot('other', 'pgoutput')")
        let result = try FanoutProcess.run(["cdc", "--postgres", database, "--kafka", kafka.address])
        #expect(result.status == 1 && result.text.contains("replication slots are in use"), "\(result.text)")
    }
}
