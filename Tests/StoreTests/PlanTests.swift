import Foundation
import PostgresClient
import Store
import TestSupport
import Testing
import Wire

/// How Postgres runs each read, kept as text in `Plans/`: a change of SQL, index or schema that makes one slower shows.
/// `FANOUT_WRITE_PLANS=1` writes them anew. `FANOUT_PLAN_SCALE=10` asks among ten times as many rows, where Postgres
/// may take another way through an index, but must read no table from end to end.
@Suite struct PlanTests {
    @Test func `each read runs as it was meant to`() throws {
        var store = try freshStore(days: Self.days)
        let (users, chats) = try fill(&store)
        let (chat, user) = (chats[5], users[3])
        let last = Self.ts(Self.messageCount)
        let bounds = (0..<16).map { Sync.Bound(partition: $0, ts: last - 20_000_000) }
        let middle = Int64(Self.messageCount / 2)

        try check("page-newest", page(before: nil, chat), &store)
        try check("page-before", page(before: middle, chat), &store)
        try check(
            "page-after", MessagePages.after(middle, in: chat, partition: 3, readableFromMs: 0, limit: 5), &store)
        try check("conversations", Conversations.of(user, limit: 20), &store)
        let place = try #require(try store.rows(Conversations.of(user, limit: 20)).last?.place)
        try check("conversations-next", Conversations.of(user, before: place, limit: 20), &store)
        let member = try #require(try store.rows(Membership.members(of: chat)).first?.user)
        try check("conversation", Conversations.one(chat, of: member), &store)
        try check("chat-members", ChatMembers.of(chat), &store)
        try check("standing", Membership.standing(of: member, in: chat), &store)
        try check("members", Membership.members(of: chat), &store)
        try check("version", Membership.version(of: chat), &store)
        try check("large-chats", Membership.largeChats(of: Array(users.prefix(20)), membersMin: 256), &store)
        try check("user", Accounts.user(user), &store)
        try check("existing-users", Accounts.existing(Array(users.prefix(3))), &store)
        try check("sync-coverage", Sync.coverage(topic: "chat.messages"), &store)
        try check("sync-bounds", Sync.bounds(afterMs: last - 20_000_000, topic: "chat.messages"), &store)
        try check("sync-chats", Sync.chats(of: user, since: bounds), &store)
        var plan = SyncPlan(
            try store.rows(Sync.chats(of: user, since: bounds)), bounds: bounds, partitionCount: 16)
        try check("sync-page", plan.nextPage(), &store)
        let few = Array(users[3..<6])
        try check("push-subscriptions", PushDevices.subscriptions(of: few), &store)
        try check("push-tokens", PushDevices.tokens(of: few), &store)
        try check("push-count", PushDevices.count(of: user), &store)
        try check("push-wishes", PushWish.of([member, member, member], in: Array(chats[5..<8])), &store)
    }

    private static let scale =
        ProcessInfo.processInfo.environment["FANOUT_PLAN_SCALE"].flatMap { Int($0) } ?? 1
    private static let days = 8
    private static let chatCount = 40_000 * scale
    private static let userCount = 4_000 * scale
    private static let messageCount = 200_000 * scale
    private static let intervalMs = 3_400 / scale
    private static func ts(_ number: Int) -> Int64 { Int64(number * intervalMs) }

    private func page(before seq: Int64?, _ chat: ChatID) -> Statement<StoredMessage> {
        MessagePages.before(seq, in: chat, partition: 3, readableFromMs: 0, limit: 5)
    }

