public import Wire

/// Who is in which chat: all the chats of the partitions that a process has, in at most 16 bytes a membership.
///
/// Ids are kept once: a user is a row of `users` and known elsewhere by its number, in 30 bits, with the role in the
/// two above it. A chat is a row of `chats` with a block of such numbers in the arena.
///
/// A block has one of two layouts, which follows from its count alone:
/// - up to `listedMax` members, a list ordered by delivery partition, so that the recipients of one partition lie
///   side by side and fan-out is a walk along an array;
/// - above it, a hash set: such chats are never listed record by record, they are only asked about one member, and
///   keeping 100,000 members ordered would make the 100,001st cost a hundred microseconds.
///
/// Beside the rows that CDC's records have made, a chat can have a shadow: its whole membership as a join has read it from
/// Postgres and written it to the log, used until CDC's records have come as far.
///
/// For 10 M memberships of 1 M users in 1 M chats: members 4.0–4.9 bytes each, users 3.2–3.5, chats 4.0–4.3.
public struct MembershipTable: ~Copyable {
    /// A member of a chat: the user's number and role.
    @frozen
    public struct Member: Equatable, Sendable {
        let cell: UInt32

        static let userMask: UInt32 = 0x3fff_ffff

        init(cell: UInt32) { self.cell = cell }

        init(user: Int, role: MemberRow.Role) {
            cell = UInt32(truncatingIfNeeded: user) | (role == .admin ? 1 << 30 : 0)
        }

        var user: Int { Int(cell & Self.userMask) }
        public var role: MemberRow.Role { cell >> 30 == 1 ? .admin : .member }
    }

    /// A chat's row; good until the table changes.
    @frozen
    public struct Chat: Equatable, Sendable {
        let row: Int
    }

    public enum Change: Equatable, Sendable { case none, added, removed, role }

    public let deliveryPartitions: Int32
    public let listedMax: Int
    var users: [UserEntry] = []
    var chats: [ChatEntry] = []
    var arena = MemberArena()
    private var userIndex = IdentifierIndex<UserEntry>()
    private var chatIndex = IdentifierIndex<ChatEntry>()
    private var shadows: [UUID: Int] = [:]
    /// Heads of the chains of free rows, as row + 1.
    private var freeUser: UInt64 = 0
    private var freeChat: UInt64 = 0
    public private(set) var memberCount = 0
    /// While the table is filled from the log nobody lists recipients: members are added at the end of their lists, and
    /// put in order once, by `endLoading`.
    private var isLoading = false
    private var ahead: [Int] = []
    private var lastRead: UInt32 = 0

    /// - Parameters:
    ///   - deliveryPartitions: how many partitions `chat.deliveries` has.
    ///   - listedMax: the largest chat whose recipients are ever listed.
    public init(deliveryPartitions: Int32, listedMax: Int) {
        precondition(deliveryPartitions > 0 && deliveryPartitions <= Int32(UInt16.max), "partitions fit 16 bits")
        precondition(listedMax >= 8, "a list must hold something")
        self.deliveryPartitions = deliveryPartitions
        self.listedMax = listedMax
    }

    public var chatCount: Int { chatIndex.count }
    public var userCount: Int { userIndex.count }

    /// All memory that the table holds, used or not.
    public var bytes: Int {
        users.capacity * MemoryLayout<UserEntry>.stride + chats.capacity * MemoryLayout<ChatEntry>.stride
            + arena.bytes + userIndex.bytes + chatIndex.bytes
    }

    // MARK: Checkpoints

    /// The table as it is now: a value that another thread can write to a file while the table goes on. The first change
    /// after it costs a copy of the arrays (20 ms for 10 M memberships).
    public func snapshot(positions: [Int32: Int64], of log: LogIdentity? = nil, savedAtMs: Int64) -> MembershipSnapshot
    {
        MembershipSnapshot(
            deliveryPartitions: deliveryPartitions, listedMax: listedMax, positions: positions, users: users,
            chats: chats, arena: arena, freeUser: freeUser, freeChat: freeChat, memberCount: memberCount,
            savedAtMs: savedAtMs, log: log)
    }

