/// A row change in Debezium's JSON form, as CDC writes it to `chat.members`, `chat.users` and tables of one's own:
///
///     {"op":"c","before":null,"after":{…},"source":{"table":"members","lsn":…,"txId":…,"ts_ms":…,"snapshot":false},"ts_ms":…}
///
/// The rows stay raw: `before` and `after` are ranges of the bytes that were decoded.
public struct ChangeEnvelope: Equatable, Sendable {
    public enum Operation: String, Sendable, CaseIterable {
        /// Read by a snapshot.
        case read = "r"
        case create = "c"
        case update = "u"
        case delete = "d"
    }

    public var operation: Operation
    public var before: Range<Int>?
    public var after: Range<Int>?
    public var table: JSONString
    public var lsn: Int64?
    /// The transaction that made the change: the changes of one stand together in a partition.
    public var transaction: Int64?
    /// A snapshot of a topic that had records already: the row may have changed meanwhile, with no other record of it.
    public var isReadAgain: Bool

    enum Field: String, CaseIterable { case op, before, after, source }
    enum SourceField: String, CaseIterable { case table, lsn, txId, again }
    private static let fields = JSONFields<Field>()
    private static let sourceFields = JSONFields<SourceField>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var operation: Operation?
        var table: JSONString?
        before = nil
        after = nil
        lsn = nil
        transaction = nil
        isReadAgain = false
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .op: operation = try reader.readCase()
            case .before: before = try reader.readNull() ? nil : try reader.skipValue()
            case .after: after = try reader.readNull() ? nil : try reader.skipValue()
            case .source:
                try reader.beginObject()
                while let name = try reader.nextField() {
                    switch Self.sourceFields.find(name, in: bytes) {
                    case .table: table = try reader.readString()
                    case .lsn: lsn = try reader.readNull() ? nil : try reader.readInt()
                    case .txId: transaction = try reader.readNull() ? nil : try reader.readInt()
                    case .again: isReadAgain = try reader.readNull() ? false : try reader.readBool()
                    case nil: try reader.skipValue()
                    }
                }
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let operation, let table, (operation == .delete ? before : after) != nil else {
            throw JSONError(.missingField, at: bytes.count)
        }
        (self.operation, self.table) = (operation, table)
    }

    /// The row that the change is about: the new one, or for a delete the old one.
    public var row: Range<Int> { (operation == .delete ? before : after) ?? 0..<0 }
}

/// A row of table `members`.
public struct MemberRow: Equatable, Sendable {
    public enum Role: String, Sendable, CaseIterable { case member, admin }

    public var chat: ChatID
    public var user: UserID
    public var role: Role = .member

    enum Field: String, CaseIterable {
        case chat = "chat_id"
        case user = "user_id"
        case role
    }
    private static let fields = JSONFields<Field>()

    /// Also reads a key (`{"chat_id","user_id"}`), which names the row without its role.
    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var chat: ChatID?
        var user: UserID?
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .chat: chat = try reader.readID()
            case .user: user = try reader.readID()
            case .role:
                if try reader.readNull() { continue }
                role = (try reader.readString()).equals("admin", in: bytes) ? .admin : .member
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let chat, let user else { throw JSONError(.missingField, at: bytes.count) }
        (self.chat, self.user) = (chat, user)
    }
}

/// A row of table `chats`, as far as the pipeline needs it.
public struct ChatRow: Equatable, Sendable {
    public var chat: ChatID
    public var isDirect = false
    public var metaVersion: Int64 = 0

    enum Field: String, CaseIterable {
        case chat = "chat_id"
        case kind
        case metaVersion = "meta_version"
    }
    private static let fields = JSONFields<Field>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var chat: ChatID?
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .chat: chat = try reader.readID()
            case .kind: isDirect = try reader.readNull() ? false : (try reader.readString()).equals("direct", in: bytes)
            case .metaVersion: metaVersion = try reader.readNull() ? 0 : try reader.readInt()
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let chat else { throw JSONError(.missingField, at: bytes.count) }
        self.chat = chat
    }
}

/// A row of table `users`, as far as the pipeline needs it.
public struct UserRow: Equatable, Sendable {
    public var user: UserID
    public var disabled = false
    /// Tokens issued before this time (milliseconds) are revoked.
    public var tokensValidAfterMs: Int64 = 0

    enum Field: String, CaseIterable {
        case user = "user_id"
        case disabled
        case tokensValidAfter = "tokens_valid_after"
    }
    private static let fields = JSONFields<Field>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var user: UserID?
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .user: user = try reader.readID()
            case .disabled: disabled = try reader.readNull() ? false : try reader.readBool()
            case .tokensValidAfter: tokensValidAfterMs = try reader.readNull() ? 0 : try reader.readInt()
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let user else { throw JSONError(.missingField, at: bytes.count) }
        self.user = user
    }
}
