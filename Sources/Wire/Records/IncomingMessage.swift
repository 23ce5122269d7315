/// A value of `chat.incoming`: a message as its sender's chat server accepted it.
///
/// What only passes through (text, attachments) stays where it is in the record's bytes and is spliced into the output
/// untouched; the ranges are only meaningful together with the bytes that were decoded.
public struct IncomingMessage: Equatable, Sendable {
    public enum Kind: String, Sendable, CaseIterable {
        case text
        /// Replaces the text of the message at `target`.
        case edit
        /// Takes back the message at `target`.
        case delete
    }

    /// Chosen by the client; (from, id) is what repeats are recognised by.
    public var id: MessageID
    public var chat: ChatID
    public var from: UserID
    public var device: DeviceID
    public var kind: Kind
    public var text: JSONString?
    /// The raw JSON array.
    public var attachments: Range<Int>?
    public var replyTo: Int64?
    /// The seq of the message that an edit or delete is about.
    public var target: Int64?
    /// What the client's clock said: shown, never ordered by.
    public var clientTs: Int64?
    /// The highest membership version that the sender has seen: the join waits until its table has reached it.
    public var metaVersion: Int64

    public static let textCharactersMax = 10_000

    enum Field: String, CaseIterable {
        case id, chat, from, device, kind, text, attachments, target
        case replyTo = "reply_to"
        case clientTs = "client_ts"
        case metaVersion = "meta_version"
    }
    private static let fields = JSONFields<Field>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var id: MessageID?
        var chat: ChatID?
        var from: UserID?
        var device: DeviceID?
        var kind: Kind?
        var reader = JSONReader(bytes)
        text = nil
        attachments = nil
        replyTo = nil
        target = nil
        clientTs = nil
        metaVersion = 0
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .id: id = try reader.readID()
            case .chat: chat = try reader.readID()
            case .from: from = try reader.readID()
            case .device: device = try reader.readID()
            case .kind: kind = try reader.readCase()
            case .text: text = try reader.readString()
            case .attachments:
                guard try reader.peek() == .array else { throw JSONError(.wrongType, at: reader.offset) }
                attachments = try reader.skipValue()
            case .replyTo: replyTo = try reader.readInt()
            case .target: target = try reader.readInt()
            case .clientTs: clientTs = try reader.readInt()
            case .metaVersion: metaVersion = try reader.readInt()
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let id, let chat, let from, let device, let kind,
            kind == .delete || text != nil, kind == .text || target != nil
        else { throw JSONError(.missingField, at: bytes.count) }
        (self.id, self.chat, self.from, self.device, self.kind) = (id, chat, from, device, kind)
    }

    /// For writers: the text and attachments are given as raw JSON beside it.
    public init(id: MessageID, chat: ChatID, from: UserID, device: DeviceID, kind: Kind, metaVersion: Int64 = 0) {
        (self.id, self.chat, self.from, self.device, self.kind) = (id, chat, from, device, kind)
        self.metaVersion = metaVersion
    }

    /// Writes the record's value. `bytes` are those that `text` and `attachments` point into.
    public func write(to json: inout JSONWriter, source bytes: Span<UInt8>) {
        json.beginObject()
        json.field("id", id)
        json.field("chat", chat)
        json.field("from", from)
        json.field("device", device)
        json.field("kind", kind.rawValue)
        if let clientTs { json.field("client_ts", clientTs) }
        writeContent(to: &json, source: bytes)
        if metaVersion > 0 { json.field("meta_version", metaVersion) }
        json.endObject()
    }

    /// The fields that recipients see as the sender wrote them.
    public func writeContent(to json: inout JSONWriter, source bytes: Span<UInt8>) {
        if let text { json.field("text", raw: bytes.extracting(text.quotedRange)) }
        if let attachments { json.field("attachments", raw: bytes.extracting(attachments)) }
        if let replyTo { json.field("reply_to", replyTo) }
        if let target { json.field("target", target) }
    }
}
