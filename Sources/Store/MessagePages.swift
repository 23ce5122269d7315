internal import PostgresClient
public import Wire

/// Pages of one chat's history, by `seq`: all that a client has of a message's place (docs/decisions/005).
///
/// Messages are kept by (chat, ts, seq), which orders a chat as seq alone does. The sink's marks say between which times a
/// seq of a partition lies, so a page walks the primary key from there and touches only the days that it lies in.
///
/// `readableFromMs` comes from `Membership.standing`: who has no standing in the chat has no page of it either.
public enum MessagePages {
    /// The last messages before a seq (or of all), newest first.
    ///
    /// - Parameter partition: the chat's, among the chat-side topics.
    public static func before(
        _ seq: Int64?, in chat: ChatID, partition: Int32, readableFromMs: Int64, limit: Int
    ) -> Statement<StoredMessage> {
        Statement(
            "pages.before",
            """
            SELECT \(StoredMessage.columns) FROM messages
            WHERE chat_id = $1 AND seq < $2 AND ts >= $3 AND kind IN ('text', 'deleted')
              AND ts <= coalesce((SELECT ts FROM sink_marks WHERE partition = $5 AND seq >= $2 ORDER BY seq LIMIT 1),
                                 \(Int64.max))
            ORDER BY ts DESC, seq DESC LIMIT $4
            """,
            [.id(chat), .int(seq ?? .max), .int(readableFromMs), .int(Int64(limit)), .int(Int64(partition))],
            StoredMessage.read)
    }

    /// The first messages after a seq, oldest first.
    public static func after(
        _ seq: Int64, in chat: ChatID, partition: Int32, readableFromMs: Int64, limit: Int
    ) -> Statement<StoredMessage> {
        Statement(
            "pages.after",
            """
            SELECT \(StoredMessage.columns) FROM messages
            WHERE chat_id = $1 AND seq > $2 AND ts >= $3 AND kind IN ('text', 'deleted')
              AND ts >= coalesce((SELECT ts FROM sink_marks WHERE partition = $5 AND seq <= $2
                                  ORDER BY seq DESC LIMIT 1), 0)
            ORDER BY ts, seq LIMIT $4
            """,
            [.id(chat), .int(seq), .int(readableFromMs), .int(Int64(limit)), .int(Int64(partition))],
            StoredMessage.read)
    }
}
