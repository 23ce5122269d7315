import Foundation
import KafkaClient
import PostgresClient
import TestSupport
import Testing
import Wire

@testable import CDC

/// What DDL does to a table that is followed, each kind against a real Postgres: docs/cdc-schema-changes.md, tried.
@Suite struct SchemaChangeTests {
    struct Change: Sendable, CustomTestStringConvertible {
        var name: String
        /// Each its own transaction.
        var sql: [String]
        /// Whether the table cannot be followed from here on, until it is mended.
        var mend: [String] = []

        var testDescription: String { name }
    }

    static let insert =
        "INSERT INTO pp VALUES (10, 'ten'); UPDATE pp SET v = v || '!' WHERE id = 1; DELETE FROM pp WHERE id = 2"

    static let changes: [Change] = [
        Change(
            name: "the key is dropped for a moment",
            sql: [
                """
                BEGIN; ALTER TABLE pp DROP CONSTRAINT pp_pkey; INSERT INTO pp VALUES (10, 'ten');
                ALTER TABLE pp ADD PRIMARY KEY (id); COMMIT
                """
            ]),
        Change(
            name: "a key column has another name for a moment",
            sql: [
                "ALTER TABLE pp RENAME id TO number", "INSERT INTO pp VALUES (10, 'ten')",
                "ALTER TABLE pp RENAME number TO id",
            ]),
        Change(
            name: "the key is dropped, and made again later",
            sql: ["ALTER TABLE pp DROP CONSTRAINT pp_pkey", "INSERT INTO pp VALUES (10, 'ten')"],
            mend: ["ALTER TABLE pp ADD PRIMARY KEY (id)"]),
        Change(
            name: "the key is dropped, and whole old rows are logged in its place",
            sql: ["ALTER TABLE pp DROP CONSTRAINT pp_pkey", "INSERT INTO pp VALUES (10, 'ten')"],
            mend: ["ALTER TABLE pp REPLICA IDENTITY FULL", insert.replacing("10", with: "11")]),
        Change(
            name: "a key column is renamed, and renamed back",
            sql: ["ALTER TABLE pp RENAME id TO number", "INSERT INTO pp VALUES (10, 'ten')"],
            mend: ["ALTER TABLE pp RENAME number TO id", "DELETE FROM pp WHERE id = 10"]),
        Change(
            name: "the key is of another type",
            sql: [
                "ALTER TABLE pp ALTER id TYPE text",
                "INSERT INTO pp VALUES ('10', 'ten'); DELETE FROM pp WHERE id = '2'",
            ]),
        Change(
            name: "the table leaves the publication and comes back at once",
            sql: [
                "BEGIN; ALTER PUBLICATION p DROP TABLE pp; COMMIT", insert, "ALTER PUBLICATION p ADD TABLE pp",
            ]),
        Change(
            name: "the table leaves the publication and comes back later",
            sql: ["ALTER PUBLICATION p DROP TABLE pp", insert], mend: ["ALTER PUBLICATION p ADD TABLE pp"]),
        Change(
            name: "the publication has only some rows of the table, and other ones later",
            sql: [
                "ALTER PUBLICATION p SET TABLE whole, keyed, pp WHERE (id > 1)",
                "INSERT INTO pp VALUES (0, 'hidden'), (10, 'shown')", "ALTER PUBLICATION p SET TABLE whole, keyed, pp",
            ]),
        Change(
            name: "the table is dropped and made again at once",
            sql: [
                """
                BEGIN; DROP TABLE pp; CREATE TABLE pp (id int PRIMARY KEY, v text);
                ALTER PUBLICATION p ADD TABLE pp; INSERT INTO pp VALUES (1, 'another'), (10, 'ten'); COMMIT
                """
            ]),
        Change(
            name: "the table is dropped and made again later", sql: ["DROP TABLE pp"],
            mend: [
                "CREATE TABLE pp (id int PRIMARY KEY, v text); INSERT INTO pp VALUES (1, 'another')",
                "ALTER PUBLICATION p ADD TABLE pp", "INSERT INTO pp VALUES (10, 'ten')",
            ]),
        Change(
            name: "the table has another name for a moment",
            sql: [
                "ALTER TABLE pp RENAME TO qq", insert.replacing("pp", with: "qq"), "ALTER TABLE qq RENAME TO pp",
            ]),
        Change(
            name: "the table is renamed, and renamed back",
            sql: ["ALTER TABLE pp RENAME TO qq", insert.replacing("pp", with: "qq")],
            mend: ["ALTER TABLE qq RENAME TO pp"]),
        Change(
            name: "another table takes its place",
            sql: [
                "CREATE TABLE nn (id int PRIMARY KEY, v text); INSERT INTO nn VALUES (1, 'new'), (10, 'ten')",
                "BEGIN; ALTER TABLE pp RENAME TO old; ALTER TABLE nn RENAME TO pp; ALTER PUBLICATION p ADD TABLE pp; COMMIT",
                "INSERT INTO pp VALUES (11, 'eleven')",
            ]),
        Change(
            name: "the table moves to another schema, and back",
            sql: [
                "CREATE SCHEMA elsewhere; ALTER TABLE pp SET SCHEMA elsewhere",
                insert.replacing("pp", with: "elsewhere.pp"),
            ],
            mend: ["ALTER TABLE elsewhere.pp SET SCHEMA public"]),
        Change(name: "the table is truncated", sql: ["TRUNCATE pp", "INSERT INTO pp VALUES (10, 'ten')"]),
        Change(
            name: "columns are added, dropped, renamed and of another type",
            sql: [
                "ALTER TABLE pp ADD extra int", "INSERT INTO pp VALUES (10, 'ten', 7)", "ALTER TABLE pp DROP extra",
                insert.replacing("10", with: "11"), "ALTER TABLE pp RENAME v TO w; UPDATE pp SET w = 'w'",
                "ALTER TABLE pp RENAME w TO v", "ALTER TABLE pp ALTER v TYPE varchar(100); UPDATE pp SET v = 'v'",
            ]),
        Change(
            name: "the right to read is taken, which only reading a table whole needs",
            sql: ["REVOKE SELECT ON pp FROM reader", insert, "GRANT SELECT ON pp TO reader"]),
        Change(
            name: "the right to read is missing when the table must be read whole",
            sql: [
                "REVOKE SELECT ON pp FROM reader; ALTER PUBLICATION p DROP TABLE pp", insert,
                "ALTER PUBLICATION p ADD TABLE pp",
            ], mend: ["GRANT SELECT ON pp TO reader"]),
    ]

