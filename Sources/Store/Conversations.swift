internal import PostgresClient
public import Wire

/// A line of the conversation list.
public struct Conversation: Sendable, Equatable {
    public let chat: ChatID
    public let isDirect: Bool
    public let title: String?
    /// The other one of a direct chat.
    public let peer: UserID?
    public let peerName: String?
    public let isAdmin: Bool
    public let metaVersion: Int64
    /// The last message, if there was one since the user joined.
    public let lastSeq: Int64?
    public let lastFrom: UserID?
    public let lastPreview: String?
    /// When something was last said, or else when the chat was made.
    public let activeAtMs: Int64
    public let readSeq: Int64?
    /// Messages of others not yet read, counted up to `Conversations.unreadMax`.
    public let unread: Int

    public var place: ConversationPlace { ConversationPlace(activeAtMs: activeAtMs, chat: chat) }
}

/// Where a page of the conversation list ended. Opaque to clients.
public struct ConversationPlace: Sendable, Hashable {
    public let activeAtMs: Int64
    public let chat: ChatID

    public init(activeAtMs: Int64, chat: ChatID) {
        self.activeAtMs = activeAtMs
        self.chat = chat
    }

    public init?(token: String) {
        let parts = token.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].utf8.count <= 13, let activeAtMs = Int64(parts[0], radix: 36),
            activeAtMs >= 0, let chat = ChatID(parts[1])
        else { return nil }
        self.init(activeAtMs: activeAtMs, chat: chat)
    }

    public var token: String { String(activeAtMs, radix: 36) + "." + chat.description }
}

/// The conversation list, newest first. A page token names a place in time: a chat in which nothing is said while a client
/// pages is listed once, and one that becomes active moves before the place, where the client's live events tell of it.
public enum Conversations {
    public static let limitMax = 200
    /// Counting stops here: nobody reads the difference between 100 and 1,000.
    public static let unreadMax = 100

    public static func of(
        _ user: UserID, before place: ConversationPlace? = nil, limit: Int
    ) -> Statement<Conversation> {
        let place = place ?? ConversationPlace(activeAtMs: .max, chat: ChatID(UUID(high: .max, low: .max)))
        return Statement(
            "conversations.page",
            sql(
                choosing: """
                    WHERE m.user_id = $1 AND (coalesce(a.last_ts, j.created_ms), c.chat_id) < ($2, $3)
                    ORDER BY active_at DESC, c.chat_id DESC LIMIT $4
                    """),
            [.id(user), .int(place.activeAtMs), .id(place.chat), .int(Int64(min(max(1, limit), limitMax)))], read)
    }

    /// The line of one chat, if the user is in it.
    public static func one(_ chat: ChatID, of user: UserID) -> Statement<Conversation> {
        Statement(
            "conversations.one", sql(choosing: "WHERE m.user_id = $1 AND m.chat_id = $2"), [.id(user), .id(chat)], read)
    }

    private static func sql(choosing choice: String) -> String {
        """
        SELECT p.chat_id, p.kind = 'direct', p.title, peer.user_id, u.name, p.role = 'admin', p.meta_version,
               p.last_seq, p.last_sender, p.last_preview, p.active_at, r.read_seq, coalesce(unread.count, 0)
        FROM (
            SELECT c.chat_id, c.kind, c.title, c.meta_version, m.role, a.last_seq, a.last_sender, a.last_preview,
                   CASE WHEN c.open_history THEN 0 ELSE j.joined_ms END AS readable_from,
                   coalesce(a.last_ts, j.created_ms) AS active_at
            FROM members m JOIN chats c USING (chat_id),
                 LATERAL (SELECT floor(extract(epoch FROM m.joined_at) * 1000)::bigint AS joined_ms,
                                 floor(extract(epoch FROM c.created_at) * 1000)::bigint AS created_ms) j
                 LEFT JOIN LATERAL (
                     SELECT * FROM chat_activity x
                     WHERE x.chat_id = m.chat_id AND (c.open_history OR x.last_ts >= j.joined_ms)
                 ) a ON true
            \(choice)
        ) p
        LEFT JOIN LATERAL (
            SELECT o.user_id FROM members o
            WHERE p.kind = 'direct' AND o.chat_id = p.chat_id AND o.user_id <> $1 LIMIT 1
        ) peer ON true
        LEFT JOIN users u ON u.user_id = peer.user_id
        LEFT JOIN read_state r ON r.user_id = $1 AND r.chat_id = p.chat_id
        LEFT JOIN LATERAL (
            SELECT count(*) FROM (
                SELECT FROM messages n
                WHERE n.chat_id = p.chat_id AND n.ts >= greatest(coalesce(r.read_ts, 0), p.readable_from)
                  AND n.seq > coalesce(r.read_seq, -1) AND n.sender <> $1 AND n.kind = 'text'
                LIMIT \(unreadMax)
            ) few
        ) unread ON p.last_seq > coalesce(r.read_seq, -1)
        ORDER BY p.active_at DESC, p.chat_id DESC
        """
    }

    private static let read: @Sendable (borrowing PostgresResult, Int) -> Conversation? = { row, index in
        guard let chat: ChatID = row.id(index, 0), let isDirect = row.bool(index, 1),
            let isAdmin = row.bool(index, 5), let metaVersion = row.int(index, 6),
            let activeAtMs = row.int(index, 10), let unread = row.int(index, 12)
        else { return nil }
        return Conversation(
            chat: chat, isDirect: isDirect, title: row.text(index, 2), peer: row.id(index, 3),
            peerName: row.text(index, 4), isAdmin: isAdmin, metaVersion: metaVersion, lastSeq: row.int(index, 7),
            lastFrom: row.id(index, 8), lastPreview: row.text(index, 9), activeAtMs: activeAtMs,
            readSeq: row.int(index, 11), unread: Int(unread))
    }
}
