import PushLink
import Wire

/// What a device says, in one frame.
enum ClientFrame {
    enum Start: Equatable {
        /// A new device: live events only.
        case live
        /// From where the server last stored the device's cursor.
        case server
        case cursor(Cursor)
        /// A cursor that nobody here wrote: the place is lost.
        case lost
    }

    case hello(Start)
    /// A message, edit or deletion; whose it is, the session knows.
    case send(IncomingMessage)
    case read(chat: ChatID, seq: Int64)
    case delivered(chat: ChatID, seq: Int64)
    case typing(chat: ChatID)
    case ack(Cursor)
    case watch(UserID)
    case unwatch(UserID)
    /// Where the number stands.
    case ping(Range<Int>?)

    /// Why a frame is answered with an error.
    struct Refusal: Error, Equatable {
        let code: ErrorCode
        let message: String
        /// The id that the frame was sent with, if that could be read.
        var id: MessageID?
    }

    private enum Kind: String, CaseIterable {
        case hello, send, edit, delete, read, delivered, typing, ack, watch, unwatch, ping
    }
    private enum Field: String, CaseIterable {
        case type, id, chat, text, attachments, seq, user, cursor, n
        case replyTo = "reply_to"
        case clientTs = "client_ts"
        case metaVersion = "meta_version"
    }
    private static let fields = JSONFields<Field>()

    private static let none = UUID(high: 0, low: 0)

    init(decoding bytes: Span<UInt8>) throws(Refusal) {
        var kind: Kind?
        var id: MessageID?
        var chat: ChatID?
        var user: UserID?
        var seq: Int64?
        var cursor: JSONString?
        var number: Range<Int>?
        var message = IncomingMessage(
            id: ID(Self.none), chat: ID(Self.none), from: ID(Self.none), device: ID(Self.none), kind: .text)
        do throws(JSONError) {
            var reader = JSONReader(bytes)
            try reader.beginObject()
            while let name = try reader.nextField() {
                switch Self.fields.find(name, in: bytes) {
                case .type:
                    let text = try reader.readString()
                    kind = Kind.allCases.first { text.equals($0.rawValue, in: bytes) }
                case .id: id = try reader.readID()
                case .chat: chat = try reader.readID()
                case .user: user = try reader.readID()
                case .text: message.text = try reader.readString()
                case .attachments:
                    if try reader.readNull() { continue }
                    message.attachments = try Self.attachments(&reader)
                case .seq: seq = try reader.readInt()
                case .replyTo: message.replyTo = try reader.readNull() ? nil : try reader.readInt()
                case .clientTs: message.clientTs = try reader.readNull() ? nil : try reader.readInt()
                case .metaVersion: message.metaVersion = try reader.readNull() ? 0 : max(0, try reader.readInt())
                case .cursor: cursor = try reader.readNull() ? nil : try reader.readString()
                case .n:
                    guard try reader.peek() == .number else { throw JSONError(.wrongType, at: reader.offset) }
                    number = try reader.skipValue()
                case nil: try reader.skipValue()
                }
            }
            try reader.finish()
        } catch {
            throw Refusal(code: .badFrame, message: "\(error)", id: id)
        }
        guard let kind else { throw Refusal(code: .badFrame, message: "unknown type", id: id) }
        func missing(_ name: String) -> Refusal {
            Refusal(code: .badFrame, message: "\(kind.rawValue) needs \(name)", id: id)
        }
        switch kind {
        case .hello:
            self = .hello(Self.start(cursor, bytes))
        case .send, .edit, .delete:
            guard let id else { throw missing("id") }
            guard let chat else { throw missing("chat") }
            message.id = id
            message.chat = chat
            message.kind = kind == .send ? .text : kind == .edit ? .edit : .delete
            if kind != .send {
                guard let seq, seq >= 0 else { throw missing("seq") }
                (message.target, message.replyTo, message.attachments) = (seq, nil, nil)
            }
            if kind == .delete { message.text = nil } else if message.text == nil { throw missing("text") }
            if let text = message.text {
                // A scalar takes at least one byte, so most texts need no counting.
                let limit = IncomingMessage.textCharactersMax
                if text.range.count > limit, text.scalarCount(in: bytes) > limit {
                    throw Refusal(code: .tooLarge, message: "a text has at most \(limit) characters", id: id)
                }
                guard !text.range.isEmpty || message.attachments != nil else { throw missing("text") }
            }
            // Postgres keeps such a text, and fails whoever reads it there with SQL.
            if message.text.map({ $0.hasEscapes && Self.holdsNUL($0.range, in: bytes) }) == true {
                throw Refusal(code: .badFrame, message: "text holds a NUL (\\u0000)", id: id)
            }
            if let attachments = message.attachments, Self.holdsNUL(attachments, in: bytes) {
                throw Refusal(code: .badFrame, message: "attachments hold a NUL (\\u0000)", id: id)
            }
            self = .send(message)
        case .read:
            guard let chat, let seq, seq >= 0 else { throw missing("chat and seq") }
            self = .read(chat: chat, seq: seq)
        case .delivered:
            guard let chat, let seq, seq >= 0 else { throw missing("chat and seq") }
            self = .delivered(chat: chat, seq: seq)
        case .typing:
            guard let chat else { throw missing("chat") }
            self = .typing(chat: chat)
        case .ack:
            guard let cursor, let place = Cursor(text: bytes.extracting(cursor.range)) else { throw missing("cursor") }
            self = .ack(place)
        case .watch:
            guard let user else { throw missing("user") }
            self = .watch(user)
        case .unwatch:
            guard let user else { throw missing("user") }
            self = .unwatch(user)
        case .ping:
            self = .ping(number)
        }
    }

    /// An array of objects; what is in these is between clients.
    @_lifetime(reader: copy reader)
    private static func attachments(_ reader: inout JSONReader) throws(JSONError) -> Range<Int> {
        guard try reader.peek() == .array else { throw JSONError(.wrongType, at: reader.offset) }
        let start = reader.offset
        try reader.beginArray()
        while try reader.nextElement() {
            guard try reader.peek() == .object else { throw JSONError(.wrongType, at: reader.offset) }
            try reader.skipValue()
        }
        return start..<reader.offset
    }

    /// Whether well-formed JSON has the escape of a NUL in it; the byte itself it cannot have.
    private static func holdsNUL(_ range: Range<Int>, in bytes: Span<UInt8>) -> Bool {
        var index = range.lowerBound
        while index < range.upperBound {
            guard bytes[index] == UInt8(ascii: "\\") else {
                index += 1
                continue
            }
            if index + 6 <= range.upperBound, bytes[index + 1] == UInt8(ascii: "u"),
                (index + 2..<index + 6).allSatisfy({ bytes[$0] == UInt8(ascii: "0") })
            {
                return true
            }
            index += 2
        }
        return false
    }

    private static func start(_ cursor: JSONString?, _ bytes: Span<UInt8>) -> Start {
        guard let cursor else { return .live }
        if cursor.equals("server", in: bytes) { return .server }
        return Cursor(text: bytes.extracting(cursor.range)).map { .cursor($0) } ?? .lost
    }
}
