/// What a consumer knows of one partition: where it reads, what may be asked, and which answers count. A value without
/// I/O: it is told what was answered and what was taken, and says what to ask next.
///
/// Whatever changes its place (a seek, a pause, an assignment) begins another *life*: what an earlier one has asked for
/// or been given is void, so a late answer can neither repeat nor skip a record.
struct IncomingPartition {
    enum Start: Equatable {
        case offset(Int64)
        /// The first offset, the next one, or the first at a time, as brokers spell it.
        case time(Int64)
        /// Where the group has committed, else where `reset` says.
        case committed

        static let earliest = Start.time(-2)
        static let latest = Start.time(-1)
    }

    /// Where to go when there is no place to go on from; nil is nowhere, and an error.
    let reset: Start?
    private(set) var life: UInt32 = 0
    private(set) var isAssigned = false
    private(set) var isPaused = false
    /// The broker that has its records.
    var leader: Int32?
    private var start = Start.committed
    /// What is next given to the caller, as far as it is known.
    private var next: Int64?
    /// What is next asked for, once `isPlaced`.
    private var wanted: Int64 = 0
    private var isPlaced = false
    /// The offset after the last record that was taken.
    private(set) var position: Int64?
    private var isAsked = false
    private var hasFailed = false
    private var resumesAtNs: UInt64 = 0
    /// More was there than came, when it was last asked.
    private var isBehind = true
    private var toldEnd: Int64 = -1
    private var lastError: Int16 = 0
    private var unknownSinceNs: UInt64?
    private var corrupt: (offset: Int64, times: Int) = (-1, 0)
    /// Grows when not even one batch came whole.
    private(set) var bytesMax: Int32

    static let corruptTimesMax = 3

    init(reset: Start?, bytesMax: Int32) {
        self.reset = reset
        self.bytesMax = bytesMax
    }

    // MARK: What the caller wants

    mutating func assign(_ start: Start) {
        isAssigned = true
        isPaused = false
        position = nil
        (lastError, unknownSinceNs) = (0, nil)
        begin(start)
    }

    mutating func unassign() {
        isAssigned = false
        beginLife()
    }

    mutating func seek(_ start: Start) { begin(start) }

    /// What came and was not taken comes again after `resume`.
    mutating func pause() {
        guard !isPaused else { return }
        isPaused = true
        beginLife()
        if isPlaced, let next { wanted = next }
    }

    mutating func resume() { isPaused = false }

    /// A record has been given to the caller, or all up to here was nothing for it.
    mutating func took(_ offset: Int64) {
        next = offset + 1
        position = next
    }

    private mutating func begin(_ start: Start) {
        beginLife()
        self.start = start
        (resumesAtNs, hasFailed, isBehind, toldEnd) = (0, false, true, -1)
        if case .offset(let offset) = start {
            place(at: offset)
        } else {
            (next, isPlaced) = (nil, false)
        }
    }

    private mutating func place(at offset: Int64) {
        (next, wanted, isPlaced) = (offset, offset, true)
    }

    private mutating func beginLife() {
        life &+= 1
        isAsked = false
    }

    // MARK: What to ask

    enum Wish: Equatable {
        case nothing
        /// Something, once time has passed.
        case time
        case leader
        case committed
        case offset(time: Int64)
        case records(from: Int64)
    }

    func wish(nowNs: UInt64) -> Wish {
        guard isAssigned, !isPaused, !isAsked, !hasFailed else { return .nothing }
        guard nowNs >= resumesAtNs else { return .time }
        if !isPlaced, start == .committed { return .committed }
        guard leader != nil else { return .leader }
        if !isPlaced, case .time(let time) = start { return .offset(time: time) }
        return .records(from: wanted)
    }

    /// What was wished is on its way.
    mutating func asked() { isAsked = true }

    /// The connection on which it was asked is gone.
    mutating func lost(life: UInt32) { if life == self.life { isAsked = false } }

    /// What was answered left it out.
    mutating func leftOut(life: UInt32, nowNs: UInt64) {
        guard life == self.life, isAsked else { return }
        isAsked = false
        resumesAtNs = nowNs + Self.pauseNs
    }

    // MARK: Answers

    enum Outcome: Equatable {
        /// Nobody waits for this any more, or it passes.
        case nothing
        case askLeader
        /// For the caller, once: it goes on by itself unless it says that there is no place to go on from.
        case failed(Int16)
        case noPlace
    }

    private static let pauseNs: UInt64 = 20_000_000
    private static let longPauseNs: UInt64 = 500_000_000
    /// What is being made is there after this.
    private static let soonNs: UInt64 = 2_000_000_000
    /// A partition that nobody knows may be one that is being made, for as long as this.
    private static let unknownNs: UInt64 = 30_000_000_000

    /// Where the group has committed.
    mutating func committed(_ offset: Int64?, life: UInt32) -> Outcome {
        guard life == self.life else { return .nothing }
        guard let offset else { return startOver() }
        place(at: offset)
        return .nothing
    }

