internal import KafkaClient
internal import PostgresClient
internal import Runtime

/// Snapshots: tables read whole, and rows that are in the topics and no more in the database.
extension Session {
    /// Of a start that has failed for good, when there was no slot before: a slot that nobody reads would keep the server's
    /// log until its disk is full.
    func dropSlotOfFailedStart() {
        guard hasSlot else { return }
        do throws(CDCError) {
            try store.forget()
            var maker = try replicationConnection()
            do throws(PostgresError) { try maker.dropSlot(configuration.slot) } catch {
                throw CDCError(error, "cannot drop slot \(configuration.slot)")
            }
            hasSlot = false
            log.info("dropped the slot that this start had made", ["slot": "\(configuration.slot)"])
        } catch {
            log.error(
                "the slot that this start had made is left, and keeps the server's log",
                ["error": "\(error)", "run": "SELECT pg_drop_replication_slot('\(configuration.slot)')"])
        }
    }

    /// Makes the slot, then reads every table as it was at the slot's first moment.
    func snapshot(_ server: ServerFacts, replacing old: SlotFacts?) throws(CDCError) {
        var maker = try replicationConnection()
        // Before the slot: a table that becomes another one later is noticed then.
        let aside = try obstacles(at: server.position, reading: true)
        let marks = try self.marks()
        let created = try makeSlot(on: &maker, replacing: old)
        hasSlot = true
        guard let name = created.snapshotName else { throw CDCError(.protocol, "the slot came without a snapshot") }
        var state = StoredState(
            systemID: server.systemID, slot: configuration.slot, position: created.consistentPoint,
            unreadFrom: outlet.topicNames.min())
        (state.databaseID, state.timeline) = (server.databaseID, server.timeline)
        for each in aside {
            tell(each)
            state.putAside(each)
        }
        state.marks = Set(marks.filter { topic, _ in !aside.contains { $0.topic == topic } }.values)
        try store.store(state, firstPartitionEnd: outlet.firstPartitionEnd)
        try begin(importing: name)
        // The transaction has the snapshot now; the connection that lent it may go.
        _ = consume maker
        _ = try lock(followedRoutes, timeoutMs: 0)
        try readUnread(at: created.consistentPoint)
    }

    func replicationConnection() throws(CDCError) -> ReplicationConnection {
        do throws(PostgresError) {
            return try ReplicationConnection(configuration.postgres)
        } catch {
            throw CDCError(error, "cannot open a replication connection")
        }
    }

    private func makeSlot(
        on maker: inout ReplicationConnection, replacing old: SlotFacts?
    ) throws(CDCError) -> ReplicationConnection.CreatedSlot {
        do throws(PostgresError) {
            if old != nil { try maker.dropSlot(configuration.slot) }
            return try maker.createSlot(configuration.slot, failover: true)
        } catch {
            throw CDCError(error, "cannot make slot \(configuration.slot)")
        }
    }

    /// After an interrupted snapshot: what is unread is read as it is now, and what the stream will bring again of that
    /// is filtered by this snapshot. Of a topic that was read in part everything is read again: a chat's version must not
    /// come from a later moment than its members.
    func resumeSnapshot() throws(CDCError) {
        guard var state = store.current, var first = state.unreadFrom else { return }
        hasSlot = true
        guard let (snapshot, now) = try beginPresent(locking: followedRoutes, timeoutMs: 0) else { return }
        state.note(SnapshotFilter(from: first, snapshot: snapshot, until: now))
        if !state.fits, let start = outlet.topicNames.min() {
            // So many interruptions are not remembered: this snapshot takes the place of them all.
            first = start
            state.filters = [SnapshotFilter(from: first, snapshot: snapshot, until: now)]
        }
        let filters = state.filters
        try store.update(firstPartitionEnd: outlet.firstPartitionEnd) {
            $0.unreadFrom = first
            $0.filters = filters
        }
        try readUnread(at: now)
    }

    /// One topic, in the middle of the stream: the table that was asked for, and those that share its topic.
    func snapshotOnRequest(_ order: SnapshotOrder, _ stream: inout StreamState) throws(CDCError) {
        health.thread.met()
        guard let route = configuration.routes.first(where: { $0.name == order.table || $0.table == order.table })
        else {
            log.warning("a snapshot was asked for of a table that has no topic", ["table": "\(order.table)"])
            return try answer(order, .noTopic)
        }
        do throws(CDCError) {
            try answer(order, readAgain(route.topic, marks(), &stream))
        } catch {
            guard try giveUpReading(error) else { throw error }
            log.warning("a table that was asked for cannot be read", ["table": "\(order.table)", "error": "\(error)"])
            try answer(order, .failed)
        }
    }

