/// A value of `chat.signals`: typing and receipts.
public struct Signal: Equatable, Sendable {
    public enum Kind: String, Sendable, CaseIterable {
        case typing, delivered, read
    }

    public var chat: ChatID
    public var from: UserID
    public var device: DeviceID
    public var kind: Kind
    /// The last message that was delivered or read; typing has none.
    public var seq: Int64?
    public var ts: Int64

    public init(chat: ChatID, from: UserID, device: DeviceID, kind: Kind, seq: Int64? = nil, ts: Int64) {
        (self.chat, self.from, self.device, self.kind, self.seq, self.ts) = (chat, from, device, kind, seq, ts)
    }

    enum Field: String, CaseIterable { case chat, from, device, kind, seq, ts }
    private static let fields = JSONFields<Field>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var chat: ChatID?
        var from: UserID?
        var device: DeviceID?
        var kind: Kind?
        var seq: Int64?
        var ts: Int64?
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .chat: chat = try reader.readID()
            case .from: from = try reader.readID()
            case .device: device = try reader.readID()
            case .kind: kind = try reader.readCase()
            case .seq: seq = try reader.readInt()
            case .ts: ts = try reader.readInt()
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let chat, let from, let device, let kind, let ts, kind == .typing || seq != nil else {
            throw JSONError(.missingField, at: bytes.count)
        }
        self.init(chat: chat, from: from, device: device, kind: kind, seq: seq, ts: ts)
    }

    public func write(to json: inout JSONWriter) {
        json.beginObject()
        json.field("chat", chat)
        json.field("from", from)
        json.field("device", device)
        json.field("kind", kind.rawValue)
        if let seq { json.field("seq", seq) }
        json.field("ts", ts)
        json.endObject()
    }
}
