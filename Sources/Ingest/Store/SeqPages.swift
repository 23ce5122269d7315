import PostgresClient
import Store
import Wire

/// History by `seq`, which is all that a client has. Messages are kept by (chat, ts, seq); the sink's marks say between which
/// times a seq of a partition lies, so that only the days in question are touched.
enum SeqPages {
    /// The last messages before a seq (or of all), newest first.
    static func before(
        _ seq: Int64?, in chat: ChatID, partition: Int32, readableFromMs: Int64, limit: Int
    ) -> Store.Statement<StoredMessage> {
        Store.Statement(
            "ingest.before",
            """
            SELECT \(StoredMessage.columns) FROM messages
            WHERE chat_id = $1 AND seq < $2 AND ts >= $3 AND kind IN ('text', 'deleted')
              AND ts <= coalesce((SELECT ts FROM sink_marks WHERE partition = $5 AND seq >= $2 ORDER BY seq LIMIT 1),
                                 9223372036854775807)
            ORDER BY ts DESC, seq DESC LIMIT $4
            """,
            [.id(chat), .int(seq ?? .max), .int(readableFromMs), .int(Int64(limit)), .int(Int64(partition))],
            StoredMessage.read)
    }

    /// The first messages after a seq, oldest first.
    static func after(
        _ seq: Int64, in chat: ChatID, partition: Int32, readableFromMs: Int64, limit: Int
    ) -> Store.Statement<StoredMessage> {
        Store.Statement(
            "ingest.after",
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