    /// Reads the tables of a topic as they are now; it is not aside any more then.
    func readAgain(
        _ topic: String, _ marks: [String: String], _ stream: inout StreamState
    ) throws(CDCError) -> SnapshotOrder.Outcome {
        // What is on its way must be in the topic when it is searched: the stream will skip a later delete of it that
        // the snapshot shows already.
        try outlet.flush()
        let routes = configuration.routes.filter { $0.topic == topic }
        guard let (snapshot, now) = try beginPresent(locking: routes, timeoutMs: Self.lockTimeoutMs) else {
            return .busy
        }
        let filter = SnapshotFilter(from: topic, through: topic, snapshot: snapshot, until: now)
        guard var state = store.current else { return .busy }
        state.note(filter)
        guard state.fits else {
            try endReading()
            log.warning("too many transactions are under way for a snapshot", ["topic": "\(topic)"])
            return .busy
        }
        for route in routes { try check(route) }
        try read(topic: topic, at: now)
        try endReading()
        try outlet.flush()
        try store.update(firstPartitionEnd: outlet.firstPartitionEnd) {
            $0.note(filter)
            if marks[topic] != nil { $0.takeBack(topic, marks) }
        }
        stream.filters = store.current?.filters ?? []
        if marks[topic] != nil, let missed = stream.aside.removeValue(forKey: topic) {
            log.info(
                "followed again: the topic has been read whole",
                ["topic": "\(topic)", "changes_not_written": .init(missed)])
        }
        return .done
    }

    /// Whether reading failed on account of the tables alone, so that everything else may go on.
    func giveUpReading(_ error: CDCError) throws(CDCError) -> Bool {
        guard error.isFinal, database.connection.isGood else { return false }
        outlet.abandon()
        try execute("ROLLBACK")
        return true
    }

    /// Whoever asked learns it before the slot's position passes the request.
    private func answer(_ order: SnapshotOrder, _ outcome: SnapshotOrder.Outcome) throws(CDCError) {
        guard let token = order.token else { return }
        _ = try database.ask(
            "answer the request", "SELECT pg_notify($1, $2)",
            [.text(SnapshotOrder.channel), .text("\(token) \(outcome.rawValue)")])
    }

    // MARK: The transaction

    private func begin(importing name: String) throws(CDCError) {
        try execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try execute("SET TRANSACTION SNAPSHOT \(SQL.literal(name))")
    }

    /// While changes are streamed nobody else's lock is waited for longer: the server would end the stream.
    private static let lockTimeoutMs = 2_000

    /// A snapshot of this moment, and a place in the log after everything that it shows; nil when a table is locked.
    private func beginPresent(
        locking routes: [TableRoute], timeoutMs: Int
    ) throws(CDCError) -> (TransactionSnapshot, LSN)? {
        try execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        // Before the snapshot: a TRUNCATE between the two would empty the table for it.
        guard try lock(routes, timeoutMs: timeoutMs) else {
            try execute("ROLLBACK")
            return nil
        }
        let row = try database.ask(
            "take a snapshot", "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text")
        guard let snapshot = row.text(0, 0).flatMap({ TransactionSnapshot($0) }),
            let now = row.text(0, 1).flatMap({ LSN($0) })
        else { throw CDCError(.protocol, "the server's snapshot is not of the known form") }
        return (snapshot, now)
    }

    /// All at once, so that a TRUNCATE of several waits for us instead of both waiting for one another.
    private func lock(_ routes: [TableRoute], timeoutMs: Int) throws(CDCError) -> Bool {
        if routes.isEmpty { return true }
        let tables = routes.map { "\(SQL.identifier($0.schema)).\(SQL.identifier($0.table))" }
        do throws(PostgresError) {
            try database.connection.execute("SET LOCAL lock_timeout = \(timeoutMs)")
            try database.connection.execute("LOCK TABLE \(tables.joined(separator: ", ")) IN ACCESS SHARE MODE")
            return true
        } catch {
            if error.sqlState == "55P03" { return false }
            throw CDCError(error, "cannot take a snapshot")
        }
    }

