public import Store
public import Wire

/// What a receiver gets. Documented in docs/push.md; fields are only ever added.
///
///     {"id":"…","user":"…","count":3,"ts":1700000000000,
///      "chats":[{"chat":"…","count":3,"new":2,"seq":120,"from":"…","preview":"the newest text"}],
///      "devices":[{"device":"…","provider":"fcm","token":"…"}]}
public enum NoticeBody {
    public static let previewScalarsMax = 160

    /// - Parameters:
    ///   - devices: the tokens by which the webhook's own receivers know the person's devices.
    ///   - chatsMax: lists only so many, the newest; the counts are those of the whole notice.
    public static func write(
        _ notice: Notice, devices: [PushDevices.Token] = [], showsPreview: Bool, chatsMax: Int = .max, nowMs: Int64,
        to json: inout JSONWriter
    ) {
        var id: [UInt8] = []
        notice.appendIdempotencyKey(to: &id)
        json.object { json in
            json.field("id", utf8: id.span)
            json.field("user", notice.user)
            json.field("count", notice.count)
            json.field("ts", nowMs)
            json.name("chats")
            json.array { json in
                for part in notice.chats.suffix(chatsMax) {
                    json.object { write(part, showsPreview: showsPreview, to: &$0) }
                }
            }
            guard !devices.isEmpty else { return }
            json.name("devices")
            json.array { json in
                for device in devices {
                    json.object {
                        $0.field("device", device.device)
                        $0.field("provider", device.provider)
                        $0.field("token", device.token)
                    }
                }
            }
        }
    }

    private static func write(_ part: Notice.ChatPart, showsPreview: Bool, to json: inout JSONWriter) {
        let event = LastEvent(part.last.span)
        json.field("chat", part.chat)
        json.field("count", part.count)
        json.field("new", part.gathered)
        json.field("seq", part.lastSeq)
        if let from = event.from { json.field("from", from) }
        if showsPreview, let text = event.text { writePreview(text, part.last.span, to: &json) }
    }

    /// The beginning of a text, cut between characters; a short one goes through as it was written.
    private static func writePreview(_ text: JSONString, _ event: Span<UInt8>, to json: inout JSONWriter) {
        guard text.range.count > previewScalarsMax, text.scalarCount(in: event) > previewScalarsMax else {
            return json.field("preview", raw: event.extracting(text.quotedRange))
        }
        json.field("preview", String(text.text(in: event).prefix(previewScalarsMax)) + "…")
    }
}

/// What a notice needs of a `message` event.
public struct LastEvent: Sendable {
    public private(set) var from: UserID?
    public private(set) var text: JSONString?
    public private(set) var seq: Int64 = 0

    private enum Field: String, CaseIterable { case from, text, seq }
    private static let fields = JSONFields<Field>()

    /// An event that lacks a field, or has it in another form, is shown without it: it has been delivered elsewhere.
    public init(_ bytes: Span<UInt8>) {
        do throws(JSONError) {
            var reader = JSONReader(bytes)
            try reader.beginObject()
            while let name = try reader.nextField() {
                switch Self.fields.find(name, in: bytes) {
                case .from: from = try reader.readID()
                case .text: text = try reader.readString()
                case .seq: seq = try reader.readInt()
                case nil: try reader.skipValue()
                }
            }
        } catch {
            return
        }
    }

    /// Clients write a mention as `@` and the person's id.
    public func mentions(_ user: UserID, in event: Span<UInt8>) -> Bool {
        guard let text else { return false }
        guard !text.hasEscapes else {
            var decoded: [UInt8] = []
            text.appendDecoded(from: event, to: &decoded)
            return Self.mention(of: user, in: decoded.span)
        }
        return Self.mention(of: user, in: event.extracting(text.range))
    }

    private static func mention(of user: UserID, in text: Span<UInt8>) -> Bool {
        var index = 0
        while index + UUID.textCount < text.count {
            index += 1
            guard text[index - 1] == UInt8(ascii: "@") else { continue }
            if UUID(text: text.extracting(index..<index + UUID.textCount)) == user.uuid { return true }
        }
        return false
    }
}
