public import Wire

/// What the webhook gets. Documented in docs/push.md; fields are only ever added.
///
///     {"id":"…","user":"…","count":3,"ts":1700000000000,
///      "chats":[{"chat":"…","count":3,"seq":120,"from":"…","preview":"the newest text"}]}
public enum NoticeBody {
    public static let previewScalarsMax = 160

    public static func write(
        _ notice: Notice, showsPreview: Bool, nowMs: Int64, to json: inout JSONWriter
    ) {
        json.beginObject()
        json.field("id", notice.idempotencyKey)
        json.field("user", notice.user)
        json.field("count", notice.count)
        json.field("ts", nowMs)
        json.name("chats")
        json.beginArray()
        for part in notice.chats {
            let event = LastEvent(part.last)
            json.beginObject()
            json.field("chat", part.chat)
            json.field("count", part.count)
            json.field("seq", part.lastSeq)
            if let from = event.from { json.field("from", from) }
            if showsPreview, let text = event.text { json.field("preview", preview(text)) }
            json.endObject()
        }
        json.endArray()
        json.endObject()
    }

    /// The beginning of a text, cut between characters.
    static func preview(_ text: String) -> String {
        guard text.unicodeScalars.count > previewScalarsMax else { return text }
        return String(text.prefix(previewScalarsMax)) + "…"
    }
}

/// What a notice needs of a `message` event.
public struct LastEvent: Sendable {
    public private(set) var from: UserID?
    public private(set) var text: String?
    public private(set) var seq: Int64 = 0

    private enum Field: String, CaseIterable { case from, text, seq }
    private static let fields = JSONFields<Field>()

    /// An event that lacks a field, or has it in another form, is shown without it: it has been delivered elsewhere.
    public init(_ bytes: [UInt8]) {
        do throws(JSONError) {
            var reader = JSONReader(bytes.span)
            try reader.beginObject()
            while let name = try reader.nextField() {
                switch Self.fields.find(name, in: bytes.span) {
                case .from: from = try reader.readID()
                case .text: text = try reader.readText()
                case .seq: seq = try reader.readInt()
                case nil: try reader.skipValue()
                }
            }
        } catch {
            return
        }
    }

    /// Clients write a mention as `@` and the person's id.
    public func mentions(_ user: UserID) -> Bool {
        guard let text else { return false }
        return text.contains("@\(user)")
    }
}
