/// One session's stream on the chat server: which events it still needs from where, and which to pass on, so that none is
/// missed, none comes twice and none overtakes another, whatever happens to links and owners (docs/push-link.md, "A
/// session's stream").
///
/// Every answer names the request that it answers, and only the answer to the last one counts: what a former owner says
/// late, or what was asked for a registration that is void, changes nothing.
///
/// A live session costs its cursor and a few bytes: `Payload` is whatever the chat server shares among the sessions of a
/// batch, and is held here only while a gap is being filled.
public struct SessionFeed<Payload> {
    private enum State {
        /// No owner to ask, or not yet asked.
        case waiting
        case registering(request: UInt32)
        /// Being filled from the hot window, through this offset; live events wait. No request while the next page has
        /// yet to be asked for.
        case filling(through: Cursor, request: UInt32?)
        /// History is serving what lies before the hot window. That may take long, so live events are not kept meanwhile:
        /// behind History the session is registered anew, and they are filled.
        case history(run: UInt32, until: Cursor)
        case live
    }

    /// What is to be done next for the session.
    public enum Step: Hashable, Sendable {
        case nothing
        /// Ask the owner for what lies in between, now or when there is room (`fillDue`), then call `asked`.
        case fill(after: Cursor, through: Int64)
        /// Ask History for everything after `from` up to the window's start, then call `historyServed`. Stop when
        /// `isServing` says that the run is void.
        case history(run: UInt32, from: Cursor, until: Cursor)
        /// Pass on what waits (`takeHeld`); the session is live. `first` when it was the first time: `caught_up`.
        case live(first: Bool)
        /// Name the session again to whoever owns the partition, now or next: its owner does not know it, or it is elsewhere
        /// in its stream than it was.
        case register
    }

    public enum Verdict: Hashable, Sendable {
        case deliver
        case drop
        /// Kept until the gap before it is filled.
        case hold
    }

    public struct Held {
        public let cursor: Cursor
        public let payload: Payload
    }

    private var state = State.waiting
    private var wasLive = false
    /// The last place seen; `nil` until a new device's registration is answered.
    public private(set) var after: Cursor?
    private var held: [Held] = []
    private var heldByteCount = 0
    /// More has come than may wait: nothing is kept any more, and what comes is filled after the present gap.
    private var isOverrun = false
    private var historyRuns: UInt32 = 0

    /// `after`: where the device left off; `nil` starts live.
    public init(after: Cursor?) { self.after = after }

    public var isLive: Bool { if case .live = state { true } else { false } }

    /// The page that is to be asked for as soon as the session has room for it.
    public var fillDue: (after: Cursor, through: Int64)? {
        guard case .filling(let through, request: nil) = state, let after else { return nil }
        return (after, through.offset)
    }

    /// Whether History still serves this run.
    public func isServing(_ run: UInt32) -> Bool {
        if case .history(run, _) = state { true } else { false }
    }

    /// The session is named to an owner in this `register` frame, with `after` as its cursor. Whatever was asked before
    /// is void.
    public mutating func register(_ request: UInt32) {
        dropHeld()
        state = .registering(request: request)
    }

    /// The owner has answered a registration.
    public mutating func registered(_ request: UInt32, liveAfter: Cursor) -> Step {
        guard case .registering(request) = state else { return .nothing }
        guard let after, after.offset < liveAfter.offset else {
            if after == nil { after = liveAfter }
            return goLive()
        }
        return fill(after, through: liveAfter)
    }

    private mutating func fill(_ after: Cursor, through: Cursor) -> Step {
        state = .filling(through: through, request: nil)
        return .fill(after: after, through: through.offset)
    }

    /// The fill that is due has been asked for by this request.
    public mutating func asked(_ request: UInt32) {
        guard case .filling(let through, request: nil) = state else { return }
        state = .filling(through: through, request: request)
    }