    public init(_ snapshot: consuming MembershipSnapshot) {
        deliveryPartitions = snapshot.deliveryPartitions
        listedMax = snapshot.listedMax
        users = snapshot.users
        chats = snapshot.chats
        arena = snapshot.arena
        freeUser = snapshot.freeUser
        freeChat = snapshot.freeChat
        memberCount = snapshot.memberCount
        userIndex.reserve(users.count, users)
        for row in users.indices where users[row].references > 0 { userIndex.insert(row, of: users) }
        chatIndex.reserve(chats.count, chats)
        for row in chats.indices where chats[row].state != .free {
            if chats[row].isShadow { shadows[chats[row].id] = row } else { chatIndex.insert(row, of: chats) }
        }
    }

    // MARK: Reading

    /// The chat as it is to be joined against: its shadow, if it has one.
    @inline(__always)
    public func find(_ chat: ChatID) -> Chat? {
        if !shadows.isEmpty, let row = shadows[chat.uuid] { return Chat(row: row) }
        return chatIndex.find(chat.uuid, in: chats).map { Chat(row: $0) }
    }

    /// The chat as CDC's records have made it.
    public func findLogged(_ chat: ChatID) -> Chat? {
        chatIndex.find(chat.uuid, in: chats).map { Chat(row: $0) }
    }

    public func memberCount(of chat: Chat) -> Int { Int(chats[chat.row].count) }
    public func metaVersion(of chat: Chat) -> Int64 { chats[chat.row].version }
    /// Whether a row of table `chats` has been seen, and not its deletion.
    public func exists(_ chat: Chat) -> Bool { chats[chat.row].state == .present }
    public func isDeleted(_ chat: Chat) -> Bool { chats[chat.row].state == .deleted }
    public func isListed(_ chat: Chat) -> Bool { Int(chats[chat.row].count) <= listedMax }

    /// The members of a listed chat, those of one delivery partition side by side.
    @inline(__always)
    public func cells(of chat: Chat) -> Range<Int> {
        let entry = chats[chat.row]
        return Int(entry.start)..<Int(entry.start) + Int(entry.count)
    }

    @inline(__always)
    public func member(at cell: Int) -> Member { Member(cell: arena[cell]) }
    @inline(__always)
    public func user(of member: Member) -> UserID { UserID(users[member.user].id) }
    @inline(__always)
    public func partition(of member: Member) -> Int32 { Int32(users[member.user].partition) }

    public func member(_ user: UserID, of chat: Chat) -> Member? {
        guard let user = userIndex.find(user.uuid, in: users), let cell = cell(of: user, in: chats[chat.row]) else {
            return nil
        }
        return Member(cell: arena[cell])
    }

    /// Every member, whatever the layout.
    public func forEachMember(of chat: Chat, _ body: (UserID, MemberRow.Role) -> Void) {
        let entry = chats[chat.row]
        for cell in entry.block(listedMax) where arena[cell] != MemberArena.none {
            let member = Member(cell: arena[cell])
            body(user(of: member), member.role)
        }
    }

    public func forEachChat(_ body: (ChatID, Chat) -> Void) {
        for (row, entry) in chats.enumerated() where entry.state != .free && !entry.isShadow {
            body(ChatID(entry.id), Chat(row: row))
        }
    }

    // MARK: Changing

    /// Adds a member or changes the role of one.
    @discardableResult
    public mutating func put(_ user: UserID, in chat: ChatID, role: MemberRow.Role) -> Change {
        put(user, inRow: row(for: chat.uuid), role: role)
    }

    @discardableResult
    public mutating func remove(_ user: UserID, from chat: ChatID) -> Change {
        guard let row = chatIndex.find(chat.uuid, in: chats), let user = userIndex.find(user.uuid, in: users),
            let cell = cell(of: user, in: chats[row])
        else { return .none }
        removeCell(cell, ofRow: row)
        releaseUser(user)
        memberCount -= 1
        freeIfEmpty(row)
        return .removed
    }

