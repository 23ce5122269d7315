import Wire

/// Puts the records of `chat.members` into the form in which they may be applied: in the order of the log, each change
/// of membership together with the `meta_version` that came of it.
///
/// Postgres bumps the chat's version in the transaction of the change, and right behind it, so a change waits here until
/// the row of its chat follows. That row decides:
/// - a version above the table's: the change is applied, and its event carries this version;
/// - one not above it: CDC has started again and repeats what it had written before. The change is dropped; else a
///   removed user would be a member again until the repeat of the removal.
/// When the transaction ends without such a row (it was compacted away, or there is no trigger) the change is applied
/// as it is; but not if what follows is of an earlier transaction, for then CDC has died in the middle of this one and
/// will write it whole. Rows of a snapshot, and changes of chats whose row is not known, wait for nothing.
///
/// Rows that a snapshot has read again, of a topic that had records before, may differ from them with no other record of
/// the change. They are told as any change is, or those concerned would not learn of it; those of a first snapshot are not.
///
/// Changes leave in the order of the log, always: an event names the offset of its change as its source, and readers
/// drop what is not above the last offset they have seen of a source. A whole membership that the join itself has written
/// tells nobody anything and may stand in the middle of a transaction, or behind one whose end CDC still owes: it leaves
/// at once.
struct MembershipChanges: Sendable {
    struct Member: Equatable, Sendable {
        var chat: ChatID
        var user: UserID
        /// `nil`: no member any more.
        var role: MemberRow.Role?
        var origin: Origin
    }

    enum Origin: Sendable {
        case stream
        case firstSnapshot
        case laterSnapshot
    }

    enum Change: Equatable, Sendable {
        /// With the statement that it is of, where its version is known.
        case member(Member, Statement?)
        /// `isExact`: the version is to be taken as it is, even if it is below the table's.
        case chat(ChatID, metaVersion: Int64, isExact: Bool)
        case chatDeleted(ChatID)
        /// `isOver`: the chat has come as far and been deleted since, so that no row of it will end the use of this.
        case membership(ChatMembership, isOver: Bool)
    }

    /// What is known of a statement that changes members of a chat, from the version that came of it.
    struct Statement: Equatable, Sendable {
        var metaVersion: Int64
        /// It changes so many members that they are told as one change.
        var isBulk: Bool
        /// No other change of this chat waits: with this one the membership is that of the version.
        var isLast: Bool
    }

    enum Step: Equatable, Sendable {
        case apply(Change, offset: Int64)
        /// CDC has written it twice.
        case repeated
        /// Nothing that counts as membership has changed: a chat was muted, a snapshot found what was known.
        case unchanged
    }

    struct Entry: Equatable, Sendable {
        var offset: Int64
        var row: RowChange
    }

    /// A transaction with more changes than this is applied as it comes.
    static let waitingMax = 4_194_304
    /// A statement that changes more members of a chat than this is told as one change.
    private let bulkMin: Int

    private var membership: (ChatMembership, offset: Int64)?
    var hasMembership: Bool { membership != nil }
    /// The last chats that were deleted, with their versions.
    private var deleted: [(chat: ChatID, version: Int64)] = []
    /// A membership comes back from the log some milliseconds after Postgres was asked: so long a deletion must be known.
    private static let deletedMax = 64
    private var waiting = WaitingRows()
    var forms = RowChangeForms()
    /// Of a restore: changes that have been read and not been applied yet.
    var ahead: [Entry] = []
    /// Where in the table these look; kept for its memory.
    var places: [(chat: UUID, user: UUID)] = []

    init(bulkMin: Int = .max) { self.bulkMin = bulkMin }

    var isEmpty: Bool { waiting.isEmpty }
    /// How many changes wait.
    var count: Int { waiting.count }
    func waits(for chat: ChatID) -> Bool { waiting.hasMembers(of: chat) }

    /// Below it every change has been applied.
    func position(next: Int64) -> Int64 { isEmpty ? ahead.first?.offset ?? next : waiting.firstOffset }

    /// Takes a record in. `nil` as value is a tombstone.
    mutating func receive(key: Span<UInt8>?, value: Span<UInt8>?, offset: Int64) throws(JSONError) {
        guard let value else {
            guard let key, let entry = try Self.tombstone(key, offset: offset) else { return }
            // The tombstone behind a deletion says nothing new.
            if !waits(for: entry) { push(entry) }
            return
        }
        if let row = forms.find(value) { return push(Entry(offset: offset, row: row)) }
        switch try MembershipRecord(decoding: value) {
        case .row(let row):
            forms.learn(value, row)
            push(Entry(offset: offset, row: row))
        case .membership(let membership): self.membership = (membership, offset)
        case .other: break
        }
    }