    /// A batch from the partition's owner names the session.
    public mutating func receive(
        _ cursor: Cursor, _ kind: EventKind, _ payload: @autoclosure () -> Payload, byteCount: Int, heldBytesMax: Int
    ) -> Verdict {
        switch state {
        case .live:
            guard let after, cursor.offset > after.offset else { return .drop }
            self.after = cursor
            return .deliver
        case .filling(let through, _):
            // At or below: the fill brings it.
            guard cursor.offset > through.offset, !isOverrun else { return .drop }
            guard heldByteCount + byteCount <= heldBytesMax else {
                if !kind.isDroppable {
                    dropHeld()
                    isOverrun = true
                }
                return .drop
            }
            heldByteCount += byteCount
            held.append(Held(cursor: cursor, payload: payload()))
            return .hold
        case .waiting, .registering, .history:
            // Of an earlier registration; the one under way or to come says from where events are needed.
            return .drop
        }
    }

    /// One event of the page that answers a request.
    public mutating func receive(filled offset: Int64, by request: UInt32) -> Verdict {
        guard case .filling(_, request) = state, let after, offset > after.offset else { return .drop }
        // The page's `upTo` brings the time; between two events of a page only the offset matters.
        self.after = Cursor(offset: offset, timestamp: after.timestamp)
        return .deliver
    }

    /// The end of the page that answers a request.
    public mutating func receive(pageUpTo upTo: Cursor, isLast: Bool, by request: UInt32) -> Step {
        guard case .filling(let through, request) = state, let after else { return .nothing }
        if upTo.offset >= through.offset {
            // The time of the registration's answer is the record's own; a page may not have that record at hand.
            self.after = through
        } else if upTo.offset >= after.offset {
            self.after = upTo
        }
        guard isLast else { return fill(self.after ?? upTo, through: through) }
        guard isOverrun else { return goLive() }
        dropHeld()
        state = .waiting
        return .register
    }

    /// The answer to a request that cannot be served, or, `FillRequest.unasked`, what the owner says by itself.
    public mutating func receive(cannotFill reason: FillRefusal, windowStart: Cursor, by request: UInt32) -> Step {
        guard let after else { return .nothing }
        switch (state, reason) {
        case (.filling(_, request), .unknownSession):
            ownerLost(heard: nil)
            return .register
        case (.filling(_, request), _): break
        // The session seemed to be ahead of the log and went live; what it needs begins after `windowStart`.
        case (.live, .foreign) where request == FillRequest.unasked: break
        default: return .nothing
        }
        dropHeld()
        historyRuns &+= 1
        // A foreign cursor's time still tells History where to start.
        state = .history(run: historyRuns, until: windowStart)
        return .history(run: historyRuns, from: after, until: windowStart)
    }

    /// History has handed over everything up to the window's start of this `.history` step.
    public mutating func historyServed(_ run: UInt32) -> Step {
        guard case .history(run, let until) = state else { return .nothing }
        after = until
        state = .waiting
        return .register
    }

    /// The events that waited while the gap was filled, in order; to be passed on after `.live`.
    public mutating func takeHeld() -> [Held] {
        var taken: [Held] = []
        swap(&taken, &held)
        heldByteCount = 0
        let before = after?.offset ?? -1
        if let last = taken.last, last.cursor.offset > before { after = last.cursor }
        taken.removeAll { $0.cursor.offset <= before }
        return taken
    }

    /// The owner is gone, or another has claimed the partition. `heard`: how far the old owner's stream had come on its
    /// link, which is how far a live session had come.
    public mutating func ownerLost(heard: Cursor?) {
        if isLive, let heard, heard.offset > after?.offset ?? -1 { after = heard }
        state = .waiting
        dropHeld()
    }

    /// Whatever waits lies beyond `after` and comes again, by fill or live.
    private mutating func dropHeld() {
        held = []
        heldByteCount = 0
        isOverrun = false
    }

    private mutating func goLive() -> Step {
        state = .live
        defer { wasLive = true }
        return .live(first: !wasLive)
    }
}
