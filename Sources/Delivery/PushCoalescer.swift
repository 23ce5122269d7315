import Runtime
public import Wire

/// Messages for people with no session, gathered per user and chat for a moment before they go to `chat.push`: a chat
/// in which ten people write at once makes one record a user, not ten.
public struct PushCoalescer {
    public struct Entry: Equatable, Sendable {
        public let user: UserID
        public let chat: ChatID
        public fileprivate(set) var count: Int
        /// The newest message, as its event: shared by all of the record's users.
        public fileprivate(set) var last: [UInt8]
        /// When it was found that there is no session to give the newest one to.
        public fileprivate(set) var newestMs: Int64
    }

    private struct Key: Hashable {
        let user: UserID
        let chat: ChatID
    }

    private struct Pending {
        var entry: Entry
        let partition: Int32
        /// Nothing from here on may be committed while this waits.
        let firstOffset: Int64
        let dueMs: Int64
    }

    public let windowMs: Int64
    public let entriesMax: Int
    private var pending: [Key: Pending] = [:]
    /// All wait equally long, so this is in the order in which they are due.
    private var order = Ring<Key>()
    /// What was due while it was not known whether its users are away, by partition, and what of it is to be taken now.
    private var held: [Int32: [Key]] = [:]
    private var released = Ring<Key>()

    public init(windowMs: Int64 = 1_000, entriesMax: Int = 100_000) {
        self.windowMs = windowMs
        self.entriesMax = entriesMax
    }

    public var count: Int { pending.count }
    public var heldCount: Int { held.values.reduce(0) { $0 + $1.count } }

    /// What is too much to keep has not been taken.
    public var isFull: Bool { pending.count >= entriesMax * 2 }

    public mutating func add(
        user: UserID, chat: ChatID, partition: Int32, offset: Int64, event: [UInt8], nowMs: Int64
    ) {
        let key = Key(user: user, chat: chat)
        if pending[key] != nil {
            pending[key]?.entry.count += 1
            pending[key]?.entry.last = event
            pending[key]?.entry.newestMs = nowMs
            return
        }
        let entry = Entry(user: user, chat: chat, count: 1, last: event, newestMs: nowMs)
        pending[key] = Pending(entry: entry, partition: partition, firstOffset: offset, dueMs: nowMs + windowMs)
        order.append(key)
    }

    /// Takes what is due, and whatever is too much to keep; at most `limit`.
    /// - Parameters:
    ///   - uncertain: partitions of which it is not known who is away: what is due there is held until it is.
    ///   - isHere: whether a user of whom something was held has turned out to have a session, and so is not told.
    public mutating func take(
        nowMs: Int64, limit: Int, holding uncertain: Set<Int32> = [],
        unless isHere: (_ user: UserID, _ partition: Int32) -> Bool = { _, _ in false }
    ) -> [(entry: Entry, partition: Int32, offset: Int64)] {
        var taken: [(entry: Entry, partition: Int32, offset: Int64)] = []
        for partition in held.keys.sorted() where !uncertain.contains(partition) {
            for key in held.removeValue(forKey: partition) ?? [] { released.append(key) }
        }
        while taken.count < limit, !released.isEmpty {
            let key = released.removeFirst()
            guard let next = pending.removeValue(forKey: key) else { continue }
            if !isHere(key.user, next.partition) { taken.append((next.entry, next.partition, next.firstOffset)) }
        }
        let heldBefore = heldCount
        var heldNow = 0
        while taken.count < limit, !order.isEmpty {
            let key = order[order.start]
            guard let next = pending[key] else {
                _ = order.removeFirst()
                continue
            }
            guard next.dueMs <= nowMs || pending.count - heldBefore - heldNow > entriesMax else { break }
            _ = order.removeFirst()
            if uncertain.contains(next.partition) {
                held[next.partition, default: []].append(key)
                heldNow += 1
                continue
            }
            pending[key] = nil
            taken.append((next.entry, next.partition, next.firstOffset))
        }
        return taken
    }

    /// Forgets a partition that is no longer ours; its next owner starts from the committed offset and gathers anew.
    public mutating func remove(partition: Int32) {
        pending = pending.filter { $0.value.partition != partition }
        held[partition] = nil
    }

    /// The lowest offset of each partition that still waits here.
    public func forEachPending(_ body: (_ partition: Int32, _ offset: Int64) -> Void) {
        for entry in pending.values { body(entry.partition, entry.firstOffset) }
    }
}