    /// Two tables that nothing happens to, a third, and CDC.
    final class Scene {
        let setup: Setup
        let topic = TestKafka.unique("pp")
        var cdc: RunningCDC?
        var configuration: CDCConfiguration

        init(_ table: String = "CREATE TABLE pp (id int PRIMARY KEY, v text)") throws {
            setup = try Setup()
            try createTopic(topic, partitions: 3, kafka: setup.kafka)
            try setup.postgres.execute("\(table); ALTER PUBLICATION p ADD TABLE pp")
            try setup.postgres.execute("INSERT INTO pp VALUES (1, 'one'), (2, 'two'), (3, 'three')")
            configuration = setup.configuration
            configuration.routes.append(TableRoute(table: "pp", topic: topic, key: ["id"]))
        }

        func start() { cdc = RunningCDC(configuration) }

        func stop() {
            #expect(cdc?.stop() == nil, "\(cdc?.text ?? "")")
            cdc = nil
        }

        var text: String { cdc?.text ?? "" }

        func run(_ statements: [String]) throws { for sql in statements { try setup.postgres.execute(sql) } }

        func rows() throws -> [String: String] {
            let rows = try setup.postgres.query("SELECT id::text, v FROM pp")
            return Dictionary(uniqueKeysWithValues: (0..<rows.rowCount).map { (rows.text($0, 0)!, rows.text($0, 1)!) })
        }

