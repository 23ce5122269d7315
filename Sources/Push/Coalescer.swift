public import Wire

/// Where a record of `chat.push` stands; it may be committed once all that it led to is settled.
public struct RecordPosition: Hashable, Sendable {
    public let partition: Int32
    public let offset: Int64

    public init(partition: Int32, offset: Int64) {
        self.partition = partition
        self.offset = offset
    }
}

/// What one person is to be told: everything that has gathered in their chats.
public struct Notice: Equatable, Sendable {
    public struct ChatPart: Equatable, Sendable {
        public let chat: ChatID
        public internal(set) var count: Int64
        /// The newest message's event, as raw JSON.
        public internal(set) var last: [UInt8]
        public internal(set) var lastSeq: Int64
        var records: [RecordPosition]
    }

    public let user: UserID
    public internal(set) var chats: [ChatPart]

    public var records: [RecordPosition] { chats.flatMap(\.records) }
    public var count: Int64 { chats.reduce(0) { $0 + $1.count } }

    /// Names this notice for ever: a repeat after a crash is made of the same first record, so its receiver can tell.
    public var idempotencyKey: String {
        let first = records.min { ($0.partition, $0.offset) < ($1.partition, $1.offset) }
        return "\(user)/\(first?.partition ?? 0)/\(first?.offset ?? 0)"
    }
}

/// Gathers what people without a session have missed, so that ten messages are one notification: a window after the
/// first message, and then at most one notification each `perUserMs` unless the person is mentioned. Pure: the caller
/// brings records, presence and the time, and sends what is due.
///
/// At most one notice of a person is under way, so a person's notices arrive in order.
public struct Coalescer {
    public struct Options: Sendable {
        public var windowMs: Int64 = 5000
        public var perUserMs: Int64 = 30_000

        public init() {}
    }

    fileprivate struct Waiting {
        var notice: Notice
        var dueMs: Int64
    }

    public let options: Options
    private var waiting: [UserID: Waiting] = [:]
    private var due = Heap()
    private var underWay: Set<UserID> = []
    /// Who has been told recently, and until when they are left alone; in the order in which that ends.
    private var quietUntil: [UserID: Int64] = [:]
    private var quietOrder: [(untilMs: Int64, user: UserID)] = []
    private var quietStart = 0

    public init(_ options: Options = Options()) {
        self.options = options
    }

    /// People who wait for their notice or have one under way.
    public var count: Int { waiting.count + underWay.count }

    public mutating func add(
        user: UserID, chat: ChatID, count: Int64, last: [UInt8], lastSeq: Int64, isMention: Bool,
        record: RecordPosition, nowMs: Int64
    ) {
        let part = Notice.ChatPart(chat: chat, count: count, last: last, lastSeq: lastSeq, records: [record])
        let soonest = nowMs + options.windowMs
        guard waiting[user] != nil else {
            let dueMs = isMention ? soonest : max(soonest, quietUntil[user] ?? 0)
            waiting[user] = Waiting(notice: Notice(user: user, chats: [part]), dueMs: dueMs)
            due.push(dueMs, user)
            return
        }
        waiting[user]?.add(part)
        if isMention, let dueMs = waiting[user]?.dueMs, dueMs > soonest {
            waiting[user]?.dueMs = soonest
            due.push(soonest, user)
        }
    }

    /// The notices that are due, at most `limit`. Each is under way until `finish` is called for its user.
    public mutating func take(nowMs: Int64, limit: Int) -> [Notice] {
        forgetQuiet(nowMs)
        var taken: [Notice] = []
        while taken.count < limit, let next = due.first, next.dueMs <= nowMs {
            due.pop()
            // An entry that was cancelled or moved forward has another time, or none.
            guard let entry = waiting[next.user], entry.dueMs == next.dueMs else { continue }
            if underWay.contains(next.user) {
                // Its turn comes when the notice under way is settled.
                continue
            }
            waiting[next.user] = nil
            underWay.insert(next.user)
            taken.append(entry.notice)
        }
        return taken
    }

    /// The notice under way is settled, told or given up. `wasTold` begins the person's quiet time.
    public mutating func finish(_ user: UserID, wasTold: Bool, nowMs: Int64) {
        underWay.remove(user)
        if wasTold {
            quietUntil[user] = nowMs + options.perUserMs
            quietOrder.append((nowMs + options.perUserMs, user))
        }
        guard var entry = waiting[user] else { return }
        entry.dueMs = max(entry.dueMs, quietUntil[user] ?? 0)
        waiting[user] = entry
        due.push(entry.dueMs, user)
    }

    /// The person is online: what waits for them is settled without a notice.
    public mutating func cancel(_ user: UserID) -> [RecordPosition] {
        waiting.removeValue(forKey: user)?.notice.records ?? []
    }

    /// The person has read a chat up to `seq` elsewhere.
    public mutating func read(_ user: UserID, chat: ChatID, seq: Int64) -> [RecordPosition] {
        guard var entry = waiting[user],
            let index = entry.notice.chats.firstIndex(where: { $0.chat == chat && $0.lastSeq <= seq })
        else { return [] }
        let settled = entry.notice.chats.remove(at: index).records
        waiting[user] = entry.notice.chats.isEmpty ? nil : entry
        return settled
    }

    /// A partition went to another process, which starts from the committed offset and gathers anew.
    public mutating func remove(partition: Int32) {
        for (user, entry) in waiting where entry.notice.records.contains(where: { $0.partition == partition }) {
            waiting[user] = nil
        }
    }

    /// When there is next something to do, or `nil`.
    public var nextDueMs: Int64? { due.first?.dueMs }

    private mutating func forgetQuiet(_ nowMs: Int64) {
        while quietStart < quietOrder.count, quietOrder[quietStart].untilMs <= nowMs {
            let (untilMs, user) = quietOrder[quietStart]
            if quietUntil[user] == untilMs { quietUntil[user] = nil }
            quietStart += 1
        }
        if quietStart > 1024, quietStart * 2 > quietOrder.count {
            quietOrder.removeFirst(quietStart)
            quietStart = 0
        }
    }
}

extension Coalescer.Waiting {
    fileprivate mutating func add(_ part: Notice.ChatPart) {
        guard let index = notice.chats.firstIndex(where: { $0.chat == part.chat }) else {
            notice.chats.append(part)
            return
        }
        notice.chats[index].count += part.count
        notice.chats[index].records += part.records
        // A replayed older record must not bring an older preview back.
        if part.lastSeq >= notice.chats[index].lastSeq {
            notice.chats[index].last = part.last
            notice.chats[index].lastSeq = part.lastSeq
        }
    }
}

/// A binary heap of times, soonest first.
private struct Heap {
    private var entries: [(dueMs: Int64, user: UserID)] = []

    var first: (dueMs: Int64, user: UserID)? { entries.first }

    mutating func push(_ dueMs: Int64, _ user: UserID) {
        entries.append((dueMs, user))
        var child = entries.count - 1
        while child > 0, entries[child].dueMs < entries[(child - 1) / 2].dueMs {
            entries.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func pop() {
        entries.swapAt(0, entries.count - 1)
        entries.removeLast()
        var parent = 0
        while true {
            var soonest = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < entries.count {
                if entries[child].dueMs < entries[soonest].dueMs { soonest = child }
            }
            guard soonest != parent else { return }
            entries.swapAt(parent, soonest)
            parent = soonest
        }
    }
}
