// The days of `messages`: one partition each, made ahead of need and dropped when their last message is old enough.
//
// A partition is made as a table of its own and then attached, and detached before it is dropped: readers and other
// sinks go on meanwhile. Names come from numbers alone.
internal import PostgresClient
internal import Runtime
internal import Store

enum Day {
    static let ms: Int64 = 86_400_000

    static func start(of ts: Int64) -> Int64 { ts - ((ts % ms) + ms) % ms }

    static func table(_ start: Int64) -> String {
        let time = CalendarTime(wallMs: start)
        func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return "messages_\(time.year)\(two(time.month))\(two(time.day))"
    }
}

/// Knows which days have a partition.
struct Days {
    private var known: Set<Int64> = []
    /// Partitions are there this many days ahead, so that midnight is like any other time.
    static let ahead = 3
    private static let lock: Int64 = 0x6668_6461_7973
    private static let dropLock = lock + 1

    /// Makes what is missing of these days.
    mutating func make(_ days: some Sequence<Int64>, _ store: inout StoreConnection) throws(PostgresError) {
        for day in days.sorted() where !known.contains(day) {
            try Self.make(day, &store)
            known.insert(day)
        }
    }

    mutating func makeAhead(nowMs: Int64, _ store: inout StoreConnection) throws(PostgresError) {
        let today = Day.start(of: nowMs)
        try make((0...Self.ahead).map { today + Int64($0) * Day.ms }, &store)
    }

    private static func make(_ day: Int64, _ store: inout StoreConnection) throws(PostgresError) {
        let table = Day.table(day)
        try store.postgres.transaction { postgres throws(PostgresError) in
            try postgres.query("SELECT pg_advisory_xact_lock($1)", [.int(lock)])
            guard try postgres.query("SELECT to_regclass($1) IS NULL", [.text(table)]).bool(0, 0) == true else {
                return
            }
            try postgres.execute("CREATE TABLE \(table) (LIKE messages INCLUDING ALL)")
            // Rows are inserted in the order of time and rarely changed; what is written is read back soon or not at all.
            try postgres.execute("ALTER TABLE \(table) SET (autovacuum_vacuum_insert_scale_factor = 1)")
            try postgres.execute(
                "ALTER TABLE messages ATTACH PARTITION \(table) FOR VALUES FROM (\(day)) TO (\(day + Day.ms))")
        }
    }

    /// Drops the days that ended before `beforeMs`, and says in the database that they are gone. Answers their names; none if
    /// another sink is at it.
    mutating func drop(beforeMs: Int64, _ store: inout StoreConnection) throws(PostgresError) -> [String] {
        guard try store.postgres.query("SELECT pg_try_advisory_lock($1)", [.int(Self.dropLock)]).bool(0, 0) == true
        else { return [] }
        // A detach waits for whoever still reads, and the sink with it: a long report may hold it up until the next hour,
        // when it is finished.
        try store.postgres.execute("SET lock_timeout = '10s'")
        do throws(PostgresError) {
            let names = try dropLocked(beforeMs: beforeMs, &store)
            try Self.endDrop(&store)
            return names
        } catch {
            if store.isGood { try? Self.endDrop(&store) }
            throw error
        }
    }

    private static func endDrop(_ store: inout StoreConnection) throws(PostgresError) {
        try store.postgres.execute("RESET lock_timeout; SELECT pg_advisory_unlock(\(dropLock))")
    }

    private mutating func dropLocked(
        beforeMs: Int64, _ store: inout StoreConnection
    ) throws(PostgresError) -> [String] {
        let attached = try store.postgres.query(
            """
            SELECT c.relname::text, i.inhdetachpending FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'messages'::regclass ORDER BY 1
            """)
        let newest = Day.table(Day.start(of: beforeMs))
        var old: [(name: String, isPending: Bool)] = []
        for row in 0..<attached.rowCount {
            // Names sort like days; anything not named by us is somebody else's to drop.
            guard let name = attached.text(row, 0), name.utf8.count == newest.utf8.count,
                name.hasPrefix("messages_"), name < newest
            else { continue }
            old.append((name, attached.bool(row, 1) ?? false))
        }
        guard !old.isEmpty else { return [] }
        let boundary = Day.start(of: beforeMs)
        // Said first: a device that asks in between is told to start over rather than given half of what it missed. The
        // join may have been behind, so the last messages of a day can have been delivered on the next: no later than a
        // mark's width after the day's last mark.
        let delivered = try store.postgres.query("SELECT max(at_ms) FROM sink_marks WHERE ts < $1", [.int(boundary)])
        try SinkWriter.setDropped(
            beforeMs: max(boundary, delivered.int(0, 0).map { $0 + SinkBatch.markEveryMs } ?? 0), &store.postgres)
        // What was said goes, so its beginning does not stay in the conversation list.
        try store.postgres.query(
            """
            UPDATE chat_activity SET last_preview = NULL, last_sender = NULL
            WHERE last_ts < $1 AND (last_preview IS NOT NULL OR last_sender IS NOT NULL)
            """, [.int(boundary)])
        try store.postgres.query("DELETE FROM sink_marks WHERE ts < $1", [.int(boundary - Day.ms)])
        for (name, isPending) in old {
            // A detach that was interrupted is finished; neither may be in a transaction.
            try store.postgres.execute(
                "ALTER TABLE messages DETACH PARTITION \(name) \(isPending ? "FINALIZE" : "CONCURRENTLY")")
            try store.postgres.execute("DROP TABLE IF EXISTS \(name)")
        }
        known = known.filter { $0 >= boundary }
        return old.map(\.name)
    }
}
