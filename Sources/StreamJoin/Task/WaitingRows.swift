import Wire

/// The changes that wait for the rest of their transaction, in the order of the log: 24 bytes each.
///
/// A statement may change a million members, and all of them wait for the version that follows. So what they have in common
/// is kept once: the transaction with the stretch of rows that are of it, the chat in a list of all that are in the queue. The
/// rows stand in chunks, which are given back one by one.
struct WaitingRows: Sendable {
    /// What is known of a chat's rows of one transaction.
    struct Part: Sendable {
        let transaction: Int64?
        /// How many rows of members, and how many of the chat itself.
        var memberRows: UInt32 = 0
        var versionRows: UInt32 = 0
        /// The highest version that waits here.
        var version: Int64 = 0
        /// The statement is told as one change, since so many rows of it were here when its first came up.
        var isBulk = false

        init(transaction: Int64?) { self.transaction = transaction }

        var isEmpty: Bool { memberRows == 0 && versionRows == 0 }
    }

    /// A chat that has rows here.
    private struct Chat: Sendable {
        let id: ChatID
        /// Of the transaction that its first rows are of, and of those after it. The same transaction may come again: CDC has
        /// died in the middle of it.
        var first: Part
        var later: [Part] = []

        mutating func withLast(of transaction: Int64?, _ body: (inout Part) -> Void) {
            if first.isEmpty { first = Part(transaction: transaction) }
            let last = later.last ?? first
            if last.transaction != transaction { later.append(Part(transaction: transaction)) }
            if later.isEmpty { body(&first) } else { body(&later[later.count - 1]) }
        }

        mutating func withFirst(_ body: (inout Part) -> Void) {
            body(&first)
            if first.isEmpty, !later.isEmpty { first = later.removeFirst() }
        }
    }

    private struct Row: Sendable {
        /// The user; for a chat's row its version.
        let high: UInt64
        let low: UInt64
        let chat: UInt32
        /// The offset, as its distance from the chunk's first, in 24 bits, and above them what the row is.
        let place: UInt32
    }

    private struct Chunk: Sendable {
        let base: Int64
        var rows: [Row] = []
    }

    /// Rows of one transaction, side by side.
    private struct Stretch: Sendable {
        let transaction: Int64?
        let lsn: Int64?
        var count: Int
    }

    /// So many rows a chunk: large enough for the system to take it back at once.
    private static let chunkRows = 8192
    private static let distanceMax: Int64 = 0xff_ffff

    private var chunks: [Chunk] = []
    /// The next row, in the first chunk.
    private var start = 0
    private(set) var count = 0
    private var stretches: [Stretch] = []
    private var chats: [Chat] = []
    private var numbers: [ChatID: UInt32] = [:]

    var isEmpty: Bool { count == 0 }
    var firstOffset: Int64 { offset(of: chunks[0].rows[start], in: chunks[0]) }

    /// What follows the transaction that the first row is of.
    enum Following {
        case nothing
        case transaction(lsn: Int64?)
    }

    var following: Following {
        let transaction = stretches[0].transaction
        let next = stretches.dropFirst().first { $0.transaction != transaction }
        return next.map { .transaction(lsn: $0.lsn) } ?? .nothing
    }

    /// The row that came first, and what is known of its chat's rows of the same transaction.
    var first: (entry: MembershipChanges.Entry, part: Part) {
        let row = chunks[0].rows[start]
        let stretch = stretches[0]
        return (
            MembershipChanges.Entry(
                offset: offset(of: row, in: chunks[0]),
                row: RowChange(transaction: stretch.transaction, lsn: stretch.lsn, content: content(of: row))),
            chats[Int(row.chat)].first
        )
    }

    /// What the row says that came last.
    var lastContent: RowChange.Content? {
        guard let row = chunks.last?.rows.last else { return nil }
        return content(of: row)
    }

    func hasMembers(of chat: ChatID) -> Bool {
        guard let chat = numbers[chat].map({ chats[Int($0)] }) else { return false }
        return chat.first.memberRows > 0 || chat.later.contains { $0.memberRows > 0 }
    }

    // MARK: Changing

    mutating func append(_ entry: MembershipChanges.Entry) {
        let row = entry.row
        let distance = chunks.last.map { entry.offset - $0.base } ?? 0
        if chunks.isEmpty || chunks[chunks.count - 1].rows.count == Self.chunkRows || distance > Self.distanceMax {
            chunks.append(Chunk(base: entry.offset))
        }
        let chunk = chunks.count - 1
        let place = UInt32(entry.offset - chunks[chunk].base)
        chunks[chunk].rows.append(packed(row.content, transaction: row.transaction, place))
        count += 1
        if let last = stretches.last, last.transaction == row.transaction, last.lsn == row.lsn {
            stretches[stretches.count - 1].count += 1
        } else {
            stretches.append(Stretch(transaction: row.transaction, lsn: row.lsn, count: 1))
        }
    }