    private func endReading() throws(CDCError) { try execute("COMMIT") }

    private func execute(_ sql: String) throws(CDCError) {
        do throws(PostgresError) {
            try database.connection.execute(sql)
        } catch {
            throw CDCError(error, "cannot take a snapshot")
        }
    }

    // MARK: Reading

    private func readUnread(at position: LSN) throws(CDCError) {
        let aside = Set(store.current?.aside.map(\.topic) ?? [])
        let topics = (store.current?.unread(of: outlet.topicNames) ?? []).filter { !aside.contains($0) }
        for (index, topic) in topics.enumerated() {
            try read(topic: topic, at: position)
            try outlet.flush()
            let next = index + 1 < topics.count ? topics[index + 1] : nil
            try store.update(firstPartitionEnd: outlet.firstPartitionEnd) { $0.unreadFrom = next }
        }
        // Names that are not configured any more.
        if topics.isEmpty { try store.update(firstPartitionEnd: outlet.firstPartitionEnd) { $0.unreadFrom = nil } }
        try endReading()
    }

    /// Reads all tables of a topic as one. What is gone is deleted before any row is written: a chat's row carries its
    /// version, and whoever has seen it must have seen the removals that raised it. For the same reason the tables come
    /// in the order in which they are configured, members before chats.
    private func read(topic: String, at position: LSN) throws(CDCError) {
        let routes = configuration.routes.filter { $0.topic == topic }
        // Where the topic ends before anything is added: only what is older can be gone.
        let scan = try TopicScan(
            configuration, metrics.faults, topics: [topic],
            partitions: [outlet.partitions[outlet.topicNames.firstIndex(of: topic) ?? 0]])
        try deleteGone(scan, routes: routes, at: position)
        for route in routes { try read(route, at: position, scan.isEmpty ? .first : .again) }
    }

    /// Copies one table into its topic.
    private func read(
        _ route: TableRoute, at position: LSN, _ snapshot: ChangeContext.Snapshot
    ) throws(CDCError) {
        let table = try database.table(route, publication: configuration.publication)
        guard let encoder = try encoder(for: table.relation) else { return }
        let context = context(ofSnapshotAt: position, snapshot)
        let columns = table.relation.columns.map { SQL.identifier($0.name) }.joined(separator: ", ")
        let rowFilter = table.rowFilter.map { " WHERE \($0)" } ?? ""
        var row = CopyRow()
        var count = 0
        let startNs = clock.monotonicNs
        var toldNs = startNs
        outlet.begin()
        do throws(PostgresError) {
            try database.connection.beginCopyOut(
                "COPY (SELECT \(columns) FROM \(SQL.identifier(route.schema)).\(SQL.identifier(route.table))"
                    + "\(rowFilter)) TO STDOUT")
        } catch {
            throw CDCError(error, "cannot read \(route.name)")
        }
        while let line = try nextLine(route) {
            try row.read(line.bytes)
            try writer.read(encoder, row, context, to: outlet)
            count += 1
            guard count.isMultiple(of: 1000) else { continue }
            try outlet.poll()
            try keepUp()
            metrics.snapshotRows.add(1000)
            publishCuts()
            let now = clock.monotonicNs
            if now - toldNs > 5_000_000_000 {
                toldNs = now
                tell("reading", route, count, table.rowsEstimate, now - startNs)
            }
        }
        // Ends nothing that could be confirmed: the slot's own position stands until the stream moves it.
        outlet.end(at: .zero)
        metrics.snapshotRows.add(count % 1000)
        publishCuts()
        tell("read", route, count, Int64(count), clock.monotonicNs - startNs)
    }

    private func nextLine(_ route: TableRoute) throws(CDCError) -> CopyData? {
        do throws(PostgresError) {
            return try database.connection.readCopy()
        } catch {
            throw CDCError(error, "cannot read \(route.name)")
        }
    }

    private func tell(_ what: String, _ route: TableRoute, _ count: Int, _ estimate: Int64?, _ elapsedNs: UInt64) {
        let rate = elapsedNs > 0 ? UInt64(count) * 1_000_000_000 / elapsedNs : 0
        log.info(
            what,
            [
                "table": "\(route.name)", "rows": .init(count),
                "percent": Self.percent(count, of: estimate).map { .init($0) } ?? "unknown",
                "rows_per_s": .init(rate),
            ])
    }