    /// Notes a row of table `chats`.
    public mutating func setChat(_ chat: ChatID, metaVersion: Int64) {
        let row = row(for: chat.uuid)
        chats[row].state = .present
        chats[row].version = metaVersion
        if let shadow = shadows[chat.uuid], chats[shadow].version <= metaVersion { dropShadow(of: chat) }
    }

    /// Notes that the chat's row is gone. Its members are removed one by one, as the log says so.
    public mutating func deleteChat(_ chat: ChatID) {
        dropShadow(of: chat)
        guard let row = chatIndex.find(chat.uuid, in: chats) else { return }
        chats[row].state = .deleted
        freeIfEmpty(row)
    }

    /// Lets the chat be joined against this membership until CDC's records have reached its version.
    public mutating func setShadow(_ membership: ChatMembership) {
        dropShadow(of: membership.chat)
        let row = newRow(ChatEntry(id: membership.chat.uuid))
        chats[row].state = .present
        chats[row].isShadow = true
        chats[row].version = membership.metaVersion
        shadows[membership.chat.uuid] = row
        for member in membership.members { put(member.user, inRow: row, role: member.role) }
        memberCount -= Int(chats[row].count)
    }

    public mutating func dropShadow(of chat: ChatID) {
        guard let row = shadows.removeValue(forKey: chat.uuid) else { return }
        memberCount += Int(chats[row].count)
        clear(row)
        freeRow(row)
    }

    public var shadowCount: Int { shadows.count }
    func hasShadow(_ chat: ChatID) -> Bool { shadows[chat.uuid] != nil }

    /// Forgets all chats of a partition that has gone to another process.
    public mutating func removeChats(ofPartition partition: Int32, of count: Int32) {
        for row in chats.indices where chats[row].state != .free {
            let chat = ChatID(chats[row].id)
            guard chat.partition(count: count) == partition else { continue }
            if chats[row].isShadow {
                dropShadow(of: chat)
            } else {
                clear(row)
                chatIndex.remove(row, of: chats)
                freeRow(row)
            }
        }
    }

    /// Reads what changes of these memberships are going to look at, one step of the way for all of them at a time. A table
    /// of millions is in no cache, and a change by itself waits for memory at each step; these waits overlap.
    mutating func readAhead(_ places: [(chat: UUID, user: UUID)]) {
        var read: UInt32 = 0
        for place in places { read &+= chatIndex.firstSlot(place.chat) &+ userIndex.firstSlot(place.user) }
        ahead.removeAll(keepingCapacity: true)
        for place in places {
            let chat = chatIndex.find(place.chat, in: chats)
            if let user = userIndex.find(place.user, in: users) { read &+= users[user].references }
            if let chat, chats[chat].count > 0 { ahead.append(Int(chats[chat].start)) }
        }
        for cell in ahead { read &+= arena[cell] }
        // So that the compiler cannot see that nobody wants to know.
        lastRead = read
    }

    /// Many changes follow, and until `endLoading` no chat is listed.
    public mutating func beginLoading() { isLoading = true }

    public mutating func endLoading() {
        guard isLoading else { return }
        isLoading = false
        var scratch: [UInt64] = []
        for row in chats.indices where chats[row].count > 1 && Int(chats[row].count) <= listedMax {
            order(chats[row].block(listedMax), &scratch)
        }
        if isSparse { compact() }
    }

    private mutating func order(_ block: Range<Int>, _ scratch: inout [UInt64]) {
        scratch.removeAll(keepingCapacity: true)
        var isOrdered = true
        for cell in block {
            let key = UInt64(users[Member(cell: arena[cell]).user].partition) << 32
            if let last = scratch.last, last >> 32 > key >> 32 { isOrdered = false }
            scratch.append(key | UInt64(arena[cell]))
        }
        if isOrdered { return }
        scratch.sort()
        for (index, cell) in block.enumerated() { arena[cell] = UInt32(truncatingIfNeeded: scratch[index]) }
    }

