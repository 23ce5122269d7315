import KafkaClient
import PostgresClient
import Runtime
import System
import TestSupport
import Testing
import Wire

@testable import CDC

/// What CDC does for the database that it reads: it holds back no more log than it must, and says what it costs.
@Suite struct SlotTests {
    @Test func `a quiet table holds no log back while others are busy`() throws {
        let setup = try Setup()
        var configuration = setup.configuration
        configuration.heartbeatMs = 1 << 40
        let cdc = RunningCDC(configuration)
        #expect(cdc.waitFor("streaming"))
        try setup.postgres.execute("CREATE TABLE busy AS SELECT generate_series(1, 1000) AS n")
        let position = try RandomTables.position(&setup.postgres)
        #expect(try eventually { try setup.confirmed() >= position }, "\(cdc.text)")
        #expect(cdc.stop() == nil)
    }

    @Test func `when only another database is busy, a heartbeat moves the slot`() throws {
        let setup = try Setup()
        let cdc = RunningCDC(setup.configuration)
        #expect(cdc.waitFor("streaming"))
        var other = try PostgresConnection(try PostgresCluster.shared().freshDatabase())
        try other.execute("CREATE TABLE busy AS SELECT generate_series(1, 10000) AS n")
        let position = try RandomTables.position(&other)
        #expect(try eventually { try setup.confirmed() >= position }, "\(cdc.text)")
        #expect((cdc.value("fanout_cdc_retained_wal_bytes") ?? 0) > 0)
        #expect(cdc.value("fanout_cdc_safe_wal_bytes") == -1 && cdc.value("fanout_cdc_slot_in_danger") == 0)
        #expect(cdc.stop() == nil)
    }

