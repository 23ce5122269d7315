import Foundation
import PostgresClient
import Push
import Store
import TestSupport
import Testing
import Wire

/// What the stage asks of a real Postgres: mutes, quiet hours, unread counts and device tokens.
@Suite(.serialized) struct AddressBookTests {
    private let log: PushLog
    private let webhook: Webhook
    private let database: String

    init() throws {
        log = try PushLog()
        webhook = try Webhook()
        database = try PostgresCluster.shared().freshDatabase(migrated: true)
        var postgres = try PostgresConnection(database)
        try postgres.execute(
            """
            INSERT INTO chats (chat_id, kind) VALUES ('\(PushLog.chat)', 'group');
            CREATE TABLE messages_all PARTITION OF messages DEFAULT
            """)
    }

    /// A member of the chat. The SQL sees `$1` as the person and `$2` as the chat.
    private func member(_ changes: String...) throws -> UserID {
        let user = UserID.random()
        var postgres = try PostgresConnection(database)
        try postgres.query("INSERT INTO users (user_id, name) VALUES ($1, 'A')", [.id(user)])
        try postgres.query(
            "INSERT INTO members (chat_id, user_id, joined_at) VALUES ($1, $2, now() - interval '1 day')",
            [.id(PushLog.chat), .id(user)])
        for change in changes {
            try postgres.execute(
                change.replacingOccurrences(of: "$1", with: "'\(user)'").replacingOccurrences(
                    of: "$2", with: "'\(PushLog.chat)'"))
        }
        return user
    }

    @Test func `muted chats, quiet hours, strangers and the disabled are not told, all others are`() throws {
        func quiet(fromMinutes: Int, toMinutes: Int, offset: Int = 0) throws -> UserID {
            // Minutes from now, on the clock of the person's day.
            try member(
                """
                UPDATE users SET utc_offset = \(offset),
                    quiet_from = (m + \(fromMinutes) + 2880) % 1440, quiet_to = (m + \(toMinutes) + 2880) % 1440
                FROM (SELECT extract(hour FROM t) * 60 + extract(minute FROM t) + \(offset) AS m
                      FROM (SELECT now() AT TIME ZONE 'UTC' AS t) x) y WHERE user_id = $1
                """)
        }
        let mute = "UPDATE members SET muted_until = %@ WHERE user_id = $1 AND chat_id = $2"
        let untold = [
            try member(mute.replacingOccurrences(of: "%@", with: "now() + interval '1 hour'")),
            try member(mute.replacingOccurrences(of: "%@", with: "'infinity'")),
            try member("UPDATE users SET disabled = true WHERE user_id = $1"),
            try member("DELETE FROM members WHERE user_id = $1"),
            try quiet(fromMinutes: -60, toMinutes: 60), try quiet(fromMinutes: -60, toMinutes: 60, offset: 300),
            // The night, as it were: it ends before it begins, on the clock.
            try quiet(fromMinutes: -1430, toMinutes: 5), UserID.random(),
        ]
        let told = [
            try member(), try member(mute.replacingOccurrences(of: "%@", with: "now() - interval '1 hour'")),
            try quiet(fromMinutes: 60, toMinutes: 120), try quiet(fromMinutes: -120, toMinutes: -60, offset: -420),
            try quiet(fromMinutes: 60, toMinutes: 1400),
        ]
        for user in untold + told { try log.push(user, seq: 1) }
        let stage = try log.run {
            $0.webhook = webhook.url("/ok")
            $0.postgres = database
        }
        #expect(try eventually { try log.committed(partition: 0) == 13 }, "\(stage.failureText)")
        #expect(Set(webhook.calls.compactMap(\.user)) == Set(told.map(\.description)))
        #expect(stage.metric(#"fanout_push_notices_total{outcome="muted"}"#) == 8)
        stage.stop()
    }

    @Test func `count is what is unread, and without the database what has gathered`() throws {
        let user = try member()
        let reader = try member("INSERT INTO read_state (user_id, chat_id, read_seq) VALUES ($1, $2, 7)")
        let done = try member("INSERT INTO read_state (user_id, chat_id, read_seq) VALUES ($1, $2, 9)")
        var postgres = try PostgresConnection(database)
        try postgres.execute(
            """
            INSERT INTO messages (chat_id, ts, seq, message_id, sender, kind, body)
            SELECT '\(PushLog.chat)', extract(epoch FROM now()) * 1000 + n, n, gen_random_uuid(), '\(PushLog.sender)',
                   CASE WHEN n = 3 THEN 'deleted' ELSE 'text' END, '{}'
            FROM generate_series(1, 9) n
            """)
        for person in [user, reader, done] { try log.push(person, seq: 9) }
        let stage = try log.run {
            $0.webhook = webhook.url("/ok")
            $0.postgres = database
        }
        #expect(try eventually { try log.committed(partition: 0) == 3 }, "\(stage.failureText)")
        func counts(_ person: UserID) -> [Int?] {
            webhook.calls.filter { $0.user == person.description }.flatMap { call in
                let chat = (call.object["chats"] as? [[String: Any]])?.first
                return [call.object["count"] as? Int, chat?["count"] as? Int, chat?["new"] as? Int]
            }
        }
        #expect(counts(user) == [8, 8, 1])
        #expect(counts(reader) == [2, 2, 1])
        #expect(counts(done) == [], "who has read it all is not told")
        stage.stop()
        try log.push(user, seq: 10)
        let without = try log.run {
            $0.webhook = webhook.url("/ok")
            $0.postgres = "host=127.0.0.1 port=9 user=nobody"
        }
        #expect(try eventually { try log.committed(partition: 0) == 4 }, "\(without.failureText)")
        #expect(counts(user).suffix(3) == [1, 1, 1])
        without.stop()
    }

    @Test func `the webhook gets the tokens of the person's devices, and those that it calls gone are removed`() throws
    {
        let user = try member()
        let tokens = [
            PushDevices.Token(device: .random(), provider: "fcm", token: "one"),
            PushDevices.Token(device: .random(), provider: "apns", token: "two"),
        ]
        func put() throws {
            var store = try StoreConnection(database)
            for token in tokens { for change in PushDevices.put(token, of: user) { try store.run(change) } }
        }
        func kept() throws -> Int {
            var store = try StoreConnection(database)
            return try store.rows(PushDevices.tokens(of: [user])).count
        }
        for (path, left, offset) in [("/ok", 2, 1), ("/status/404", 2, 2), ("/gone", 0, 3), ("/status/410", 0, 4)]
            as [(String, Int, Int64)]
        {
            try put()
            try log.push(user, seq: Int(offset))
            let stage = try log.run {
                $0.webhook = webhook.url(path)
                $0.postgres = database
            }
            #expect(try eventually { try log.committed(partition: 0) == offset }, "\(path) \(stage.failureText)")
            #expect(try eventually { try kept() == left }, "\(path)")
            stage.stop()
            let devices = webhook.calls.last?.object["devices"] as? [[String: Any]] ?? []
            #expect(Set(devices.compactMap { $0["token"] as? String }) == ["one", "two"])
            #expect(Set(devices.compactMap { $0["provider"] as? String }) == ["fcm", "apns"])
        }
    }
}
