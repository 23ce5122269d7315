import Foundation
import PostgresClient
import Store
import TestSupport
import Testing
import Wire

/// How Postgres runs each read, kept as text in `Plans/`: a change of SQL, index or schema that makes one slower shows.
/// `FANOUT_WRITE_PLANS=1` writes them anew.
@Suite struct PlanTests {
    @Test func `each read runs as it was meant to`() throws {
        var random = SeededGenerator(7)
        var store = try freshStore(days: 4)
        let users = (0..<200).map { _ in UserID.random(using: &random) }
        let chats = (0..<400).map { _ in ChatID.random(using: &random) }
        try store.postgres.query(
            "INSERT INTO chats (chat_id, kind, created_at) SELECT c, 'group', to_timestamp(0) FROM unnest($1::uuid[]) c",
            [.ids(chats)])
        try store.postgres.query(
            "INSERT INTO users (user_id, name) SELECT u, 'u' FROM unnest($1::uuid[]) u", [.ids(users)])
        try store.postgres.query(
            """
            INSERT INTO members (chat_id, user_id, joined_at)
            SELECT ($1::uuid[])[n], ($2::uuid[])[(n * 7 + m) % 200 + 1], to_timestamp(0)
            FROM generate_series(1, 400) n, generate_series(0, 19) m
            """, [.ids(chats), .ids(users)])
        try store.postgres.query(
            """
            INSERT INTO messages (chat_id, ts, seq, message_id, sender, kind, body)
            SELECT ($1::uuid[])[n % 400 + 1], n::bigint * 17000, n, md5(n::text)::uuid, ($2::uuid[])[n % 200 + 1], 'text', '{}'
            FROM generate_series(1, 20000) n
            """, [.ids(chats), .ids(users)])
        try store.postgres.execute(
            """
            INSERT INTO chat_activity (chat_id, last_seq, last_ts, changed_ts)
            SELECT chat_id, max(seq), max(ts), max(ts) FROM messages GROUP BY chat_id;
            INSERT INTO read_state (user_id, chat_id, read_seq, read_ts)
            SELECT user_id, chat_id, 19000, 19000 * 17000::bigint FROM members;
            INSERT INTO sink_progress (topic, partition, next_offset) SELECT 'chat.messages', n, 1 FROM generate_series(0, 15) n;
            INSERT INTO sink_marks (partition, seq, ts, at_ms) SELECT n % 16, n, n * 17000::bigint, n * 17000::bigint
            FROM generate_series(1, 20000) n;
            ANALYZE
            """)
        let (chat, user) = (chats[5], users[3])
        let last: Int64 = 20_000 * 17_000
        let bounds = [Sync.Bound(partition: 0, ts: last - 10_000_000)]
        var plan = SyncPlan(
            chats.prefix(30).map { Sync.Chat(chat: $0, changedTs: last, readableFromMs: 0) },
            bounds: (0..<16).map { Sync.Bound(partition: $0, ts: last - 10_000_000) }, partitionCount: 16)

        try check("page-newest", MessagePages.before(nil, in: chat, readableFromMs: 0, limit: 5), &store)
        try check(
            "page-before",
            MessagePages.before(MessagePlace(ts: last / 2, seq: 10_000), in: chat, readableFromMs: 0, limit: 5), &store)
        try check(
            "page-after", MessagePages.after(MessagePlace(ts: last / 2, seq: 0), in: chat, readableFromMs: 0, limit: 5),
            &store)
        try check("conversations", Conversations.of(user, limit: 20), &store)
        try check("sync-bounds", Sync.bounds(afterMs: last / 2, topic: "chat.messages"), &store)
        try check("sync-chats", Sync.chats(of: user, since: bounds), &store)
        try check("sync-page", plan.nextPage(), &store)
        try check("standing", Membership.standing(of: user, in: chat), &store)
        try check("members", Membership.members(of: chat), &store)
        try check("large-chats", Membership.largeChats(of: user, membersMin: 256), &store)
    }

    private func check<Row>(_ name: String, _ statement: Statement<Row>, _ store: inout StoreConnection) throws {
        // Prepares it, as every connection does.
        _ = try store.rows(statement)
        let arguments = statement.parameters.map(literal).joined(separator: ", ")
        let result = try store.postgres.execute(
            """
            EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE "\(statement.name)"(\(arguments))
            """)
        let uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/
        let lines = (0..<result.rowCount).compactMap { result.text($0, 0) }
        let text =
            lines.map { $0.replacing(uuid, with: "…").replacing(/\s+(?:Memory|Buckets|Heap Fetches): .*/, with: "") }
            .filter { !$0.isEmpty }.joined(separator: "\n") + "\n"
        #expect(!text.contains("Seq Scan on messages"), "\(name) reads whole days:\n\(text)")
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Plans/\(name).txt")
        if ProcessInfo.processInfo.environment["FANOUT_WRITE_PLANS"] != nil {
            try FileManager.default.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(text.utf8).write(to: file)
        }
        // Other servers plan in other words.
        guard store.postgres.serverVersion / 10_000 == 15 else { return }
        #expect(text == (try? String(contentsOf: file, encoding: .utf8)), "the plan of \(name) has changed")
    }

    private func literal(_ value: PostgresValue) -> String {
        switch value {
        case .null: "NULL"
        case .bool(let bool): "\(bool)"
        case .int(let int): "\(int)"
        case .text(let text): "'\(text)'"
        case .uuid(let uuid): "'\(uuid)'"
        case .ints(let ints): "'{\(ints.map { "\($0)" }.joined(separator: ","))}'"
        case .uuids(let uuids): "'{\(uuids.map(\.description).joined(separator: ","))}'"
        default: preconditionFailure("no read has such a parameter")
        }
    }
}
