import Synchronization

/// What a process says of itself at `/readyz` and `/healthz`.
///
/// Not ready means: it would fail what it is there for. Not alive means: it is stuck, and only a new start helps. Both are
/// made of named conditions. A condition is met, or fails for a reason in words, or is impaired: then the process does less
/// than it should, no other would do better, and it is ready all the same. Where a condition goes by progress, it is met for
/// a while and has to be met again: then nobody has to notice that something has stopped.
///
///     let log = health.condition("log", failing: "the log has not answered yet")
///     log.met(forMs: 5000, else: "the log acknowledges nothing")
///
/// Any thread may tell, and any may look. Each change is a log line, once somebody looks: `look` is called every second
/// where stages run. Docs/operations.md has the table of what each stage says when.
public final class Health: Sendable {
    private let book: Guarded<ConditionBook>
    private let log: Log
    private let metrics: Metrics
    private let clock: any Clock

    public init(log: Log = .none, metrics: Metrics = Metrics(), clock: any Clock) {
        book = Guarded(ConditionBook())
        self.log = log
        self.metrics = metrics
        self.clock = clock
        metrics.gauge("fanout_ready", "1 while the process does what it is there for, as /readyz says.") {
            [weak self] in self?.look().isReady == true ? 1 : 0
        }
    }

    /// - Parameter reason: what it fails for until it is told otherwise; `nil` for one that is met from the start.
    public func condition(_ name: String, failing reason: String?) -> Condition {
        add(name, failing: reason, stuckAfterMs: nil)
    }

    private func add(_ name: String, failing reason: String?, stuckAfterMs: Int64?) -> Condition {
        let now = clock.monotonicNs
        let place = book.withLock { $0.add(name, failing: reason, stuckAfterMs: stuckAfterMs, nowNs: now) }
        metrics.gauge(
            "fanout_condition_met", "1 while this condition is met, of those that /readyz goes by.", ["condition": name]
        ) {
            [weak self] in self?.look().notes.contains { $0.name == name } == false ? 1 : 0
        }
        return Condition(self, place)
    }

    /// A thread that comes round and tells so with `beat`. One that does not for ten seconds makes the process unready; after
    /// a minute it counts as stuck.
    public func thread(_ name: String) -> Condition {
        add("thread \(name)", failing: nil, stuckAfterMs: 50_000)
    }

    /// How things stand now; what has changed since the last look is logged.
    @discardableResult
    public func look() -> Verdict {
        let now = clock.monotonicNs
        let (verdict, changes) = book.withLock { $0.look(nowNs: now) }
        for change in changes {
            switch change {
            case .failed(let note):
                log.warning(
                    note.isReady ? "impaired" : "not ready",
                    ["condition": .string(note.name), "reason": .string(note.reason)])
            case .met(let name, let afterMs):
                log.info("condition met", ["condition": .string(name), "after_ms": .int(afterMs)])
            }
        }
        return verdict
    }

    fileprivate func set(_ place: Int, _ state: ConditionBook.State) {
        book.withLock { $0.set(place, state) }
    }

    fileprivate var nowNs: UInt64 { clock.monotonicNs }

    public struct Condition: Sendable {
        private let health: Health
        private let place: Int

        fileprivate init(_ health: Health, _ place: Int) {
            self.health = health
            self.place = place
        }

        /// Until something else is told.
        public func met() { health.set(place, .met) }

        /// For so long, unless it is told again; then it fails for the reason given.
        public func met(forMs ms: Int, else reason: String) {
            health.set(place, .metUntil(health.nowNs + UInt64(ms) * 1_000_000, else: reason))
        }

        /// Of a thread: it has come round.
        public func beat() { met(forMs: 10_000, else: "does not come round") }

        /// Words that stay the same while the reason does: each change of them is a log line.
        public func failed(_ reason: String) { health.set(place, .failed(reason)) }

        /// Does less, and is ready all the same. Words as for `failed`.
        public func impaired(_ reason: String) { health.set(place, .impaired(reason)) }
    }