    /// An offset that was asked for.
    mutating func found(_ offset: Int64, error: Int16, life: UInt32, nowNs: UInt64) -> Outcome {
        guard life == self.life else { return .nothing }
        isAsked = false
        guard error == 0 else { return failed(error, nowNs: nowNs) }
        guard offset >= 0 else { return startOver() }
        lastError = 0
        place(at: offset)
        return .nothing
    }

    /// There is no place to go on from.
    private mutating func startOver() -> Outcome {
        guard let reset else {
            hasFailed = true
            return .noPlace
        }
        start = reset
        (next, isPlaced) = (nil, false)
        return .nothing
    }

    /// An answer to a question for records that has none because of an error, or nothing but an error to tell.
    mutating func failed(_ error: Int16, life: UInt32, nowNs: UInt64) -> Outcome {
        guard life == self.life else { return .nothing }
        isAsked = false
        // OFFSET_OUT_OF_RANGE
        return error == 1 ? startOver() : failed(error, nowNs: nowNs)
    }

    private mutating func failed(_ error: Int16, nowNs: UInt64) -> Outcome {
        let isNew = error != lastError
        lastError = error
        switch error {
        // LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, BROKER_NOT_AVAILABLE, REPLICA_NOT_AVAILABLE, KAFKA_STORAGE_ERROR,
        // FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH: it has moved, or is about to.
        case 5, 6, 8, 9, 56, 74, 75:
            leader = nil
            resumesAtNs = nowNs + Self.pauseNs
            return .askLeader
        // UNKNOWN_TOPIC_OR_PARTITION: gone, or not there yet.
        case 3:
            leader = nil
            let since = unknownSinceNs ?? nowNs
            unknownSinceNs = since
            resumesAtNs = nowNs + (nowNs &- since < Self.soonNs ? Self.pauseNs : Self.longPauseNs)
            if nowNs &- since < Self.unknownNs { return .askLeader }
            unknownSinceNs = nowNs
            return .failed(error)
        // REQUEST_TIMED_OUT, THROTTLING_QUOTA_EXCEEDED, OFFSET_NOT_AVAILABLE
        case 7, 89, 78:
            resumesAtNs = nowNs + Self.pauseNs
            return .nothing
        default:
            resumesAtNs = nowNs + Self.longPauseNs
            return isNew ? .failed(error) : .nothing
        }
    }

    /// Those who should know say that there is no such partition, or that nobody leads it.
    mutating func hasNoLeader(error: Int16, nowNs: UInt64) -> Outcome {
        guard isAssigned else { return .nothing }
        return failed(error, nowNs: nowNs)
    }

    struct Records: Equatable {
        /// What counts of the bytes that came: whole batches.
        var range: Range<Int>
        /// Records before this have been given before.
        var from: Int64
        /// To be told when all of it is taken.
        var end: Int64?
        /// A batch that cannot be used, however often it is asked for, ends here, and is left out.
        var skipsTo: Int64?
        /// It is of a format that is not read here.
        var isOld = false
    }

    /// Takes an answer without an error; nil when it is void. `hadRoom`: it was not other partitions' records that left no
    /// room for more of this one's.
    mutating func answered(
        _ bytes: Span<UInt8>, _ range: Range<Int>, end: Int64, life: UInt32, hadRoom: Bool, nowNs: UInt64
    ) -> Records? {
        guard life == self.life else { return nil }
        isAsked = false
        var records = Records(range: range.lowerBound..<range.lowerBound, from: wanted)
        var position = range.lowerBound
        var isCutOff = false
        loop: while position < range.upperBound {
            switch IncomingBatch.read(bytes, at: position, end: range.upperBound) {
            case .batch(let batch):
                position = batch.records.upperBound
                wanted = max(wanted, batch.lastOffset + 1)
                records.range = range.lowerBound..<position
            case .cutOff:
                isCutOff = true
                break loop
            case .corrupt(_, let lastOffset):
                // What came whole is taken first.
                guard records.range.isEmpty else { break loop }
                if failsAgain() {
                    wanted = max(wanted, lastOffset) + 1
                    records.skipsTo = wanted
                } else {
                    resumesAtNs = nowNs + Self.longPauseNs
                }
                break loop
            case .old, .nonsense:
                guard records.range.isEmpty else { break loop }
                hasFailed = failsAgain()
                records.isOld = hasFailed
                resumesAtNs = nowNs + Self.longPauseNs
                break loop
            }
        }
        (lastError, unknownSinceNs) = (0, nil)
        // A batch that is longer than was asked for comes as nothing, or in part.
        if records.range.isEmpty, isCutOff || (range.isEmpty && hadRoom && wanted < end) {
            bytesMax = bytesMax > .max / 2 ? .max : bytesMax * 2
        }
        // Told at the first arrival, and whenever a question has waited in vain since; not after each record of a
        // partition that keeps up.
        if wanted < end {
            isBehind = true
        } else if range.isEmpty ? toldEnd != wanted : isBehind {
            (isBehind, toldEnd) = (false, wanted)
            records.end = wanted
        }
        return records
    }

    /// The same batch has been unusable often enough for it not to be the connection's fault.
    private mutating func failsAgain() -> Bool {
        corrupt = corrupt.offset == wanted ? (wanted, corrupt.times + 1) : (wanted, 1)
        return corrupt.times >= Self.corruptTimesMax
    }
}
