internal import KafkaClient
internal import PostgresClient
internal import Runtime

/// Snapshots: tables read whole, and rows that are in the topics and no more in the database.
extension Session {
    /// Makes the slot, then reads every table as it was at the slot's first moment.
    func snapshot(systemID: String, replacing old: SlotFacts?) throws(CDCError) {
        var maker = try replicationConnection()
        let created = try makeSlot(on: &maker, replacing: old)
        guard let name = created.snapshotName else { throw CDCError(.protocol, "the slot came without a snapshot") }
        let state = StoredState(
            systemID: systemID, slot: configuration.slot, position: created.consistentPoint,
            unread: configuration.routes.map(\.name) + [StoredState.gone])
        try store.store(state, firstPartitionEnd: outlet.firstPartitionEnd)
        try begin(importing: name)
        // The transaction has the snapshot now; the connection that lent it may go.
        _ = consume maker
        try readUnread(at: created.consistentPoint)
    }

    private func replicationConnection() throws(CDCError) -> ReplicationConnection {
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
    /// is filtered by this snapshot.
    func resumeSnapshot() throws(CDCError) {
        guard var state = store.current else { return }
        let (filter, now) = try beginPresent()
        state.filters.removeAll { state.unread.contains($0.table) }
        state.filters += state.unread.filter { $0 != StoredState.gone }.map {
            SnapshotFilter(table: $0, snapshot: filter, until: now)
        }
        try store.store(state, firstPartitionEnd: outlet.firstPartitionEnd)
        try readUnread(at: now)
    }

    /// One table, in the middle of the stream.
    func snapshotOnRequest(_ name: String, _ stream: inout StreamState) throws(CDCError) {
        guard let route = configuration.routes.first(where: { $0.name == name || $0.table == name }) else {
            return log.warning("a snapshot was asked for of a table that has no topic", ["table": "\(name)"])
        }
        // What is on its way must be in the topic when it is searched: the stream will skip a later delete of it that
        // the snapshot shows already.
        try outlet.flush()
        let (snapshot, now) = try beginPresent()
        let filter = SnapshotFilter(table: route.name, snapshot: snapshot, until: now)
        let scan = try TopicScan(
            configuration, topics: [route.topic],
            partitions: [outlet.partitions[outlet.topicNames.firstIndex(of: route.topic) ?? 0]])
        try read(route, at: now)
        try deleteGone(scan, routes: [route], at: now)
        try endReading()
        stream.filters.removeAll { $0.table == route.name }
        stream.filters.append(filter)
        guard var state = store.current else { return }
        state.filters = stream.filters
        try outlet.flush()
        try store.store(state, firstPartitionEnd: outlet.firstPartitionEnd)
    }

    // MARK: The transaction

    private func begin(importing name: String) throws(CDCError) {
        try execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try execute("SET TRANSACTION SNAPSHOT \(SQL.literal(name))")
    }

    /// A snapshot of this moment, and a place in the log after everything that it shows.
    private func beginPresent() throws(CDCError) -> (TransactionSnapshot, LSN) {
        try execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        let row = try database.ask(
            "take a snapshot", "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text")
        guard let snapshot = row.text(0, 0).flatMap({ TransactionSnapshot($0) }),
            let now = row.text(0, 1).flatMap({ LSN($0) })
        else { throw CDCError(.protocol, "the server's snapshot is not of the known form") }
        return (snapshot, now)
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
        guard var state = store.current else { return }
        // All at once, so that a TRUNCATE of several waits for us instead of both waiting for one another.
        let tables = configuration.routes.map { "\(SQL.identifier($0.schema)).\(SQL.identifier($0.table))" }
        try execute("LOCK TABLE \(tables.joined(separator: ", ")) IN ACCESS SHARE MODE")
        // Where the topics end before anything is added: only what is older can be gone.
        let scan = try TopicScan(configuration, topics: outlet.topicNames, partitions: outlet.partitions)
        while let name = state.unread.first {
            if name == StoredState.gone {
                try deleteGone(scan, routes: configuration.routes, at: position)
            } else if let route = configuration.routes.first(where: { $0.name == name }) {
                try read(route, at: position)
            }
            try outlet.flush()
            state.unread.removeFirst()
            try store.store(state, firstPartitionEnd: outlet.firstPartitionEnd)
        }
        try endReading()
    }

    /// Copies one table into its topic.
    private func read(_ route: TableRoute, at position: LSN) throws(CDCError) {
        let table = try database.table(route, publication: configuration.publication)
        guard let encoder = try encoder(for: table.relation) else { return }
        let context = context(lsn: position, xid: nil, commitMs: clock.wallMs, isSnapshot: true)
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
            let now = clock.monotonicNs
            if now - toldNs > 5_000_000_000 {
                toldNs = now
                tell("reading", route, count, table.rowsEstimate, now - startNs)
            }
        }
        // Ends nothing that could be confirmed: the slot's own position stands until the stream moves it.
        outlet.end(at: .zero)
        metrics.snapshotRows.add(count % 1000)
        tell("read", route, count, Int64(count), clock.monotonicNs - startNs)
    }

