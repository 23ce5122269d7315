/// A chat's whole membership at one version, as the join has read it from Postgres because the log was late. The join writes
/// it to `chat.members` before it uses it, so that whoever comes after it uses the same. It stands there in the form of
/// a row that a snapshot has read, of a table that there is not in Postgres:
///
///     {"op":"r","before":null,"after":{"chat_id":"…","meta_version":7,"members":[{"user_id":"…","role":"admin"},…]},
///      "source":{"table":"memberships"}}
///
/// A tombstone follows when the rows of the chat itself have come as far.
public struct ChatMembership: Equatable, Sendable {
    public struct Member: Equatable, Sendable {
        public var user: UserID
        public var role: MemberRow.Role

        public init(_ user: UserID, _ role: MemberRow.Role) {
            (self.user, self.role) = (user, role)
        }
    }

    public var chat: ChatID
    public var metaVersion: Int64
    public var members: [Member]

    /// What `source.table` of its envelope says.
    public static let table = "memberships"

    enum Field: String, CaseIterable {
        case chat = "chat_id"
        case metaVersion = "meta_version"
        case members
    }
    enum MemberField: String, CaseIterable {
        case user = "user_id"
        case role
    }
    private static let fields = JSONFields<Field>()
    private static let memberFields = JSONFields<MemberField>()

    public init(chat: ChatID, metaVersion: Int64, members: [Member]) {
        (self.chat, self.metaVersion, self.members) = (chat, metaVersion, members)
    }

    /// - Parameter bytes: the envelope's row.
    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var chat: ChatID?
        var metaVersion: Int64?
        var members: [Member]?
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .chat: chat = try reader.readID()
            case .metaVersion: metaVersion = try reader.readInt()
            case .members: members = try Self.members(&reader, of: bytes)
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let chat, let metaVersion, let members else { throw JSONError(.missingField, at: bytes.count) }
        (self.chat, self.metaVersion, self.members) = (chat, metaVersion, members)
    }

    private static func members(_ reader: inout JSONReader, of bytes: Span<UInt8>) throws(JSONError) -> [Member] {
        var members: [Member] = []
        try reader.beginArray()
        while try reader.nextElement() {
            var user: UserID?
            var role = MemberRow.Role.member
            try reader.beginObject()
            while let name = try reader.nextField() {
                switch memberFields.find(name, in: bytes) {
                case .user: user = try reader.readID()
                case .role: if (try reader.readString()).equals("admin", in: bytes) { role = .admin }
                case nil: try reader.skipValue()
                }
            }
            guard let user else { throw JSONError(.missingField, at: reader.offset) }
            members.append(Member(user, role))
        }
        return members
    }

    /// The record's value.
    public func write(to json: inout JSONWriter) {
        json.object { json in
            json.field("op", ChangeEnvelope.Operation.read.rawValue)
            json.nullField("before")
            json.name("after")
            json.object { json in
                json.field("chat_id", chat)
                json.field("meta_version", metaVersion)
                json.name("members")
                json.array { json in
                    for member in members {
                        json.object { json in
                            json.field("user_id", member.user)
                            json.field("role", member.role.rawValue)
                        }
                    }
                }
            }
            json.name("source")
            json.object { $0.field("table", Self.table) }
        }
    }

    /// The record's key.
    public static func writeKey(of chat: ChatID, to json: inout JSONWriter) {
        json.object { json in
            json.field("chat_id", chat)
            json.field("table", table)
        }
    }
}