        /// The topic folded: of each key its row's `v`.
        func topicRows() throws -> [String: String] {
            var rows: [String: String] = [:]
            for (key, row) in try FoldedTopic(topic, kafka: setup.kafka).rows {
                let id = "\(row["id"] ?? "none")"
                if rows[id] != nil { Issue.record("two keys of row \(id): \(key)") }
                rows[id] = row["v"] as? String
            }
            return rows
        }

        /// Whether the tables that nothing happened to are followed at this moment.
        func expectOthersFollowed(_ what: String) throws {
            try setup.postgres.execute("INSERT INTO keyed VALUES (gen_random_uuid(), 'meanwhile')")
            let position = try RandomTables.position(&setup.postgres)
            #expect(try eventually { try setup.confirmed() >= position }, "\(what): \(text)")
            expectSame(
                try FoldedTopic(setup.topic, kafka: setup.kafka).rows, try RandomTables.rows(&setup.postgres),
                "\(what): \(text)")
        }

        func expectTrue(_ what: String) throws {
            try setup.postgres.execute("INSERT INTO pp VALUES (100, 'last')")
            let wanted = try rows()
            let isTrue = try eventually { try topicRows() == wanted }
            #expect(try isTrue || topicRows() == wanted, "\(what): the table has \(wanted): \(text)")
            #expect(try eventually { try setup.note()?.aside.isEmpty == true }, "\(what): \(text)")
            #expect(eventually { self.cdc?.value("fanout_cdc_topics_aside") == 0 && self.cdc?.isReady == true })
            try expectOthersFollowed(what)
        }
    }

    @Test(arguments: changes)
    func `while CDC follows, a change of a table stops no other, and nothing is missing afterwards`(change: Change)
        throws
    {
        let scene = try Scene()
        try prepare(scene)
        scene.start()
        #expect(scene.cdc?.waitFor("streaming") == true, "\(scene.text)")
        try scene.run(change.sql)
        if !change.mend.isEmpty {
            #expect(try eventually { try scene.setup.note()?.aside.map(\.topic) == [scene.topic] }, "\(scene.text)")
            #expect(eventually { scene.cdc?.value("fanout_cdc_topics_aside") == 1 && scene.cdc?.isReady == false })
            #expect(scene.text.contains("its topic is put aside") && scene.text.contains("public.pp"), "\(scene.text)")
            try scene.expectOthersFollowed("aside")
            // A restart changes nothing of it.
            scene.stop()
            scene.start()
            try scene.expectOthersFollowed("aside after a restart")
            #expect(try scene.setup.note()?.aside.first?.table.contains("public.pp") == true)
            try scene.run(change.mend)
        }
        try scene.expectTrue(change.name)
        scene.stop()
    }

    @Test(arguments: changes)
    func `while CDC is away, a change of a table is seen when it comes back`(change: Change) throws {
        let scene = try Scene()
        try prepare(scene)
        scene.start()
        #expect(scene.cdc?.waitFor("streaming") == true, "\(scene.text)")
        try scene.expectTrue("before")
        scene.stop()
        try scene.run(["DELETE FROM pp WHERE id = 100"] + change.sql + change.mend)
        scene.start()
        try scene.expectTrue(change.name)
        scene.stop()
    }

