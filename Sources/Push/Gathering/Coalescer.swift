public import Wire

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

    private struct Waiting {
        var notice: Notice
        var dueMs: Int64
    }

    public let options: Options
    private var waiting: [UserID: Waiting] = [:]
    private var due = Heap()
    /// Whose notice is under way, and what it holds in memory.
    private var underWay: [UserID: Int] = [:]
    /// Who has been told recently, and until when they are left alone; in the order in which that ends.
    private var quietUntil: [UserID: Int64] = [:]
    private var quietOrder: [(untilMs: Int64, user: UserID)] = []
    private var quietStart = 0

    public init(_ options: Options = Options()) {
        self.options = options
    }

    /// People who wait for their notice or have one under way.
    public var count: Int { waiting.count + underWay.count }
    /// About what their notices take in memory.
    public private(set) var bytes = 0

    public mutating func add(_ part: Notice.ChatPart, for user: UserID, nowMs: Int64) {
        let soonest = nowMs + options.windowMs
        guard var entry = waiting.removeValue(forKey: user) else {
            let notice = Notice(user: user, chats: [part])
            let dueMs = part.isMention ? soonest : max(soonest, quietUntil[user] ?? 0)
            bytes += notice.bytes
            waiting[user] = Waiting(notice: notice, dueMs: dueMs)
            due.push(dueMs, user)
            return
        }
        bytes -= entry.notice.bytes
        if let index = entry.notice.chats.firstIndex(where: { $0.chat == part.chat }) {
            entry.notice.chats[index].add(part)
        } else {
            entry.notice.chats.append(part)
        }
        bytes += entry.notice.bytes
        if part.isMention, entry.dueMs > soonest {
            entry.dueMs = soonest
            due.push(soonest, user)
        }
        waiting[user] = entry
    }

    /// Since when the oldest notice that has not been taken has been due; nil when none is.
    public func overdueSinceMs(nowMs: Int64) -> Int64? {
        due.first.flatMap { $0.dueMs <= nowMs ? $0.dueMs : nil }
    }

    /// The notices that are due, at most `limit`. Each is under way until `finish` is called for its user.
    public mutating func take(nowMs: Int64, limit: Int) -> [Notice] {
        forgetQuiet(nowMs)
        var taken: [Notice] = []
        while taken.count < limit, let next = due.first, next.dueMs <= nowMs {
            due.pop()
            // An entry that was cancelled or moved forward has another time, or none.
            guard let entry = waiting[next.user], entry.dueMs == next.dueMs else { continue }
            // Its turn comes when the notice under way is settled.
            if underWay[next.user] != nil { continue }
            waiting[next.user] = nil
            underWay[next.user] = entry.notice.bytes
            taken.append(entry.notice)
        }
        return taken
    }

    /// The notice under way is settled, told or given up. `wasTold` begins the person's quiet time.
    public mutating func finish(_ user: UserID, wasTold: Bool, nowMs: Int64) {
        bytes -= underWay.removeValue(forKey: user) ?? 0
        if wasTold {
            quietUntil[user] = nowMs + options.perUserMs
            quietOrder.append((nowMs + options.perUserMs, user))
        }
        guard var entry = waiting.removeValue(forKey: user) else { return }
        // Who was mentioned meanwhile is not left alone, now as little as when nothing was under way.
        if !entry.notice.isMention { entry.dueMs = max(entry.dueMs, quietUntil[user] ?? 0) }
        waiting[user] = entry
        due.push(entry.dueMs, user)
    }

    /// The person was seen with a session at `seenMs`: whatever waits from before then has reached them.
    public mutating func cancel(_ user: UserID, seenMs: Int64) -> [RecordPosition] {
        drop(of: user) { $0.newestMs < seenMs }
    }

    /// The person has a chat up to `seq` elsewhere: read there, or delivered to a device.
    public mutating func read(_ user: UserID, chat: ChatID, seq: Int64) -> [RecordPosition] {
        drop(of: user) { $0.chat == chat && $0.lastSeq <= seq }
    }

    private mutating func drop(of user: UserID, _ isDropped: (Notice.ChatPart) -> Bool) -> [RecordPosition] {
        guard var entry = waiting[user] else { return [] }
        let before = entry.notice.bytes
        let (kept, settled) = entry.notice.without(isDropped)
        guard !settled.isEmpty else { return [] }
        entry.notice = kept
        waiting[user] = kept.chats.isEmpty ? nil : entry
        bytes += (kept.chats.isEmpty ? 0 : kept.bytes) - before
        return settled
    }

    /// A partition went to another process, which starts from the committed offset and gathers anew.
    public mutating func remove(partition: Int32) {
        for (user, entry) in waiting where entry.notice.records.contains(where: { $0.partition == partition }) {
            bytes -= entry.notice.bytes
            waiting[user] = nil
        }
    }

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
