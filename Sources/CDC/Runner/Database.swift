internal import PostgresClient

/// The questions that CDC asks the database, over an ordinary connection.
struct Database: ~Copyable {
    var connection: PostgresConnection
    let name: String

    /// Values must look the same whatever the server's or the role's settings are.
    static let settings = [
        (
            "options",
            "-c DateStyle=ISO -c IntervalStyle=iso_8601 -c TimeZone=UTC -c extra_float_digits=3 -c bytea_output=hex "
                + "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
        )
    ]

    init(_ connectionString: String, _ log: @escaping @Sendable (String) -> Void) throws(CDCError) {
        let connection = try Self.connect(connectionString, log)
        name = connection.database
        self.connection = connection
    }

    private static func connect(
        _ connectionString: String, _ log: @escaping @Sendable (String) -> Void
    ) throws(CDCError) -> PostgresConnection {
        do throws(PostgresError) {
            return try PostgresConnection(connectionString, overriding: settings) { log("\($0)") }
        } catch {
            throw CDCError(error, "cannot use Postgres at \(ConnectionString.shown(connectionString))")
        }
    }

    /// Asks one thing; `what` says in the error what it was for.
    mutating func ask(
        _ what: String, _ sql: String, _ parameters: [PostgresValue] = []
    ) throws(CDCError) -> PostgresResult {
        do throws(PostgresError) {
            return try connection.query(sql, parameters)
        } catch {
            throw CDCError(error, what)
        }
    }

    // MARK: Set-up

    /// Everything that must be so before a slot is made, since one that nobody reads keeps the server's log for ever; the first thing that is not is thrown with what to run.
    mutating func check(publication: String, tables: [String], needsSlot: Bool) throws(CDCError) {
        guard connection.serverVersion >= 150_000 else {
            throw CDCError(.setup, "Postgres is of version \(connection.serverVersion / 10_000); 15 or newer is needed")
        }
        let server = try ask(
            "read the server's settings",
            """
            SELECT current_setting('wal_level'), rolreplication OR rolsuper, current_user::text,
                (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots')::int,
                (SELECT bool_and(has_function_privilege(oid, 'EXECUTE')) FROM pg_proc
                    WHERE proname = 'pg_logical_emit_message')
            FROM pg_roles WHERE rolname = current_user
            """)
        if server.text(0, 0) != "logical" {
            throw CDCError(
                .setup, "wal_level is \(server.text(0, 0) ?? "unknown"), logical replication needs logical",
                hint: "ALTER SYSTEM SET wal_level = logical; then restart Postgres")
        }
        if server.bool(0, 1) != true {
            let user = server.text(0, 2) ?? "?"
            throw CDCError(
                .setup, "role \(user) has no right to replicate", hint: "ALTER ROLE \(SQL.identifier(user)) REPLICATION"
            )
        }
        if server.bool(0, 5) != true {
            let user = server.text(0, 2) ?? "?"
            throw CDCError(
                .setup, "role \(user) may not execute pg_logical_emit_message, which heartbeats are written with",
                hint: "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pg_catalog TO \(SQL.identifier(user)), or on that alone"
            )
        }
        if needsSlot, let used = server.int(0, 3), let limit = server.int(0, 4), used >= limit {
            throw CDCError(
                .setup, "all \(limit) replication slots are in use",
                hint: "SELECT slot_name, active FROM pg_replication_slots; drop what is unused "
                    + "(SELECT pg_drop_replication_slot(…)), or raise max_replication_slots and restart")
        }
        guard
            try !ask(
                "look for the publication", "SELECT 1 FROM pg_publication WHERE pubname = $1", [.text(publication)]
            ).isEmpty
        else {
            throw CDCError(
                .setup, "there is no publication \(publication) in database \(name)",
                hint: publication == "fanout"
                    ? "fanout db migrate"
                    : "CREATE PUBLICATION \(SQL.identifier(publication)) FOR TABLE "
                        + tables.joined(separator: ", "))
        }
    }

