import Wire

/// A change of a row of table `members` or `chats`, as a record of `chat.members` tells it.
struct RowChange: Equatable, Sendable {
    enum Content: Equatable, Sendable {
        case member(MembershipChanges.Member, mayBeUnchanged: Bool)
        case chat(ChatID, metaVersion: Int64, isSnapshot: Bool)
        case chatDeleted(ChatID)
    }

    var transaction: Int64?
    /// Where the transaction stands among all.
    var lsn: Int64?
    var content: Content

    /// Where in the table it looks. A chat's row concerns no user: then it is the chat again.
    var place: (chat: UUID, user: UUID) {
        switch content {
        case .member(let member, _): (member.chat.uuid, member.user.uuid)
        case .chat(let chat, _, _), .chatDeleted(let chat): (chat.uuid, chat.uuid)
        }
    }

    /// The change to apply, if it is of a row that a snapshot has read.
    var snapshotChange: MembershipChanges.Change? {
        switch content {
        case .member(let member, _): member.origin == .stream ? nil : .member(member, nil)
        case .chat(let chat, let version, let isSnapshot):
            isSnapshot ? .chat(chat, metaVersion: version, isExact: true) : nil
        case .chatDeleted: nil
        }
    }
}

/// What a value of `chat.members` says.
enum MembershipRecord: Equatable, Sendable {
    case row(RowChange)
    case membership(ChatMembership)
    /// A row of some other table.
    case other

    init(decoding value: Span<UInt8>) throws(JSONError) {
        let envelope = try ChangeEnvelope(decoding: value)
        let row = value.extracting(envelope.row)
        let isSnapshot = envelope.operation == .read
        let isDeletion = envelope.operation == .delete
        let content: RowChange.Content
        if envelope.table.equals("members", in: value) {
            let member = try MemberRow(decoding: row)
            let origin: MembershipChanges.Origin =
                !isSnapshot ? .stream : envelope.isReadAgain ? .laterSnapshot : .firstSnapshot
            content = .member(
                MembershipChanges.Member(
                    chat: member.chat, user: member.user, role: isDeletion ? nil : member.role, origin: origin),
                mayBeUnchanged: isSnapshot || envelope.operation == .update)
        } else if envelope.table.equals("chats", in: value) {
            let chat = try ChatRow(decoding: row)
            content =
                isDeletion
                ? .chatDeleted(chat.chat)
                : .chat(chat.chat, metaVersion: max(0, chat.metaVersion), isSnapshot: isSnapshot)
        } else if envelope.table.equals(ChatMembership.table, in: value) {
            self = .membership(try ChatMembership(decoding: row))
            return
        } else {
            self = .other
            return
        }
        self = .row(RowChange(transaction: envelope.transaction, lsn: envelope.lsn, content: content))
    }
}