    /// The next step, if one can be taken now.
    /// - Parameter isComplete: nothing that belongs to what waits will follow.
    mutating func next(_ table: borrowing MembershipTable, isComplete: Bool = false) -> Step? {
        if let (membership, offset) = membership {
            self.membership = nil
            return .apply(change(membership), offset: offset)
        }
        guard let step = firstStep(table, isComplete: isComplete) else { return nil }
        switch step {
        case .apply(.member(_, let statement?), _) where statement.isBulk: waiting.tellFirstAsOne()
        case .apply(.chatDeleted(let chat), _):
            guard let known = table.findLogged(chat) else { break }
            if deleted.count == Self.deletedMax { deleted.removeFirst() }
            deleted.append((chat, table.metaVersion(of: known)))
        default: break
        }
        waiting.removeFirst()
        return step
    }

    /// Whether there is a step that needs no further record.
    func canGoOn(_ table: borrowing MembershipTable) -> Bool {
        membership != nil || firstStep(table, isComplete: false) != nil
    }

    private func firstStep(_ table: borrowing MembershipTable, isComplete: Bool) -> Step? {
        guard !waiting.isEmpty else { return nil }
        let (entry, part) = waiting.first
        switch entry.row.content {
        case .chatDeleted(let chat): return .apply(.chatDeleted(chat), offset: entry.offset)
        case .chat(let chat, let version, let isSnapshot):
            return .apply(.chat(chat, metaVersion: version, isExact: isSnapshot), offset: entry.offset)
        case .member(let member, let mayBeUnchanged):
            let known = table.findLogged(member.chat)
            // What changes nothing (a repeat, a chat muted) waits for nothing.
            if known.flatMap({ table.member(member.user, of: $0)?.role }) == member.role {
                return mayBeUnchanged ? .unchanged : .repeated
            }
            let hasVersion = known.map { table.exists($0) } ?? false
            if member.origin == .stream, hasVersion, let known, entry.row.transaction != nil {
                if part.versionRows > 0 {
                    guard part.version > table.metaVersion(of: known) else { return .repeated }
                    let statement = Statement(
                        metaVersion: part.version, isBulk: part.isBulk || part.memberRows > bulkMin,
                        isLast: part.memberRows == 1)
                    return .apply(.member(member, statement), offset: entry.offset)
                }
                switch waiting.following {
                case .nothing: if !isComplete, waiting.count <= Self.waitingMax { return nil }
                case .transaction(let next):
                    if let lsn = entry.row.lsn, let next, next < lsn { return .repeated }
                }
            }
            return .apply(.member(member, nil), offset: entry.offset)
        }
    }

    func change(_ membership: ChatMembership) -> Change {
        let isOver = deleted.contains { $0.chat == membership.chat && $0.version >= membership.metaVersion }
        return .membership(membership, isOver: isOver)
    }

    mutating func push(_ entry: Entry) { waiting.append(entry) }

    private func waits(for entry: Entry) -> Bool {
        // Only the end of the list can be its deletion: they are written together.
        guard case .member(let member, _) = entry.row.content, case .member(let last, _) = waiting.lastContent else {
            return false
        }
        return last.chat == member.chat && last.user == member.user && last.role == nil
    }

    private static func tombstone(_ key: Span<UInt8>, offset: Int64) throws(JSONError) -> Entry? {
        var reader = JSONReader(key)
        var hasUser = false
        try reader.beginObject()
        while let name = try reader.nextField() {
            if name.equals("user_id", in: key) { hasUser = true }
            // Behind a membership: the rows of its chat, which say so, were there before it.
            if name.equals("table", in: key) { return nil }
            try reader.skipValue()
        }
        try reader.finish()
        guard hasUser else {
            return Entry(offset: offset, row: RowChange(content: .chatDeleted(try ChatRow(decoding: key).chat)))
        }
        let row = try MemberRow(decoding: key)
        let member = Member(chat: row.chat, user: row.user, role: nil, origin: .stream)
        return Entry(offset: offset, row: RowChange(content: .member(member, mayBeUnchanged: false)))
    }
}
