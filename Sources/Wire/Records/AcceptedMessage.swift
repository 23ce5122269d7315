/// A value of `chat.messages`: a message that the join has accepted, with its place.
///
///     {"id","chat","seq","from","device","ts","kind","text"?,"attachments"?,"reply_to"?,"target"?,"client_ts"?}
///
/// Every accepted message stands here in the order of its chat's `seq`; after a crash of the join the last ones may
/// stand here twice, so a reader drops what is not above the last `seq` it has of a partition.
public struct AcceptedMessage: Equatable, Sendable {
    public var id: MessageID
    public var chat: ChatID
    /// The message's offset in `chat.incoming`: its place among all messages of its chat.
    public var seq: Int64
    public var from: UserID
    public var device: DeviceID
    /// Milliseconds; never runs backwards along `seq`.
    public var ts: Int64
    public var kind: IncomingMessage.Kind
    public var text: JSONString?
    /// The raw JSON array.
    public var attachments: Range<Int>?
    public var replyTo: Int64?
    /// The seq of the message that an edit or delete is about.
    public var target: Int64?
    public var clientTs: Int64?

    enum Field: String, CaseIterable {
        case id, chat, seq, from, device, ts, kind, text, attachments, target
        case replyTo = "reply_to"
        case clientTs = "client_ts"
    }
    private static let fields = JSONFields<Field>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var id: MessageID?
        var chat: ChatID?
        var seq: Int64?
        var from: UserID?
        var device: DeviceID?
        var ts: Int64?
        var kind: IncomingMessage.Kind?
        (text, attachments, replyTo, target, clientTs) = (nil, nil, nil, nil, nil)
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .id: id = try reader.readID()
            case .chat: chat = try reader.readID()
            case .seq: seq = try reader.readInt()
            case .from: from = try reader.readID()
            case .device: device = try reader.readID()
            case .ts: ts = try reader.readInt()
            case .kind: kind = try reader.readCase()
            case .text: text = try reader.readString()
            case .attachments:
                guard try reader.peek() == .array else { throw JSONError(.wrongType, at: reader.offset) }
                attachments = try reader.skipValue()
            case .replyTo: replyTo = try reader.readInt()
            case .target: target = try reader.readInt()
            case .clientTs: clientTs = try reader.readInt()
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let id, let chat, let seq, let from, let device, let ts, let kind else {
            throw JSONError(.missingField, at: bytes.count)
        }
        (self.id, self.chat, self.seq, self.from, self.device) = (id, chat, seq, from, device)
        (self.ts, self.kind) = (ts, kind)
    }
}

extension IncomingMessage {
    /// Writes the message as accepted at this place: the value of `chat.messages`.
    public func writeAccepted(seq: Int64, ts: Int64, to json: inout JSONWriter, source bytes: Span<UInt8>) {
        json.beginObject()
        json.field("id", id)
        json.field("chat", chat)
        json.field("seq", seq)
        json.field("from", from)
        json.field("device", device)
        json.field("ts", ts)
        json.field("kind", kind.rawValue)
        writeContent(to: &json, source: bytes)
        if let clientTs { json.field("client_ts", clientTs) }
        json.endObject()
    }

    /// Writes the event that recipients see.
    public func writeEvent(seq: Int64, ts: Int64, to json: inout JSONWriter, source bytes: Span<UInt8>) {
        json.beginObject()
        json.field("type", "message")
        json.field("chat", chat)
        json.field("seq", seq)
        json.field("id", id)
        json.field("from", from)
        json.field("ts", ts)
        json.field("kind", kind.rawValue)
        writeContent(to: &json, source: bytes)
        if let clientTs { json.field("client_ts", clientTs) }
        json.endObject()
    }
}