    private func nextLine(_ route: TableRoute) throws(CDCError) -> CopyData? {
        do throws(PostgresError) {
            return try database.connection.readCopy()
        } catch {
            throw CDCError(error, "cannot read \(route.name)")
        }
    }

    private func tell(_ what: String, _ route: TableRoute, _ count: Int, _ estimate: Int64, _ elapsedNs: UInt64) {
        let percent = estimate > 0 ? min(100, Int64(count) * 100 / estimate) : 100
        let rate = elapsedNs > 0 ? UInt64(count) * 1_000_000_000 / elapsedNs : 0
        log.info(
            what,
            ["table": "\(route.name)", "rows": .init(count), "percent": .init(percent), "rows_per_s": .init(rate)])
    }

    // MARK: What is gone

    /// Deletes in the topics what the snapshot no longer shows.
    private func deleteGone(_ scan: TopicScan, routes: [TableRoute], at position: LSN) throws(CDCError) {
        if scan.isEmpty { return }
        var search = try GoneSearch(routes: routes, self)
        try scan.forEach(idle: { () throws(CDCError) in try keepUp() }) {
            topic, partition, key, value throws(CDCError) in
            try search.see(topic, partition, key, value) { [unowned self] keys, table throws(CDCError) in
                try missing(keys, of: table)
            }
        }
        try search.finish { [unowned self] keys, table throws(CDCError) in try missing(keys, of: table) }
        let context = context(lsn: position, xid: nil, commitMs: clock.wallMs, isSnapshot: true)
        outlet.begin()
        var count = 0
        for (table, gone) in search.gone {
            for entry in gone {
                try writer.delete(table, key: entry.key.span, partition: entry.partition, context, to: outlet)
                count += 1
            }
        }
        outlet.end(at: .zero)
        if count > 0 { log.info("deleted what is gone", ["rows": .init(count)]) }
    }

    /// Every row of a truncated table that the topic still has.
    func truncate(_ table: TableEncoder, _ context: ChangeContext) throws(CDCError) {
        try outlet.flush()
        let scan = try TopicScan(configuration, topics: [table.route.topic], partitions: [table.partitions])
        var search = GoneSearch(tables: [GoneSearch.Table(encoder: table, types: [], rowFilter: nil)])
        try scan.forEach(idle: { () throws(CDCError) in try keepUp() }) {
            topic, partition, key, value throws(CDCError) in
            try search.see(topic, partition, key, value) { keys, _ in Array(keys.indices) }
        }
        try search.finish { keys, _ in Array(keys.indices) }
        for (_, gone) in search.gone {
            for entry in gone {
                try writer.delete(table, key: entry.key.span, partition: entry.partition, context, to: outlet)
            }
        }
    }

    /// Which of the keys the snapshot does not show.
    private func missing(_ keys: [[String]], of table: GoneSearch.Table) throws(CDCError) -> [Int] {
        let route = table.encoder.route
        let names = route.key.indices.map { "k\($0)" }
        let arrays = route.key.indices.map { "$\($0 + 1)::text[]" }.joined(separator: ", ")
        let match = zip(route.key, names).enumerated().map { index, pair in
            "t.\(SQL.identifier(pair.0)) = k.\(pair.1)::\(table.types[index])"
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