    @Test func `partitions of a table come and go with their rows`() throws {
        let scene = try Scene(
            """
            CREATE TABLE pp (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
            CREATE TABLE low PARTITION OF pp FOR VALUES FROM (0) TO (50);
            CREATE TABLE high PARTITION OF pp FOR VALUES FROM (50) TO (1000);
            ALTER PUBLICATION p SET (publish_via_partition_root = true)
            """)
        scene.start()
        try scene.expectTrue("at first")
        try scene.run(["ALTER TABLE pp DETACH PARTITION low; DELETE FROM pp WHERE id = 100"])
        try scene.expectTrue("without the detached rows")
        try scene.run([
            "INSERT INTO low VALUES (10, 'ten'); ALTER TABLE pp ATTACH PARTITION low FOR VALUES FROM (0) TO (50)",
            "DELETE FROM pp WHERE id = 100",
        ])
        try scene.expectTrue("with the attached rows")
        #expect(try scene.rows()["10"] == "ten")
        scene.stop()
        // Published by its partitions, the table itself is not.
        try scene.setup.postgres.execute("ALTER PUBLICATION p SET (publish_via_partition_root = false)")
        scene.start()
        #expect(scene.cdc?.waitFor("SET (publish_via_partition_root = true)") == true, "\(scene.text)")
        try scene.setup.postgres.execute("ALTER PUBLICATION p SET (publish_via_partition_root = true)")
        try scene.setup.postgres.execute("DELETE FROM pp WHERE id = 100")
        try scene.expectTrue("published whole again")
        scene.stop()
    }

    @Test func `a chat's version is not told while the table of its members cannot be followed`() throws {
        let kafka = try TestKafka.shared().address
        let database = try PostgresCluster.shared().freshDatabase(migrated: true)
        let (members, users) = (TestKafka.unique("members"), TestKafka.unique("users"))
        for topic in [members, users] { try createTopic(topic, partitions: 3, kafka: kafka) }
        var configuration = CDCConfiguration(
            postgres: database, kafka: KafkaConfiguration(bootstrapServers: kafka),
            routes: TableRoute.standard(members: members, users: users))
        configuration.slot = "s\(UInt32.random(in: 0 ... .max))"
        configuration.heartbeatMs = 100
        let cdc = RunningCDC(configuration)
        #expect(cdc.waitFor("streaming"))
        var postgres = try PostgresConnection(database)
        defer {
            cdc.stop()
            _ = try? postgres.query("SELECT pg_drop_replication_slot($1)", [.text(configuration.slot)])
        }
        let chat = "'00000000-0000-4000-8000-0000000000aa'"
        try postgres.execute(
            "INSERT INTO chats (chat_id, kind) VALUES (\(chat), 'group'); INSERT INTO members VALUES (\(chat), gen_random_uuid())"
        )
        func versions() throws -> [Int] {
            try FoldedTopic(members, kafka: kafka).rows.values.compactMap { $0["meta_version"] as? Int }
        }
        #expect(try eventually { try versions() == [1] })
        try postgres.execute(
            "ALTER TABLE members DROP CONSTRAINT members_pkey; INSERT INTO members VALUES (\(chat), gen_random_uuid())")
        #expect(cdc.waitFor("its topic is put aside"), "\(cdc.text)")
        try postgres.execute("INSERT INTO users (user_id, name) VALUES (gen_random_uuid(), 'still followed')")
        #expect(try eventually { try FoldedTopic(users, kafka: kafka).rows.count == 1 }, "\(cdc.text)")
        // The version that counts the new member must not be told without the member: the join would wait for nothing.
        #expect(try versions() == [1])
        #expect(eventually { (cdc.value("fanout_cdc_aside_changes_total") ?? 0) >= 2 })
        try postgres.execute("ALTER TABLE members ADD PRIMARY KEY (chat_id, user_id)")
        #expect(try eventually { try versions() == [2] }, "\(cdc.text)")
        #expect(try FoldedTopic(members, kafka: kafka).rows.count == 3)
        #expect(cdc.text.contains("followed again"), "\(cdc.text)")
    }

    /// Reads as somebody who can be forbidden to.
    private func prepare(_ scene: Scene) throws {
        let setup = scene.setup
        try setup.postgres.execute(
            """
            DO $$ BEGIN CREATE ROLE reader LOGIN REPLICATION; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
            ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader;
            GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader
            """)
        scene.configuration.postgres = setup.database.replacing("user=postgres", with: "user=reader")
    }
}