    /// What is not as it should be, worst first.
    public struct Verdict: Sendable, Equatable {
        public let notes: [ConditionBook.Note]

        public var isReady: Bool { notes.allSatisfy(\.isReady) }
        public var isAlive: Bool { !notes.contains { $0.isStuck } }

        /// The body of an answer: how it is, and a line for each condition that fails.
        public var text: String {
            notes.reduce(isReady ? "ready\n" : "not ready\n") { text, note in
                text + "\(note.name): \(note.reason) (for \(note.forMs / 1000) s"
                    + (note.isReady ? "; ready all the same)\n" : ")\n")
            }
        }
    }
}

/// The conditions of a process, and what has become of each: a value, which is told the time.
public struct ConditionBook: Sendable {
    public enum State: Sendable, Equatable {
        case met
        case metUntil(UInt64, else: String)
        case impaired(String)
        case failed(String)
    }

    /// A condition that is not met.
    public struct Note: Sendable, Equatable {
        public let name: String
        public let reason: String
        public let forMs: Int64
        /// It is only impaired.
        public let isReady: Bool
        public let isStuck: Bool
    }

    public enum Change: Sendable, Equatable {
        case failed(Note)
        case met(String, afterMs: Int64)
    }

    private struct Entry {
        let name: String
        /// Failing for longer means that the process is stuck.
        let stuckAfterMs: Int64?
        var state: State
        /// Since when it is not met; `nil` while it is. As of the last look, as is the reason that was told.
        var failsSinceNs: UInt64?
        var told: String?
    }

    private var entries: [Entry] = []

    public init() {}

    public mutating func add(
        _ name: String, failing reason: String?, stuckAfterMs: Int64? = nil, nowNs: UInt64
    ) -> Int {
        // How it begins is no change: a process that has just started is not ready, which everybody knows.
        entries.append(
            Entry(
                name: name, stuckAfterMs: stuckAfterMs, state: reason.map { .failed($0) } ?? .met,
                failsSinceNs: reason == nil ? nil : nowNs, told: reason))
        return entries.count - 1
    }

    public mutating func set(_ place: Int, _ state: State) { entries[place].state = state }

    /// How things stand, and what has changed since the last look.
    public mutating func look(nowNs: UInt64) -> (Health.Verdict, [Change]) {
        // Who has said nothing yet has not begun.
        guard !entries.isEmpty else {
            let note = Note(name: "start", reason: "it is starting", forMs: 0, isReady: false, isStuck: false)
            return (Health.Verdict(notes: [note]), [])
        }
        var notes: [Note] = []
        var changes: [Change] = []
        for index in entries.indices {
            let entry = entries[index]
            let failure: (reason: String, sinceNs: UInt64)? =
                switch entry.state {
                case .met: nil
                case .failed(let reason), .impaired(let reason): (reason, nowNs)
                case .metUntil(let endNs, let reason): nowNs >= endNs ? (reason, endNs) : nil
                }
            guard let failure else {
                if let sinceNs = entry.failsSinceNs {
                    changes.append(.met(entry.name, afterMs: Int64(nowNs &- sinceNs) / 1_000_000))
                }
                (entries[index].failsSinceNs, entries[index].told) = (nil, nil)
                continue
            }
            let sinceNs = entry.failsSinceNs ?? failure.sinceNs
            entries[index].failsSinceNs = sinceNs
            let forMs = Int64(nowNs &- sinceNs) / 1_000_000
            var isReady = false
            if case .impaired = entry.state { isReady = true }
            let note = Note(
                name: entry.name, reason: failure.reason, forMs: forMs, isReady: isReady,
                isStuck: entry.stuckAfterMs.map { forMs > $0 } ?? false)
            if entry.told != failure.reason { changes.append(.failed(note)) }
            entries[index].told = failure.reason
            notes.append(note)
        }
        return (Health.Verdict(notes: notes.filter { !$0.isReady } + notes.filter(\.isReady)), changes)
    }
}