    mutating func removeFirst() {
        let row = chunks[0].rows[start]
        let chat = Int(row.chat)
        switch Kind(row.place) {
        case .member: chats[chat].withFirst { $0.memberRows -= 1 }
        case .chat:
            chats[chat].withFirst { part in
                part.versionRows -= 1
                if part.versionRows == 0 { part.version = 0 }
                part.isBulk = false
            }
        case .chatDeleted: break
        }
        count -= 1
        guard count > 0 else { return removeAll() }
        stretches[0].count -= 1
        if stretches[0].count == 0 { stretches.removeFirst() }
        start += 1
        if start == chunks[0].rows.count {
            chunks.removeFirst()
            start = 0
        }
    }

    /// The statement that the first row is of is to be told as one change.
    mutating func tellFirstAsOne() { chats[Int(chunks[0].rows[start].chat)].first.isBulk = true }

    private mutating func removeAll() {
        start = 0
        chunks = []
        stretches.removeAll(keepingCapacity: true)
        // A small transaction's memory is there for the next one.
        let isSmall = chats.count <= 1024
        chats.removeAll(keepingCapacity: isSmall)
        numbers.removeAll(keepingCapacity: isSmall)
    }
}

// MARK: - Packing

extension WaitingRows {
    private enum Kind {
        case member, chat, chatDeleted

        init(_ place: UInt32) {
            switch place >> WaitingRows.kindShift & 3 {
            case 0: self = .member
            case 1: self = .chat
            default: self = .chatDeleted
            }
        }
    }

    private static let kindShift: UInt32 = 24
    private static let roleShift: UInt32 = 26
    private static let originShift: UInt32 = 28
    private static let flag: UInt32 = 1 << 30

    private func offset(of row: Row, in chunk: Chunk) -> Int64 { chunk.base + Int64(row.place & 0xff_ffff) }

    private mutating func number(of chat: ChatID) -> UInt32 {
        // Rows of one chat mostly follow one another.
        if let row = chunks.last?.rows.last, chats[Int(row.chat)].id == chat { return row.chat }
        if let number = numbers[chat] { return number }
        let number = UInt32(chats.count)
        chats.append(Chat(id: chat, first: Part(transaction: nil)))
        numbers[chat] = number
        return number
    }

    private mutating func packed(_ content: RowChange.Content, transaction: Int64?, _ distance: UInt32) -> Row {
        switch content {
        case .member(let member, let mayBeUnchanged):
            let chat = number(of: member.chat)
            chats[Int(chat)].withLast(of: transaction) { $0.memberRows += 1 }
            let role: UInt32 = member.role == nil ? 0 : member.role == .member ? 1 : 2
            let origin: UInt32 = member.origin == .stream ? 0 : member.origin == .firstSnapshot ? 1 : 2
            let place =
                distance | role << Self.roleShift | origin << Self.originShift | (mayBeUnchanged ? Self.flag : 0)
            return Row(high: member.user.uuid.high, low: member.user.uuid.low, chat: chat, place: place)
        case .chat(let id, let version, let isSnapshot):
            let chat = number(of: id)
            chats[Int(chat)].withLast(of: transaction) { part in
                part.versionRows += 1
                part.version = max(part.version, version)
            }
            let place = distance | 1 << Self.kindShift | (isSnapshot ? Self.flag : 0)
            return Row(high: UInt64(bitPattern: version), low: 0, chat: chat, place: place)
        case .chatDeleted(let id):
            return Row(high: 0, low: 0, chat: number(of: id), place: distance | 2 << Self.kindShift)
        }
    }

    private func content(of row: Row) -> RowChange.Content {
        let chat = chats[Int(row.chat)].id
        switch Kind(row.place) {
        case .member:
            let role: MemberRow.Role? = [nil, .member, .admin][Int(row.place >> Self.roleShift & 3)]
            let origin: MembershipChanges.Origin =
                [.stream, .firstSnapshot, .laterSnapshot][Int(row.place >> Self.originShift & 3)]
            let user = UserID(UUID(high: row.high, low: row.low))
            return .member(
                MembershipChanges.Member(chat: chat, user: user, role: role, origin: origin),
                mayBeUnchanged: row.place & Self.flag != 0)
        case .chat:
            return .chat(chat, metaVersion: Int64(bitPattern: row.high), isSnapshot: row.place & Self.flag != 0)
        case .chatDeleted: return .chatDeleted(chat)
        }
    }
}
