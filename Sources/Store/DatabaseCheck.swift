public import PostgresClient
public import Wire

/// Which database this is: its own id, and where Postgres tells it the cluster's and its timeline, which a restore from a
/// backup changes.
public struct DatabaseIdentity: Sendable, Equatable, CustomStringConvertible {
    public let id: UUID
    public let system: Int64?
    public let timeline: Int64?

    public var description: String {
        "\(id) of system \(system.map(String.init) ?? "?") timeline \(timeline.map(String.init) ?? "?")"
    }
}

public enum DatabaseCheck {
    /// What a database lacks that Fanout's tables should have: rows, keys, migrations. A table that is not there at all is
    /// an error of its own (42P01).
    public static let missing = Statement<String>(
        "database.missing",
        """
        SELECT 'the key of ' || t FROM unnest(ARRAY['users', 'chats', 'members', 'chat_activity', 'messages',
            'sink_progress', 'sink_marks', 'read_state', 'devices', 'log_runs', 'database_identity']) t
        WHERE NOT EXISTS (SELECT FROM pg_index i
                          WHERE i.indrelid = to_regclass(t) AND i.indisprimary AND i.indisvalid)
        UNION ALL
        SELECT 'its identity' WHERE (SELECT count(*) FROM database_identity) <> 1
        UNION ALL
        SELECT 'migration ' || n FROM generate_series(1, \(Schema.migrations.count)) n
        WHERE NOT EXISTS (SELECT FROM fanout_migrations m WHERE m.number = n)
        """, []
    ) { row, index in row.text(index, 0) }

    public static func identity(of store: inout StoreConnection) throws(PostgresError) -> DatabaseIdentity {
        let id = try store.postgres.query("SELECT id FROM database_identity").uuid(0, 0)
        guard let id else { throw PostgresError(.unexpectedAnswer, "the database has no identity") }
        do throws(PostgresError) {
            let rows = try store.postgres.query(
                "SELECT (SELECT system_identifier FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint())::bigint"
            )
            return DatabaseIdentity(id: id, system: rows.int(0, 0), timeline: rows.int(0, 1))
        } catch {
            // Not everybody may ask.
            guard error.sqlState == "42501" else { throw error }
            return DatabaseIdentity(id: id, system: nil, timeline: nil)
        }
    }
}