    /// Lays all blocks side by side in the order of the chats, leaving no hole: after a restore, whose growing chats
    /// have left many small blocks behind.
    public mutating func compact() {
        let used = arena.cells.count - arena.freeCells
        var cells: [UInt32] = []
        cells.reserveCapacity(used + used / 16)
        for row in chats.indices where chats[row].count > 0 {
            let block = chats[row].block(listedMax)
            chats[row].start = UInt32(cells.count)
            for cell in block { cells.append(arena[cell]) }
            // A block keeps the size of its class: what the class says when the block is released.
            for _ in block.count..<chats[row].capacity(listedMax) { cells.append(0) }
        }
        arena = MemberArena(compact: cells)
    }

    /// Whether `compact()` would give back more than a quarter of the members' memory.
    public var isSparse: Bool { arena.freeCells > 4096 && arena.freeCells * 4 > arena.cells.count }

    // MARK: Rows

    private mutating func row(for chat: UUID) -> Int {
        if let row = chatIndex.find(chat, in: chats) { return row }
        let row = newRow(ChatEntry(id: chat))
        chatIndex.insert(row, of: chats)
        return row
    }

    private mutating func newRow(_ entry: ChatEntry) -> Int {
        guard freeChat > 0 else {
            chats.appendTightly(entry)
            return chats.count - 1
        }
        let row = Int(freeChat) - 1
        freeChat = chats[row].id.high
        chats[row] = entry
        return row
    }

    private mutating func freeRow(_ row: Int) {
        chats[row] = ChatEntry(id: UUID(high: freeChat, low: 0))
        chats[row].state = .free
        freeChat = UInt64(row + 1)
    }

    private mutating func freeIfEmpty(_ row: Int) {
        guard chats[row].count == 0, chats[row].state != .present else { return }
        chatIndex.remove(row, of: chats)
        freeRow(row)
    }

    /// Takes all members out of a chat at once.
    private mutating func clear(_ row: Int) {
        let entry = chats[row]
        for cell in entry.block(listedMax) where arena[cell] != MemberArena.none {
            releaseUser(Member(cell: arena[cell]).user)
        }
        arena.release(Int(entry.start), sizeClass: entry.sizeClass(listedMax))
        memberCount -= Int(entry.count)
        chats[row].count = 0
    }

    private mutating func intern(_ user: UserID) -> Int {
        if let row = userIndex.find(user.uuid, in: users) { return row }
        let entry = UserEntry(
            id: user.uuid, references: 0, partition: UInt32(user.partition(count: deliveryPartitions)))
        let row: Int
        if freeUser > 0 {
            row = Int(freeUser) - 1
            freeUser = users[row].id.high
            users[row] = entry
        } else {
            row = users.count
            precondition(row < Int(Member.userMask), "more users than a table can hold")
            users.appendTightly(entry)
        }
        userIndex.insert(row, of: users)
        return row
    }

    /// A user who is in no chat any more is forgotten.
    private mutating func releaseUser(_ row: Int) {
        users[row].references -= 1
        guard users[row].references == 0 else { return }
        userIndex.remove(row, of: users)
        users[row] = UserEntry(id: UUID(high: freeUser, low: 0), references: 0, partition: 0)
        freeUser = UInt64(row + 1)
    }

    // MARK: Blocks

    @discardableResult
    private mutating func put(_ user: UserID, inRow row: Int, role: MemberRow.Role) -> Change {
        let user = intern(user)
        let member = Member(user: user, role: role)
        if let cell = cell(of: user, in: chats[row]) {
            guard arena[cell] != member.cell else { return .none }
            arena[cell] = member.cell
            return .role
        }
        users[user].references += 1
        insert(member, intoRow: row)
        memberCount += 1
        return .added
    }

    private func cell(of user: Int, in entry: ChatEntry) -> Int? {
        let key = UInt32(truncatingIfNeeded: user)
        let start = Int(entry.start)
        if Int(entry.count) <= listedMax {
            for cell in start..<start &+ Int(entry.count) where arena[cell] & Member.userMask == key { return cell }
            return nil
        }
        let mask = entry.capacity(listedMax) &- 1
        var slot = Self.home(of: key) & mask
        while arena[start &+ slot] != MemberArena.none {
            if arena[start &+ slot] & Member.userMask == key { return start &+ slot }
            slot = (slot &+ 1) & mask
        }
        return nil
    }

