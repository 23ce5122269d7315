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
        /// With the version that the change brought, where it is known.
        case member(Member, metaVersion: Int64?)
        /// `isExact`: the version is to be taken as it is, even if it is below the table's.
        case chat(ChatID, metaVersion: Int64, isExact: Bool)
        case chatDeleted(ChatID)
        /// `isOver`: the chat has come as far and been deleted since, so that no row of it will end the use of this.
        case membership(ChatMembership, isOver: Bool)
    }

    enum Step: Equatable, Sendable {
        case apply(Change, offset: Int64)
        /// CDC has written it twice.
        case repeated
        /// Nothing that counts as membership has changed: a chat was muted, a snapshot found what was known.
        case unchanged
    }

    struct Entry: Sendable {
        var offset: Int64
        var row: RowChange
    }

    /// A transaction with more changes than this is applied as it comes.
    static let waitingMax = 262_144

    private var membership: (ChatMembership, offset: Int64)?
    /// The last chats that were deleted, with their versions.
    private var deleted: [(chat: ChatID, version: Int64)] = []
    /// A membership comes back from the log some milliseconds after Postgres was asked: so long a deletion must be known.
    private static let deletedMax = 64
    private var waiting: [Entry] = []
    private var first = 0
    var forms = RowChangeForms()
    /// Of a restore: changes that have been read and not been applied yet.
    var ahead: [Entry] = []
    /// Where in the table these look; kept for its memory.
    var places: [(chat: UUID, user: UUID)] = []
    /// The versions that wait behind changes, by chat: the highest, how many, and of which transaction.
    private var versions: [ChatID: (version: Int64, count: Int, transaction: Int64?)] = [:]

    var isEmpty: Bool { first == waiting.count }

    /// The offset from which the log must be read again by whoever takes over: nothing below it waits here.
    func position(next: Int64) -> Int64 { isEmpty ? ahead.first?.offset ?? next : waiting[first].offset }

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
        guard first < waiting.count else { return nil }
        let entry = waiting[first]
        switch entry.row.content {
        case .chatDeleted(let chat):
            pop()
            if let known = table.findLogged(chat) {
                if deleted.count == Self.deletedMax { deleted.removeFirst() }
                deleted.append((chat, table.metaVersion(of: known)))
            }
            return .apply(.chatDeleted(chat), offset: entry.offset)
        case .chat(let chat, let version, let isSnapshot):
            pop()
            if let known = versions[chat] {
                versions[chat] = known.count == 1 ? nil : (known.version, known.count - 1, known.transaction)
            }
            return .apply(.chat(chat, metaVersion: version, isExact: isSnapshot), offset: entry.offset)
        case .member(let member, let mayBeUnchanged):
            let known = table.findLogged(member.chat)
            // What changes nothing (a repeat, a chat muted) waits for nothing.
            if known.flatMap({ table.member(member.user, of: $0)?.role }) == member.role {
                pop()
                return mayBeUnchanged ? .unchanged : .repeated
            }
            let hasVersion = known.map { table.exists($0) } ?? false
            if member.origin == .stream, hasVersion, let known, entry.row.transaction != nil {
                if let (version, _, transaction) = versions[member.chat], transaction == entry.row.transaction {
                    pop()
                    return version > table.metaVersion(of: known)
                        ? .apply(.member(member, metaVersion: version), offset: entry.offset)
                        : .repeated
                }
                let last = waiting[waiting.count - 1]
                if last.row.transaction == entry.row.transaction {
                    if !isComplete, waiting.count - first <= Self.waitingMax { return nil }
                } else if let lsn = entry.row.lsn, let next = last.row.lsn, next < lsn {
                    pop()
                    return .repeated
                }
            }
            pop()
            return .apply(.member(member, metaVersion: nil), offset: entry.offset)
        }
    }

    func change(_ membership: ChatMembership) -> Change {
        let isOver = deleted.contains { $0.chat == membership.chat && $0.version >= membership.metaVersion }
        return .membership(membership, isOver: isOver)
    }

    mutating func push(_ entry: Entry) {
        if case .chat(let chat, let version, _) = entry.row.content {
            let known = versions[chat] ?? (0, 0, entry.row.transaction)
            versions[chat] = (max(known.version, version), known.count + 1, entry.row.transaction)
        }
        waiting.append(entry)
    }

    private mutating func pop() {
        first += 1
        if first == waiting.count {
            waiting.removeAll(keepingCapacity: waiting.capacity < 4096)
            first = 0
        } else if first >= 4096, first * 2 >= waiting.count {
            waiting.removeFirst(first)
            first = 0
        }
    }

    private func waits(for entry: Entry) -> Bool {
        guard case .member(let member, _) = entry.row.content else { return false }
        // Only the end of the list can be its deletion: they are written together.
        guard first < waiting.count, case .member(let last, _) = waiting[waiting.count - 1].row.content else {
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
