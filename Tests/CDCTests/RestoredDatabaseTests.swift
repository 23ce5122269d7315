import Foundation
import PostgresClient
import TestSupport
import Testing

@testable import CDC

/// A database that is older than what the topics hold: what it lacks is deleted there only when somebody has said so.
@Suite struct RestoredDatabaseTests {
    private func expectStop(_ setup: Setup, _ database: String, _ reason: String) throws {
        let before = try FoldedTopic(setup.topic, kafka: setup.kafka).recordCount
        var arguments = setup.arguments
        arguments[2] = database
        let refused = try FanoutProcess.run(arguments)
        #expect(refused.status == 4, "\(refused.text)")
        for text in [reason, "restored from a backup", "delete from \(setup.topic)", "--accept-restored-database"] {
            #expect(refused.text.contains(text), "\(refused.text)")
        }
        #expect(try FoldedTopic(setup.topic, kafka: setup.kafka).recordCount == before)
        let accepting = try FanoutProcess(arguments + ["--accept-restored-database"])
        setup.cdc = accepting
        setup.postgres = try PostgresConnection(database)
        #expect(accepting.waitForOutput("streaming", seconds: 60), "\(accepting.text)")
        try setup.expectTrue("of the restored database")
        // Told once: it is the database that the topics hold now.
        #expect(accepting.terminate() == 0)
        let again = try FanoutProcess(arguments)
        setup.cdc = again
        #expect(again.waitForOutput("streaming", seconds: 60), "\(again.text)")
        #expect(again.terminate() == 0)
    }

    @Test
    func `a server that was restored from a backup is noticed by its timeline, also when its log has grown beyond`()
        throws
    {
        let primary = try PostgresCluster()
        let setup = try Setup(database: primary.freshDatabase(), kafka: TestKafka.shared().address)
        try setup.postgres.execute("INSERT INTO keyed SELECT gen_random_uuid(), 'kept' FROM generate_series(1, 10)")
        let backup = try PostgresCluster(standbyOf: primary)
        try backup.stop()
        #expect(try setup.start().waitForOutput("streaming"))
        try setup.postgres.execute("INSERT INTO keyed SELECT gen_random_uuid(), 'newer' FROM generate_series(1, 10)")
        try setup.expectTrue("before")
        #expect(setup.cdc?.terminate() == 0)
        let reached = try RandomTables.position(&setup.postgres)
        try primary.stop()
        try backup.start()
        try backup.promote()
        let database = backup.connectionString(database: setup.postgres.database)
        var postgres = try PostgresConnection(database)
        let hasPassed = try eventually {
            try postgres.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n; DROP TABLE t")
            return try RandomTables.position(&postgres) > reached
        }
        #expect(hasPassed)
        try expectStop(setup, database, "left timeline 1 at")
    }

    @Test func `a database that was dropped and made again is noticed`() throws {
        let cluster = try PostgresCluster()
        let setup = try Setup(database: cluster.freshDatabase(), kafka: TestKafka.shared().address)
        try setup.postgres.execute("INSERT INTO keyed SELECT gen_random_uuid(), 'x' FROM generate_series(1, 10)")
        #expect(try setup.start().waitForOutput("streaming"))
        try setup.expectTrue("before")
        #expect(setup.cdc?.terminate() == 0)
        try setup.dropSlot()
        let name = setup.postgres.database
        setup.postgres = try PostgresConnection(cluster.connectionString())
        try setup.postgres.execute("DROP DATABASE \(name) WITH (FORCE)")
        try setup.postgres.execute("CREATE DATABASE \(name)")
        var postgres = try PostgresConnection(setup.database)
        try postgres.execute(RandomTables.schema)
        try expectStop(setup, setup.database, "dropped and made again")
    }
}
