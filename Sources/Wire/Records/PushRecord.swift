/// A value of `chat.push`: what somebody without a session has missed in one chat since the last record about it.
///
///     {"user":"…","chat":"…","count":3,"at":1700000000000,"last":{"type":"message",…}}
public struct PushRecord: Equatable, Sendable {
    public var user: UserID
    public var chat: ChatID
    /// How many messages this record stands for.
    public var count: Int64
    /// When the owner of the user's partition found no session to give the newest message to, by the same clock as
    /// `PresenceRecord.lastSeen`: whoever was seen later has got it. Old records lack it.
    public var at: Int64?
    /// Where the newest message's event stands: the raw JSON object.
    public var last: Range<Int>

    enum Field: String, CaseIterable { case user, chat, count, at, last }
    private static let fields = JSONFields<Field>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var user: UserID?
        var chat: ChatID?
        var count: Int64?
        var at: Int64?
        var last: Range<Int>?
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .user: user = try reader.readID()
            case .chat: chat = try reader.readID()
            case .count: count = try reader.readInt()
            case .at: at = try reader.readInt()
            case .last:
                guard try reader.peek() == .object else { throw JSONError(.wrongType, at: reader.offset) }
                last = try reader.skipValue()
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let user, let chat, let count, let last else { throw JSONError(.missingField, at: bytes.count) }
        guard count > 0 else { throw JSONError(.badValue, at: 0) }
        (self.user, self.chat, self.count, self.at, self.last) = (user, chat, count, at, last)
    }

    public static func write(
        user: UserID, chat: ChatID, count: Int, at: Int64, last: Span<UInt8>, to json: inout JSONWriter
    ) {
        json.beginObject()
        json.field("user", user)
        json.field("chat", chat)
        json.field("count", count)
        json.field("at", at)
        json.field("last", raw: last)
        json.endObject()
    }
}

/// A value of `chat.presence`: whether somebody has a session, and since when not.
public struct PresenceRecord: Equatable, Sendable {
    public enum Status: String, Sendable, CaseIterable { case online, offline }

    public var user: UserID
    public var status: Status
    public var lastSeen: Int64

    public init(user: UserID, status: Status, lastSeen: Int64) {
        (self.user, self.status, self.lastSeen) = (user, status, lastSeen)
    }

    enum Field: String, CaseIterable {
        case user, status
        case lastSeen = "last_seen"
    }
    private static let fields = JSONFields<Field>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var user: UserID?
        var status: Status?
        var lastSeen: Int64?
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .user: user = try reader.readID()
            case .status: status = try reader.readCase()
            case .lastSeen: lastSeen = try reader.readInt()
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let user, let status, let lastSeen else { throw JSONError(.missingField, at: bytes.count) }
        self.init(user: user, status: status, lastSeen: lastSeen)
    }

    public func write(to json: inout JSONWriter) {
        json.beginObject()
        json.field("user", user)
        json.field("status", status.rawValue)
        json.field("last_seen", lastSeen)
        json.endObject()
    }
}