    @Test func `an idle CDC's position grows with the database's clock, and stands still when nobody follows`() throws {
        let setup = try Setup()
        let cdc = RunningCDC(setup.configuration)
        #expect(cdc.waitFor("streaming"))
        func databaseMs() throws -> Int64 {
            try setup.postgres.query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8").int(0, 0) ?? 0
        }
        for _ in 0..<3 {
            let (nowMs, before) = (try databaseMs(), try setup.confirmed())
            // The position of which the note tells is the one that Postgres is told next.
            #expect(try eventually { try setup.note()?.atMs ?? 0 >= nowMs }, "\(cdc.text)")
            #expect(try eventually { try setup.confirmed() > before }, "\(cdc.text)")
            #expect(try setup.note()?.atMs ?? .max <= databaseMs())
        }
        #expect(cdc.stop() == nil)
        let (note, nowMs) = (try #require(try setup.note()), try databaseMs())
        #expect(note.atMs ?? .max < nowMs && note.slot == setup.slot && note.aside.isEmpty)
        try setup.postgres.execute("SELECT pg_logical_emit_message(false, 'fanout.heartbeat', '1')")
        #expect(try setup.note() == note)
    }

    @Test func `while Kafka takes nothing the slot is looked after all the same, and the log says why`() throws {
        let broker = try BrokerProcess()
        let setup = try Setup(database: PostgresCluster.shared().freshDatabase(), kafka: broker.address)
        var configuration = setup.configuration
        // One row more than fits.
        configuration.queueBytesMax = 64 << 10
        let cdc = RunningCDC(configuration)
        #expect(cdc.waitFor("streaming"))
        broker.kill()
        try setup.postgres.execute(
            "INSERT INTO keyed SELECT gen_random_uuid(), repeat('x', 1000) FROM generate_series(1, 1000)")
        #expect(cdc.waitFor("waiting for Kafka"), "\(cdc.text)")
        for _ in 0..<3 {
            let before = cdc.value("fanout_cdc_behind_bytes") ?? 0
            try setup.postgres.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n; DROP TABLE t")
            #expect(eventually { (cdc.value("fanout_cdc_behind_bytes") ?? 0) > before + 10_000 }, "\(cdc.text)")
        }
        try broker.restart()
        let position = try RandomTables.position(&setup.postgres)
        #expect(try eventually(seconds: 60) { try setup.confirmed() >= position }, "\(cdc.text)")
        #expect(cdc.text.contains("Kafka acknowledges again"))
        #expect(cdc.stop() == nil)
        #expect(try FoldedTopic(setup.topic, kafka: setup.kafka).rows.count == 1000)
    }

    @Test func `a slot that the server has given up is told, and everything is read again`() throws {
        let cluster = try PostgresCluster(settings: ["max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB"])
        let setup = try Setup(database: cluster.freshDatabase(), kafka: TestKafka.shared().address)
        try setup.postgres.execute("INSERT INTO keyed SELECT gen_random_uuid(), 'x' FROM generate_series(1, 100)")
        #expect(try setup.start().waitForOutput("streaming"))
        try setup.expectTrue("before")
        #expect(setup.cdc?.terminate() == 0)
        try setup.postgres.execute("DELETE FROM keyed WHERE get_byte(uuid_send(id), 0) < 128")
        let isLost = try eventually(seconds: 60) {
            try setup.postgres.execute("CREATE TABLE t (n int)")
            try setup.postgres.execute("DROP TABLE t")
            try setup.postgres.execute("SELECT pg_switch_wal()")
            try setup.postgres.execute("CHECKPOINT")
            return try setup.postgres.query(
                "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", [.text(setup.slot)]
            ).text(0, 0) == "lost"
        }
        #expect(isLost)
        let again = try setup.start()
        #expect(again.waitForOutput("streaming", seconds: 60))
        #expect(again.text.contains("the slot is lost"), "\(again.text)")
        try setup.expectTrue("after the slot was lost")
    }

    @Test func `after a failover to a standby without the slot everything is read again from there`() throws {
        let primary = try PostgresCluster()
        let setup = try Setup(database: primary.freshDatabase(), kafka: TestKafka.shared().address)
        let standby = try PostgresCluster(standbyOf: primary)
        let name = setup.postgres.database
        let hosts = "host=\(primary.directory),\(standby.directory) port=\(primary.port),\(standby.port)"
        var configuration = setup.configuration
        configuration.postgres = "\(hosts) user=postgres dbname=\(name) target_session_attrs=read-write"
        let cdc = RunningCDC(configuration)
        #expect(cdc.waitFor("streaming"))
        try setup.postgres.execute("INSERT INTO keyed SELECT gen_random_uuid(), 'before' FROM generate_series(1, 100)")
        let before = try RandomTables.position(&setup.postgres)
        #expect(try eventually { try setup.confirmed() >= before }, "\(cdc.text)")
        // A fast stop waits until the standby has everything, but not for a slot's reader.
        try primary.stop()
        try standby.promote()
        setup.postgres = try PostgresConnection(standby.connectionString(database: name))
        try setup.postgres.execute("DELETE FROM keyed WHERE get_byte(uuid_send(id), 0) < 128")
        // Before it streams the new slot's position is where it was made, which says nothing of the snapshot.
        #expect(eventually(seconds: 60) { cdc.text.split(separator: "streaming").count == 3 }, "\(cdc.text)")
        #expect(cdc.text.contains("starting over") && cdc.text.contains("reading the tables again"), "\(cdc.text)")
        try setup.postgres.execute("INSERT INTO keyed SELECT gen_random_uuid(), 'after' FROM generate_series(1, 10)")
        let after = try RandomTables.position(&setup.postgres)
        #expect(try eventually(seconds: 60) { try setup.confirmed() >= after }, "\(cdc.text)")
        let folded = try FoldedTopic(setup.topic, kafka: setup.kafka)
        expectSame(folded.rows, try RandomTables.rows(&setup.postgres), "after a failover: \(cdc.text)")
        #expect(cdc.stop() == nil)
    }

    @Test func `another database's slot is left alone, and its owner goes on`() throws {
        let setup = try Setup()
        #expect(try setup.start().waitForOutput("streaming"))
        let other = try Setup()
        var arguments = other.arguments
        arguments[arguments.firstIndex(of: other.slot)!] = setup.slot
        for _ in 0..<2 {
            let refused = try FanoutProcess.run(arguments)
            #expect(refused.status == 1, "\(refused.text)")
            #expect(refused.text.contains("belongs to database") && refused.text.contains("--slot"), "\(refused.text)")
        }
        try setup.postgres.execute("INSERT INTO keyed VALUES (gen_random_uuid(), 'still here')")
        try setup.expectTrue("beside another database")
    }

    @Test func `a row that was cut is counted`() throws {
        let setup = try Setup()
        var configuration = setup.configuration
        configuration.producer.messageBytesMax = 5000
        let cdc = RunningCDC(configuration)
        #expect(cdc.waitFor("streaming"))
        try setup.postgres.execute("INSERT INTO keyed VALUES (gen_random_uuid(), repeat('x', 8000))")
        #expect(eventually { cdc.value("fanout_cdc_cut_rows_total") == 1 }, "\(cdc.text)")
        #expect(cdc.stop() == nil)
    }
}

/// What is remembered in Kafka.
@Suite struct StateStoreTests {
    private func configuration(_ topic: String) throws -> CDCConfiguration {
        let kafka = try TestKafka.shared().address
        try createTopic(topic, partitions: 1, kafka: kafka)
        var configuration = CDCConfiguration(
            postgres: "", kafka: KafkaConfiguration(bootstrapServers: kafka),
            routes: [TableRoute(table: "t", topic: topic, key: ["id"])])
        configuration.group = topic
        return configuration
    }