    private mutating func insert(_ member: Member, intoRow row: Int) {
        let old = chats[row]
        var new = old
        new.count += 1
        let oldBlock = old.block(listedMax)
        let moves = old.sizeClass(listedMax) != new.sizeClass(listedMax)
        if moves { new.start = UInt32(arena.allocate(sizeClass: new.sizeClass(listedMax))) }
        let start = Int(new.start)
        if Int(new.count) <= listedMax {
            let place = isLoading ? oldBlock.upperBound : endOfGroup(partition(of: member), in: oldBlock)
            let (before, after) = (place - oldBlock.lowerBound, oldBlock.upperBound - place)
            arena.move(after, from: place, to: start + before + 1)
            if moves { arena.move(before, from: oldBlock.lowerBound, to: start) }
            arena[start + before] = member.cell
        } else {
            if moves {
                arena.fill(start..<start + new.capacity(listedMax), with: MemberArena.none)
                for cell in oldBlock where arena[cell] != MemberArena.none { place(arena[cell], in: new) }
            }
            place(member.cell, in: new)
        }
        if moves { arena.release(Int(old.start), sizeClass: old.sizeClass(listedMax)) }
        chats[row] = new
    }

    private mutating func removeCell(_ cell: Int, ofRow row: Int) {
        let old = chats[row]
        var new = old
        new.count -= 1
        let oldBlock = old.block(listedMax)
        let moves = old.sizeClass(listedMax) != new.sizeClass(listedMax)
        if moves { new.start = UInt32(arena.allocate(sizeClass: new.sizeClass(listedMax))) }
        let start = Int(new.start)
        if Int(old.count) <= listedMax {
            let before = cell - oldBlock.lowerBound
            if moves { arena.move(before, from: oldBlock.lowerBound, to: start) }
            arena.move(oldBlock.upperBound - cell - 1, from: cell + 1, to: start + before)
        } else if Int(new.count) <= listedMax {
            // From a set back to a list: the only place where members are put in order.
            var members: [UInt32] = []
            for index in oldBlock where index != cell && arena[index] != MemberArena.none {
                members.append(arena[index])
            }
            members.sort { partition(of: Member(cell: $0)) < partition(of: Member(cell: $1)) }
            for (index, member) in members.enumerated() { arena[start + index] = member }
        } else if moves {
            arena.fill(start..<start + new.capacity(listedMax), with: MemberArena.none)
            for index in oldBlock where index != cell && arena[index] != MemberArena.none {
                place(arena[index], in: new)
            }
        } else {
            closeGap(at: cell - start, in: new)
        }
        if moves { arena.release(Int(old.start), sizeClass: old.sizeClass(listedMax)) }
        chats[row] = new
    }

    /// Where the next member of this delivery partition goes: behind its last one.
    private func endOfGroup(_ partition: Int32, in block: Range<Int>) -> Int {
        var (low, high) = (block.lowerBound, block.upperBound)
        while low < high {
            let middle = (low + high) / 2
            if self.partition(of: member(at: middle)) <= partition { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private mutating func place(_ cell: UInt32, in entry: ChatEntry) {
        let start = Int(entry.start)
        let mask = entry.capacity(listedMax) - 1
        var slot = Self.home(of: cell & Member.userMask) & mask
        while arena[start + slot] != MemberArena.none { slot = (slot + 1) & mask }
        arena[start + slot] = cell
    }

    private mutating func closeGap(at gap: Int, in entry: ChatEntry) {
        let start = Int(entry.start)
        let mask = entry.capacity(listedMax) - 1
        var slot = gap
        var next = (slot + 1) & mask
        while arena[start + next] != MemberArena.none {
            let home = Self.home(of: arena[start + next] & Member.userMask) & mask
            if (next - home) & mask >= (next - slot) & mask {
                arena[start + slot] = arena[start + next]
                slot = next
            }
            next = (next + 1) & mask
        }
        arena[start + slot] = MemberArena.none
    }

    private static func home(of user: UInt32) -> Int {
        let product = UInt64(user) &* 0x9e37_79b9_7f4a_7c15
        return Int(truncatingIfNeeded: product >> 32)
    }
}