    /// Large enough that reading a table from end to end is the dearest way to anything.
    private func fill(_ store: inout StoreConnection) throws -> ([UserID], [ChatID]) {
        var random = SeededGenerator(7)
        let users = (0..<Self.userCount).map { _ in UserID.random(using: &random) }
        let chats = (0..<Self.chatCount).map { _ in ChatID.random(using: &random) }
        let counts: [PostgresValue] = [.int(Int64(Self.chatCount)), .int(Int64(Self.userCount))]
        // The triggers are about versions, and the rows fit.
        try store.postgres.execute(
            "ALTER TABLE members DISABLE TRIGGER USER; ALTER TABLE members DROP CONSTRAINT members_chat_id_fkey")
        try store.postgres.query(
            "INSERT INTO chats (chat_id, kind, created_at) SELECT c, 'group', to_timestamp(0) FROM unnest($1::uuid[]) c",
            [.ids(chats)])
        try store.postgres.query(
            "INSERT INTO users (user_id, name) SELECT u, 'u' FROM unnest($1::uuid[]) u", [.ids(users)])
        try store.postgres.query(
            """
            INSERT INTO members (chat_id, user_id, joined_at)
            SELECT ($1::uuid[])[n], ($2::uuid[])[(n * 7 + m * 801) % $4 + 1], to_timestamp(0)
            FROM generate_series(1, $3::int) n, generate_series(0, 4) m
            """, [.ids(chats), .ids(users)] + counts)
        try store.postgres.query(
            """
            INSERT INTO messages (chat_id, ts, seq, message_id, sender, kind, body)
            SELECT ($1::uuid[])[n % $3 + 1], n::bigint * \(Self.intervalMs), n, md5(n::text)::uuid, ($2::uuid[])[n % $4 + 1], 'text',
                   json_build_object('text', repeat('x', 100))
            FROM generate_series(1, $5::int) n
            """, [.ids(chats), .ids(users)] + counts + [.int(Int64(Self.messageCount))])
        // Statistics of everything rather than of a sample, so that two runs plan alike.
        try store.postgres.execute(
            """
            INSERT INTO chat_activity (chat_id, last_seq, last_ts, changed_ts)
            SELECT chat_id, max(seq), max(ts), max(ts) FROM messages GROUP BY chat_id;
            INSERT INTO read_state (user_id, chat_id, read_seq, read_ts)
            SELECT user_id, chat_id, \(Self.messageCount / 20 * 19), \(Self.ts(Self.messageCount / 20 * 19)) FROM members;
            INSERT INTO sink_progress (topic, partition, next_offset) SELECT 'chat.messages', n, 1 FROM generate_series(0, 15) n;
            INSERT INTO sink_marks (partition, seq, ts, at_ms)
            SELECT n % 16, n, n * \(Self.intervalMs)::bigint, n * \(Self.intervalMs)::bigint
            FROM generate_series(1, \(Self.messageCount)) n;
            INSERT INTO push_subscriptions (user_id, device_id, endpoint, p256dh, auth)
            SELECT user_id, md5(user_id::text || n)::uuid, 'https://push.example/' || user_id::text || n,
                   decode(repeat('04', 65), 'hex'), decode(repeat('00', 16), 'hex')
            FROM users, generate_series(1, 5) n;
            INSERT INTO push_tokens (user_id, device_id, provider, token)
            SELECT user_id, md5(user_id::text || n)::uuid, 'fcm', user_id::text || n FROM users, generate_series(1, 5) n;
            SET default_statistics_target = 1000
            """)
        try store.postgres.execute("VACUUM (ANALYZE)")
        return (users, chats)
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
            lines.map {
                $0.replacing(uuid, with: "…").replacing(/\s+(?:Memory|Buckets|Heap Fetches|Heap Blocks): .*/, with: "")
            }
            .filter { !$0.isEmpty }.joined(separator: "\n") + "\n"
        let tables = [
            "messages", "members", "chats", "chat_activity", "read_state", "users", "sink_marks", "push_subscriptions",
            "push_tokens",
        ]
        for table in tables {
            #expect(!text.contains("Seq Scan on \(table)"), "\(name) reads all of \(table):\n\(text)")
        }
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Plans/\(name).txt")
        if ProcessInfo.processInfo.environment["FANOUT_WRITE_PLANS"] != nil {
            try FileManager.default.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(text.utf8).write(to: file)
        }
        // Other servers plan in other words.
        guard store.postgres.serverVersion / 10_000 == 15, Self.scale == 1 else { return }
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
