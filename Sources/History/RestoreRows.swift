internal import Wire

/// The last row of each key of `chat.users` and `chat.members`.
struct RowsOfTopics {
    enum Table: String { case users, chats, members }

    private var last: [[UInt8]: (table: Table, row: String)] = [:]

    var isEmpty: Bool { last.isEmpty }

    /// What cannot be read is no row; memberships that the join has written are for itself alone.
    mutating func take(key: Span<UInt8>, value: Span<UInt8>?) {
        let name = [UInt8](copying: key)
        guard let value, let change = try? ChangeEnvelope(decoding: value), change.operation != .delete else {
            last[name] = nil
            return
        }
        var table: [UInt8] = []
        change.table.appendDecoded(from: value, to: &table)
        guard let table = Table(rawValue: String(decoding: table, as: UTF8.self)), let row = change.after else {
            return
        }
        last[name] = (table, String(showing: value.extracting(row)))
    }

    func rows(_ table: Table) -> [String] { last.values.filter { $0.table == table }.map(\.row).sorted() }
}

/// From rows as CDC writes them: times are milliseconds, `infinity` the largest number of JavaScript's.
enum RestoreSQL {
    private static func time(_ field: String) -> String {
        """
        CASE WHEN (r->>'\(field)')::bigint = 9007199254740991 THEN 'infinity'
             ELSE to_timestamp((r->>'\(field)')::bigint / 1000.0) END
        """
    }

    private static let rows = "FROM (SELECT t::json AS r FROM unnest($1::text[]) t) rows"

    static let users = """
        INSERT INTO users AS old (user_id, name, disabled, tokens_valid_after, created_at, quiet_from, quiet_to, utc_offset)
        SELECT (r->>'user_id')::uuid, coalesce(r->>'name', ''), coalesce((r->>'disabled')::boolean, false),
               \(time("tokens_valid_after")), coalesce(\(time("created_at")), now()),
               (r->>'quiet_from')::smallint, (r->>'quiet_to')::smallint, coalesce((r->>'utc_offset')::smallint, 0)
        \(rows)
        ON CONFLICT (user_id) DO UPDATE SET name = excluded.name, disabled = excluded.disabled,
            tokens_valid_after = excluded.tokens_valid_after, quiet_from = excluded.quiet_from,
            quiet_to = excluded.quiet_to, utc_offset = excluded.utc_offset
        WHERE (old.name, old.disabled, old.quiet_from, old.quiet_to, old.utc_offset)
              IS DISTINCT FROM (excluded.name, excluded.disabled, excluded.quiet_from, excluded.quiet_to, excluded.utc_offset)
           OR date_trunc('milliseconds', old.tokens_valid_after) IS DISTINCT FROM excluded.tokens_valid_after
        """

    static let chats = """
        INSERT INTO chats AS old (chat_id, kind, title, open_history, created_at)
        SELECT (r->>'chat_id')::uuid, coalesce(r->>'kind', 'group'), r->>'title',
               coalesce((r->>'open_history')::boolean, false), coalesce(\(time("created_at")), now())
        \(rows)
        ON CONFLICT (chat_id) DO UPDATE SET title = excluded.title, open_history = excluded.open_history
        WHERE (old.title, old.open_history) IS DISTINCT FROM (excluded.title, excluded.open_history)
        """

    static let members = """
        INSERT INTO members AS old (chat_id, user_id, role, joined_at, muted_until)
        SELECT (r->>'chat_id')::uuid, (r->>'user_id')::uuid, coalesce(r->>'role', 'member'),
               coalesce(\(time("joined_at")), now()), \(time("muted_until"))
        \(rows)
        WHERE EXISTS (SELECT FROM chats c WHERE c.chat_id = (r->>'chat_id')::uuid)
        ON CONFLICT (chat_id, user_id) DO UPDATE SET role = excluded.role, muted_until = excluded.muted_until
        WHERE old.role <> excluded.role
           OR date_trunc('milliseconds', old.muted_until) IS DISTINCT FROM excluded.muted_until
        """

    /// What the log no longer has. Members first, each with its key; a chat takes its members along.
    static let removals = [
        """
        DELETE FROM members m WHERE ($1::text[], $2::text[]) IS NOT NULL AND NOT EXISTS (
            SELECT FROM unnest($3::text[]) t
            WHERE (t::json->>'chat_id')::uuid = m.chat_id AND (t::json->>'user_id')::uuid = m.user_id)
        """,
        """
        DELETE FROM chats c WHERE ($1::text[], $3::text[]) IS NOT NULL
            AND c.chat_id NOT IN (SELECT (t::json->>'chat_id')::uuid FROM unnest($2::text[]) t)
        """,
        """
        DELETE FROM users u WHERE ($2::text[], $3::text[]) IS NOT NULL
            AND u.user_id NOT IN (SELECT (t::json->>'user_id')::uuid FROM unnest($1::text[]) t)
        """,
    ]

    static let versions = """
        UPDATE chats c SET meta_version = v.version
        FROM (SELECT (r->>'chat_id')::uuid AS chat, (r->>'meta_version')::bigint AS version \(rows)) v
        WHERE c.chat_id = v.chat AND c.meta_version < v.version
        """

    static let directChats = """
        INSERT INTO direct_chats (lower_user, upper_user, chat_id)
        SELECT min(m.user_id::text)::uuid, max(m.user_id::text)::uuid, m.chat_id
        FROM members m JOIN chats c USING (chat_id) WHERE c.kind = 'direct'
        GROUP BY m.chat_id HAVING count(*) = 2 ON CONFLICT DO NOTHING
        """
}