    /// How far a table is read; nil for one whose size nobody knows. An estimate may be too low, and what is not at its
    /// end is not at 100.
    static func percent(_ count: Int, of estimate: Int64?) -> Int64? {
        guard let estimate else { return nil }
        if Int64(count) == estimate { return 100 }
        return estimate > 0 ? min(99, Int64(count) * 100 / estimate) : nil
    }

    // MARK: What is gone

    /// Deletes in the topic what the snapshot no longer shows.
    private func deleteGone(_ scan: TopicScan, routes: [TableRoute], at position: LSN) throws(CDCError) {
        if scan.isEmpty { return }
        var tables: [GoneSearch.Table] = []
        for route in routes {
            let table = try database.table(route, publication: configuration.publication)
            guard let encoder = try encoder(for: table.relation) else { continue }
            tables.append(
                GoneSearch.Table(
                    encoder: encoder, types: encoder.keyColumns.map { table.typeNames[$0] }, rowFilter: table.rowFilter)
            )
        }
        let context = context(ofSnapshotAt: position, .again)
        outlet.begin()
        let count = try delete(tables, in: scan, context) { [unowned self] keys, table throws(CDCError) in
            try missing(keys, of: table)
        }
        outlet.end(at: .zero)
        if count > 0 { log.info("deleted what is gone", ["topic": "\(routes[0].topic)", "rows": .init(count)]) }
    }

    /// Every row of a truncated table that the topic still has.
    func truncate(_ table: TableEncoder, _ context: ChangeContext) throws(CDCError) {
        try outlet.flush()
        let scan = try TopicScan(
            configuration, metrics.faults, topics: [table.route.topic], partitions: [table.partitions])
        let all = GoneSearch.Table(encoder: table, types: [], rowFilter: nil)
        _ = try delete([all], in: scan, context) { keys, _ in Array(keys.indices) }
    }

    /// Deletes what the lookup says is gone, as it is found.
    private func delete(
        _ tables: [GoneSearch.Table], in scan: TopicScan, _ context: ChangeContext,
        _ lookup: @escaping GoneSearch.Lookup
    ) throws(CDCError) -> Int {
        var count = 0
        var search = GoneSearch(tables: tables, lookup: lookup) { [unowned self] entry, table throws(CDCError) in
            try writer.delete(table.encoder, key: entry.key.span, partition: entry.partition, context, to: outlet)
            count += 1
        }
        try scan.forEach(idle: { () throws(CDCError) in try keepUp() }) {
            topic, partition, key, value throws(CDCError) in
            try search.see(topic, partition, key, value)
        }
        try search.finish()
        return count
    }

    /// Which of the keys the snapshot does not show.
    private func missing(_ keys: [[String]], of table: GoneSearch.Table) throws(CDCError) -> [Int] {
        let route = table.encoder.route
        let names = route.key.indices.map { "k\($0)" }
        let arrays = route.key.indices.map { "$\($0 + 1)::text[]" }.joined(separator: ", ")
        let match = zip(route.key, names).enumerated().map { index, pair in
            // The key tells bytes in base64, which a cast would take for the bytes themselves.
            let isBytes = table.encoder.columns[table.encoder.keyColumns[index]].kind == .bytes
            let value = isBytes ? "decode(k.\(pair.1), 'base64')" : "k.\(pair.1)::\(table.types[index])"
            return "t.\(SQL.identifier(pair.0)) = \(value)"
        }.joined(separator: " AND ")
        let rowFilter = table.rowFilter.map { " AND \($0)" } ?? ""
        let rows = try database.ask(
            "look for deleted rows of \(route.name)",
            """
            SELECT k.n FROM unnest(\(arrays)) WITH ORDINALITY AS k(\(names.joined(separator: ", ")), n)
            WHERE NOT EXISTS (SELECT 1 FROM \(SQL.identifier(route.schema)).\(SQL.identifier(route.table)) t
                WHERE \(match)\(rowFilter))
            """, route.key.indices.map { column in .texts(keys.map { $0[column] }) })
        return (0..<rows.rowCount).map { Int(rows.int($0, 0) ?? 1) - 1 }
    }
}
