internal import PostgresClient
public import Wire

/// Pages of one chat's history. Both walk the primary key, and touch only the days that the page lies in.
///
/// `readableFromMs` comes from `Membership.standing`: who has no standing in the chat has no page of it either.
public enum MessagePages {
    public static let limitMax = 200

    /// The last messages before a place (or the newest of all), newest first.
    public static func before(
        _ place: MessagePlace?, in chat: ChatID, readableFromMs: Int64, limit: Int
    ) -> Statement<StoredMessage> {
        let place = place ?? MessagePlace(ts: .max, seq: .max)
        return Statement(
            "pages.before",
            """
            SELECT \(StoredMessage.columns) FROM messages
            WHERE chat_id = $1 AND ts <= $2 AND ts >= $4 AND (ts, seq) < ($2, $3) AND kind IN ('text', 'deleted')
            ORDER BY ts DESC, seq DESC LIMIT $5
            """,
            [
                .id(chat), .int(place.ts), .int(place.seq), .int(readableFromMs),
                .int(Int64(min(max(1, limit), limitMax))),
            ], StoredMessage.read)
    }

    /// The first messages after a place, oldest first.
    public static func after(
        _ place: MessagePlace, in chat: ChatID, readableFromMs: Int64, limit: Int
    ) -> Statement<StoredMessage> {
        Statement(
            "pages.after",
            """
            SELECT \(StoredMessage.columns) FROM messages
            WHERE chat_id = $1 AND ts >= $2 AND ts >= $4 AND (ts, seq) > ($2, $3) AND kind IN ('text', 'deleted')
            ORDER BY ts, seq LIMIT $5
            """,
            [
                .id(chat), .int(place.ts), .int(place.seq), .int(readableFromMs),
                .int(Int64(min(max(1, limit), limitMax))),
            ], StoredMessage.read)
    }
}
