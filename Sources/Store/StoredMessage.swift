public import PostgresClient
public import Wire

/// A row of `messages`.
public struct StoredMessage: Sendable, Equatable {
    public let chat: ChatID
    public let ts: Int64
    public let seq: Int64
    public let id: MessageID
    public let from: UserID
    /// `text`, `edit`, `delete`, or `deleted` for a message that was taken back.
    public let kind: String
    /// A JSON object: what the sender wrote.
    public let body: [UInt8]
    /// The seq of the last edit or delete that was applied to it.
    public let changedSeq: Int64?

    public static let columns = "chat_id, ts, seq, message_id, sender, kind, body, changed_seq"

    /// A row of `columns`.
    public static let read: @Sendable (borrowing PostgresResult, Int) -> StoredMessage? = { row, index in
        guard let chat: ChatID = row.id(index, 0), let ts = row.int(index, 1), let seq = row.int(index, 2),
            let id: MessageID = row.id(index, 3), let from: UserID = row.id(index, 4), let kind = row.text(index, 5)
        else { return nil }
        return StoredMessage(
            chat: chat, ts: ts, seq: seq, id: id, from: from, kind: kind,
            body: [UInt8](copying: row.bytes(index, 6)), changedSeq: row.int(index, 7))
    }

    /// Writes the event that devices see, the same as when it was live but without a cursor; one that was changed since
    /// says by which seq.
    public func writeEvent(to json: inout JSONWriter) {
        json.beginObject()
        json.field("type", "message")
        json.field("chat", chat)
        json.field("seq", seq)
        json.field("id", id)
        json.field("from", from)
        json.field("ts", ts)
        json.field("kind", kind)
        if let changedSeq { json.field("changed_seq", changedSeq) }
        // The body's fields, spliced in without their braces.
        if body.count > 2 {
            json.bytes.append(UInt8(ascii: ","))
            json.bytes.append(body.span.extracting(1..<body.count - 1))
        }
        json.endObject()
    }
}
