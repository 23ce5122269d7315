import Wire

/// The little that the generator needs of a `message` event, read at the places where Fanout's writer puts it: the
/// generator shares the cores with what it measures, so it must not cost more than a real device's share of it.
enum EventFrame {
    /// `{"type":"message","chat":"…","seq":N,"id":"…",…`
    static func message(_ bytes: Span<UInt8>) -> (seq: Int64, id: MessageID)? {
        let seqStart = 70
        guard bytes.count > seqStart + 46, bytes[9] == UInt8(ascii: "m"), bytes[10] == UInt8(ascii: "e"),
            bytes[11] == UInt8(ascii: "s"), bytes[seqStart - 3] == UInt8(ascii: "q")
        else { return nil }
        var index = seqStart
        var seq: Int64 = 0
        while bytes[index] &- 0x30 < 10 {
            seq = seq &* 10 &+ Int64(bytes[index] &- 0x30)
            index &+= 1
        }
        // `,"id":"`
        let start = index + 7
        guard start + 36 < bytes.count, let id = MessageID(text: bytes.extracting(start..<start + 36)) else {
            return nil
        }
        return (seq, id)
    }

    enum Answer {
        case hello
        case caughtUp
        case sent(MessageID)
        case refused(MessageID?, code: String, retryAfterMs: Int64?)
        case other
    }

    private enum Field: String, CaseIterable {
        case type, id, code
        case retryAfter = "retry_after_ms"
    }
    private static let fields = JSONFields<Field>()

    /// Any other frame, read by its fields.
    static func answer(_ bytes: Span<UInt8>) throws(JSONError) -> Answer {
        var type = ""
        var code = ""
        var id: MessageID?
        var retryAfterMs: Int64?
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch fields.find(name, in: bytes) {
            case .type: type = try reader.readText()
            case .code: code = try reader.readText()
            case .id: id = try reader.readID()
            case .retryAfter: retryAfterMs = try reader.readInt()
            case nil: try reader.skipValue()
            }
        }
        switch type {
        case "hello": return .hello
        case "caught_up": return .caughtUp
        case "sent":
            guard let id else { throw JSONError(.missingField, at: 0) }
            return .sent(id)
        case "error": return .refused(id, code: code, retryAfterMs: retryAfterMs)
        default: return .other
        }
    }
}