    /// What a table needs to be followed, and to be read whole.
    mutating func check(_ route: TableRoute, publication: String, reading: Bool = true) throws(CDCError) {
        let found = try ask(
            "look for \(route.name)",
            """
            SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = $1 AND c.relname = $2),
                EXISTS (SELECT 1 FROM pg_publication_tables
                    WHERE pubname = $3 AND schemaname = $1 AND tablename = $2),
                (SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
                    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = $1 AND c.relname = $2),
                (SELECT row_security_active(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = $1 AND c.relname = $2), current_user::text,
                EXISTS (SELECT 1 FROM pg_partition_tree(to_regclass(format('%I.%I', $1::text, $2::text))) t
                    JOIN pg_publication_rel e ON e.prrelid IN (t.relid, t.parentrelid)
                    JOIN pg_publication p ON p.oid = e.prpubid AND p.pubname = $3 AND NOT p.pubviaroot WHERE NOT t.isleaf)
            """, [.text(route.schema), .text(route.table), .text(publication)])
        let quoted = "\(SQL.identifier(route.schema)).\(SQL.identifier(route.table))"
        let user = SQL.identifier(found.text(0, 4) ?? "?")
        if found.bool(0, 0) != true {
            throw CDCError(
                .setup, "there is no table \(route.name) in database \(name)",
                hint: route.schema == "public" && ["members", "chats", "users"].contains(route.table)
                    ? "fanout db migrate" : nil)
        }
        if found.bool(0, 1) != true {
            throw CDCError(
                .setup, "table \(route.name) is not in publication \(publication)",
                hint: found.bool(0, 5) == true
                    ? "ALTER PUBLICATION \(SQL.identifier(publication)) SET (publish_via_partition_root = true)"
                    : "ALTER PUBLICATION \(SQL.identifier(publication)) ADD TABLE \(quoted)")
        }
        guard reading else { return }
        if found.bool(0, 2) != true {
            throw CDCError(
                .setup, "role \(found.text(0, 4) ?? "?") may not read table \(route.name)",
                hint: "GRANT USAGE ON SCHEMA \(SQL.identifier(route.schema)) TO \(user); "
                    + "GRANT SELECT ON \(quoted) TO \(user)")
        }
        if found.bool(0, 3) == true {
            throw CDCError(
                .setup, "row security hides rows of \(route.name) from role \(found.text(0, 4) ?? "?")",
                hint: "ALTER ROLE \(user) BYPASSRLS")
        }
    }

    // MARK: The slot

    struct Server: Equatable {
        var systemID: String
        var position: LSN
        /// Of the database: one that is dropped and made again under its name has another.
        var databaseID: UInt32
    }

    private static let position =
        "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"

    mutating func server() throws(CDCError) -> Server {
        let row = try ask(
            "read the server's identity",
            """
            SELECT system_identifier::text, (\(Self.position))::text,
                (SELECT oid FROM pg_database WHERE datname = current_database()) FROM pg_control_system()
            """)
        return Server(
            systemID: row.text(0, 0) ?? "", position: row.text(0, 1).flatMap { LSN($0) } ?? .zero,
            databaseID: UInt32(truncatingIfNeeded: row.int(0, 2) ?? 0))
    }

    mutating func slot(_ slot: String) throws(CDCError) -> SlotFacts? {
        let row = try ask(
            "look for the replication slot",
            """
            SELECT plugin::text, database::text, active, confirmed_flush_lsn::text, wal_status
            FROM pg_replication_slots WHERE slot_name = $1
            """, [.text(slot)])
        if row.isEmpty { return nil }
        return SlotFacts(
            plugin: row.text(0, 0) ?? "physical", database: row.text(0, 1) ?? "", isActive: row.bool(0, 2) ?? false,
            confirmed: row.text(0, 3).flatMap { LSN($0) } ?? .zero, walStatus: row.text(0, 4))
    }

    struct SlotHealth: Equatable {
        var walStatus: String
        var retainedBytes: Int64
        /// How much more may be written before the slot is in danger; nil without a limit.
        var safeBytes: Int64?
        /// How much the server has written since what is confirmed.
        var behindBytes: Int64
    }

    mutating func health(of slot: String) throws(CDCError) -> SlotHealth? {
        let row = try ask(
            "ask how the slot does",
            """
            SELECT coalesce(wal_status, 'lost'), coalesce(pg_wal_lsn_diff(\(Self.position), restart_lsn), 0)::int8,
                safe_wal_size, coalesce(pg_wal_lsn_diff(\(Self.position), confirmed_flush_lsn), 0)::int8
            FROM pg_replication_slots WHERE slot_name = $1
            """, [.text(slot)])
        if row.isEmpty { return nil }
        return SlotHealth(
            walStatus: row.text(0, 0) ?? "", retainedBytes: row.int(0, 1) ?? 0, safeBytes: row.int(0, 2),
            behindBytes: row.int(0, 3) ?? 0)
    }

    /// Writes the database's time into its log, for whoever reads the slot to see how old what it has reached is. Costs a
    /// hundred bytes of log; a standby cannot.
    mutating func beat() throws(CDCError) {
        _ = try ask(
            "write a heartbeat",
            """
            SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_logical_emit_message(false, $1,
                (extract(epoch FROM clock_timestamp()) * 1000)::int8::text) END
            """, [.text(Heartbeat.prefix)])
    }

    /// Whether this session now is the one that reads the slot; others wait until it ends.
    mutating func tryLock(_ slot: String) throws(CDCError) -> Bool {
        try ask(
            "take the lock", "SELECT pg_try_advisory_lock(hashtext('fanout.cdc'), hashtext($1))", [.text(slot)]
        ).bool(0, 0) == true
    }

