import PostgresClient
import Store
import TestSupport
import Wire

/// A fresh database with the whole schema, and partitions of `messages` for some days around `dayMs`.
func freshStore(days: Int = 3, from dayMs: Int64 = 0) throws -> StoreConnection {
    var store = try StoreConnection(try PostgresCluster.shared().freshDatabase())
    try Migrations.apply(to: &store.postgres)
    for day in 0..<days {
        let start = dayMs + Int64(day) * 86_400_000
        try store.postgres.execute(
            "CREATE TABLE messages_\(day) PARTITION OF messages FOR VALUES FROM (\(start)) TO (\(start + 86_400_000))")
    }
    return store
}

extension StoreConnection {
    /// Stores a text message as the sink would.
    mutating func say(
        _ text: String, by user: UserID, in chat: ChatID, ts: Int64, seq: Int64, kind: String = "text"
    ) throws {
        try postgres.query(
            "INSERT INTO messages (chat_id, ts, seq, message_id, sender, kind, body) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [
                .id(chat), .int(ts), .int(seq), .uuid(.random()), .id(user), .text(kind),
                .text("{\"text\":\"\(text)\"}"),
            ])
        try postgres.query(
            """
            INSERT INTO chat_activity (chat_id, last_seq, last_ts, changed_ts, last_preview, last_sender)
            VALUES ($1, $2, $3, $3, $4, $5)
            ON CONFLICT (chat_id) DO UPDATE SET last_seq = excluded.last_seq, last_ts = excluded.last_ts, changed_ts = excluded.changed_ts,
                last_preview = excluded.last_preview, last_sender = excluded.last_sender
            """, [.id(chat), .int(seq), .int(ts), .text(text), .id(user)])
    }

    /// A chat whose members joined at the beginning of time.
    mutating func group(_ members: [UserID], openHistory: Bool = false) throws -> ChatID {
        let chat = ChatID.random()
        _ = try first(
            Accounts.createGroup(
                chat, title: "group", creator: members[0], members: members, openHistory: openHistory))
        try postgres.query("UPDATE members SET joined_at = to_timestamp(0) WHERE chat_id = $1", [.id(chat)])
        return chat
    }
}