    @Test func `a change of the state waits for the position that is on its way, and neither undoes the other`() throws
    {
        let topic = TestKafka.unique("state")
        let configuration = try configuration(topic)
        let store = try StateStore(configuration, topic: topic, clock: SystemClock())
        var state = StoredState(systemID: "1", slot: "fanout", position: LSN(100))
        try store.store(state, firstPartitionEnd: 0)
        let filter = SnapshotFilter(from: "a", snapshot: TransactionSnapshot("5:9:6")!, until: LSN(300))
        for position: UInt64 in [200, 250] {
            state.position = LSN(position)
            try store.storeLater(state, firstPartitionEnd: 0)
            try store.update(firstPartitionEnd: 0) { $0.note(filter) }
            #expect(store.current?.position == LSN(position) && store.current?.filters == [filter])
            state = try #require(store.current)
        }
        store.close()
        let again = try StateStore(configuration, topic: topic, clock: SystemClock())
        #expect(again.current == state)
        again.close()
    }

    @Test func `the committed offset stays at the topic's end over a restart`() throws {
        let setup = try Setup(
            database: PostgresCluster.shared().freshDatabase(), kafka: TestKafka.shared().address, partitions: 1)
        func committed() throws -> Int64? {
            let admin = try Admin(KafkaConfiguration(bootstrapServers: setup.kafka))
            defer { admin.close(deadlineMs: 500) }
            let place = TopicPartition(setup.topic, 0)
            return try admin.groupOffsets("\(setup.configuration.group).\(setup.slot)", [place])[0].offset
        }
        for round in 0..<2 {
            let cdc = RunningCDC(setup.configuration)
            #expect(cdc.waitFor("streaming"))
            // In the second round only the position moves.
            if round == 0 {
                try setup.postgres.execute(
                    "INSERT INTO keyed SELECT gen_random_uuid(), 'x' FROM generate_series(1, 50)")
            } else {
                try setup.postgres.execute("CREATE TABLE unpublished (n int)")
            }
            let position = try RandomTables.position(&setup.postgres)
            #expect(try eventually { try setup.confirmed() >= position }, "\(cdc.text)")
            #expect(cdc.stop() == nil)
            #expect(try committed() == 50)
        }
    }
}