    // MARK: Tables

    /// What each table is at present; nil for one that is not there or not published. Asks the catalogs alone, which a
    /// change of the table that is under way does not hold up.
    mutating func identities(_ routes: [TableRoute], publication: String) throws(CDCError) -> [TableIdentity?] {
        let rows = try ask(
            "read what the tables are",
            """
            SELECT c.oid, CASE WHEN published.by IS NOT NULL THEN
                concat_ws('/', c.oid, published.by, key.types, partitions.ids) END
            FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS r(schema, name, key, n)
            LEFT JOIN pg_namespace s ON s.nspname = r.schema
            LEFT JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = r.name
            LEFT JOIN pg_publication p ON p.pubname = $4 AND (c.relkind <> 'p' OR p.pubviaroot)
            LEFT JOIN LATERAL (SELECT string_agg(entry, ',' ORDER BY entry) AS by FROM (
                SELECT 't' || e.oid AS entry FROM pg_publication_rel e WHERE e.prpubid = p.oid
                    AND (e.prrelid = c.oid OR e.prrelid IN (SELECT relid FROM pg_partition_ancestors(c.oid)))
                UNION ALL SELECT 's' || e.oid FROM pg_publication_namespace e
                    WHERE e.pnpubid = p.oid AND e.pnnspid = c.relnamespace
                UNION ALL SELECT 'a' || p.oid WHERE p.puballtables) AS entries) AS published ON true
            LEFT JOIN LATERAL (SELECT string_agg(a.attname || ' ' || a.atttypid, ',' ORDER BY a.attname) AS types
                FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
                    AND a.attname = ANY (string_to_array(r.key, ','))) AS key ON true
            LEFT JOIN LATERAL (
                WITH RECURSIVE below(id) AS (SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = c.oid
                    UNION ALL SELECT i.inhrelid FROM pg_inherits i JOIN below ON i.inhparent = below.id)
                SELECT string_agg(id::text, ',' ORDER BY id) AS ids FROM below WHERE c.relkind = 'p'
            ) AS partitions ON true
            ORDER BY r.n
            """,
            [
                .texts(routes.map(\.schema)), .texts(routes.map(\.table)),
                .texts(routes.map { $0.key.joined(separator: ",") }), .text(publication),
            ])
        return (0..<rows.rowCount).map { row in
            guard let id = rows.int(row, 0), let text = rows.text(row, 1) else { return nil }
            return TableIdentity(tableID: UInt32(truncatingIfNeeded: id), text: text)
        }
    }

    /// A published table as the stream would describe it, and what of it is published.
    struct Table {
        var relation: Relation
        /// A condition on rows, as the publication has it.
        var rowFilter: String?
        /// As the last ANALYZE found; nil for a table that never was analysed.
        var rowsEstimate: Int64?
        /// The types of the columns as SQL writes them.
        var typeNames: [String]
    }

    mutating func table(_ route: TableRoute, publication: String) throws(CDCError) -> Table {
        let rows = try ask(
            "read the columns of \(route.name)",
            """
            SELECT c.oid, c.relreplident::text, a.attname::text, a.atttypid, a.atttypmod, p.rowfilter,
                c.reltuples::int8, format_type(a.atttypid, a.atttypmod),
                c.relreplident = 'f' OR EXISTS (
                    SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey)
                        AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
            FROM pg_publication_tables p
            JOIN pg_namespace n ON n.nspname = p.schemaname
            JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated = '' AND a.attname = ANY (p.attnames)
            WHERE p.pubname = $3 AND p.schemaname = $1 AND p.tablename = $2
            ORDER BY a.attnum
            """, [.text(route.schema), .text(route.table), .text(publication)])
        guard !rows.isEmpty else { throw CDCError(.setup, "table \(route.name) is not in publication \(publication)") }
        let columns = (0..<rows.rowCount).map { row in
            Relation.Column(
                isKey: rows.bool(row, 8) ?? false, name: rows.text(row, 2) ?? "",
                type: UInt32(truncatingIfNeeded: rows.int(row, 3) ?? 0), modifier: Int32(rows.int(row, 4) ?? -1))
        }
        let identity = rows.bytes(0, 1)
        return Table(
            relation: Relation(
                id: UInt32(truncatingIfNeeded: rows.int(0, 0) ?? 0), schema: route.schema, name: route.table,
                identity: Relation.Identity(rawValue: identity.count > 0 ? identity[0] : 0) ?? .default,
                columns: columns),
            rowFilter: rows.text(0, 5), rowsEstimate: rows.int(0, 6).flatMap { $0 < 0 ? nil : $0 },
            typeNames: (0..<rows.rowCount).map { rows.text($0, 7) ?? "text" })
    }
}
