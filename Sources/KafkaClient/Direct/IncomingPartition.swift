internal import Wire

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

    /// Where to begin when the group has committed nothing; nil is nowhere, and an error.
    let reset: Start?
    private(set) var life: UInt32 = 0
    private(set) var isAssigned = false
    private(set) var isPaused = false
    /// The broker that has its records, and since which epoch: -1 when that is not told.
    private(set) var leader: Int32?
    private(set) var leaderEpoch: Int32 = -1
    private var stage = Stage.still
    private var start = Start.committed
    /// The log that the place belongs to: the caller's, or the one that was there when the place was found.
    private(set) var log: LogIdentity?
    /// What the brokers said last.
    private var newestLog: LogIdentity?
    /// The leader's epoch that the record before `wanted` was taken in; -1 when it is not known.
    private(set) var epoch: Int32 = -1
    /// What is next given to the caller, as far as it is known.
    private var next: Int64?
    /// What is next asked for, once it is known.
    private var wanted: Int64 = 0
    /// The offset after the last record that was taken.
    private(set) var position: Int64?
    private var isAsked = false
    private var resumesAtNs: UInt64 = 0
    /// More was there than came, when it was last asked.
    private var isBehind = true
    private var toldEnd: Int64 = -1
    private var lastError: Int16 = 0
    private var unknownSinceNs: UInt64?
    /// Since when those who should know say that there is no such topic, or tell of an earlier leader.
    private var goneSinceNs: UInt64?
    /// The leaders of a log without an identity are counted anew once its reader says where to go on.
    private var isEpochOfAnother = false
    private var corrupt: (offset: Int64, times: Int) = (-1, 0)
    private var cutOff: (offset: Int64, times: Int) = (-1, 0)
    /// Grows when not even one batch came whole.
    private(set) var bytesMax: Int32

    private enum Stage: Equatable {
        /// Where to read is to be asked first.
        case seeking(Start)
        /// Whether the log still has what the place follows is to be asked first.
        case checking
        case reading
        /// The place is not in the log; where that begins and ends is asked.
        case measuring(low: Int64?)
        /// Nothing is asked until the caller says where to go on.
        case still
    }

    static let corruptTimesMax = 3
    /// A batch that never comes whole, though there would be room for it, says a wrong length.
    private static let cutOffTimesMax = 12

    init(reset: Start?, bytesMax: Int32) {
        self.reset = reset
        self.bytesMax = bytesMax
    }

    // MARK: What the caller wants

    /// `log`, `epoch`: what the place was taken from.
    mutating func assign(_ start: Start, log: LogIdentity? = nil, epoch: Int32 = -1) {
        isAssigned = true
        isPaused = false
        position = nil
        (lastError, unknownSinceNs) = (0, nil)
        begin(start, log: log, epoch: epoch)
    }

    mutating func unassign() {
        isAssigned = false
        beginLife()
    }

    mutating func seek(_ start: Start, log: LogIdentity? = nil, epoch: Int32 = -1) {
        begin(start, log: log, epoch: epoch)
    }

    /// What came and was not taken comes again after `resume`; so does what was said and may not have been heard.
    mutating func pause() {
        guard !isPaused else { return }
        isPaused = true
        beginLife()
        lastError = 0
        // Which log it is must be said again, before anything of the other is read.
        if log != newestLog { leader = nil }
        if let next {
            wanted = next
            if stage == .still { stage = readable }
        } else if stage == .still {
            stage = .seeking(start)
        }
    }

    /// How to read on from a place: where it is known what the place follows, that is asked first.
    private var readable: Stage { epoch >= 0 ? .checking : .reading }

    mutating func resume() { isPaused = false }

    /// A record has been given to the caller, or all up to here was nothing for it.
    mutating func took(_ offset: Int64) {
        next = offset + 1
        position = next
    }

    private var hasPlace: Bool { if case .seeking = stage { false } else { true } }

    private mutating func begin(_ start: Start, log: LogIdentity?, epoch: Int32) {
        beginLife()
        self.start = start
        self.log = log ?? newestLog
        // Whose knowledge is older, the caller's or this, the brokers know.
        if self.log != newestLog { leader = nil }
        self.epoch = -1
        (resumesAtNs, isBehind, toldEnd, goneSinceNs) = (0, true, -1, nil)
        if isEpochOfAnother { (leaderEpoch, isEpochOfAnother) = (-1, false) }
        if case .offset(let offset) = start {
            place(at: offset, epoch: epoch)
        } else {
            (next, stage) = (nil, .seeking(start))
        }
    }

    private mutating func place(at offset: Int64, epoch: Int32) {
        (next, wanted, self.epoch) = (offset, offset, epoch)
        stage = readable
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
        /// Where what was written up to that leader's epoch ends.
        case epochEnd(Int32)
        case records(from: Int64)
    }

    func wish(nowNs: UInt64) -> Wish {
        guard isAssigned, !isPaused, !isAsked, stage != .still else { return .nothing }
        guard nowNs >= resumesAtNs else { return .time }
        if stage == .seeking(.committed) { return .committed }
        guard leader != nil else { return .leader }
        switch stage {
        case .seeking(.time(let time)): return .offset(time: time)
        case .measuring(let low): return .offset(time: low == nil ? Self.earliest : Self.latest)
        case .checking: return .epochEnd(epoch)
        case .seeking, .reading, .still: return .records(from: wanted)
        }
    }

    private static let earliest: Int64 = -2
    private static let latest: Int64 = -1

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
        /// For the caller, once: it stands still. Where it would have read on, if that was known.
        case lost(LostPlace.Reason, position: Int64?)
    }

    private static let pauseNs: UInt64 = 20_000_000
    private static let longPauseNs: UInt64 = 500_000_000
    /// What is being made is there after this.
    private static let soonNs: UInt64 = 2_000_000_000
    /// A partition that nobody knows may be one that is being made, for as long as this.
    private static let unknownNs: UInt64 = 30_000_000_000
    /// A topic that was there and is unknown for so long has been deleted: one broker may hear of it later than others.
    private static let goneNs: UInt64 = 500_000_000
    /// Without topic ids, a leader's epoch that stays below the known one for so long is another log's.
    private static let staleNs: UInt64 = 5_000_000_000

    /// Where the group has committed.
    mutating func committed(_ offset: Int64?, life: UInt32) -> Outcome {
        guard life == self.life, stage == .seeking(.committed) else { return .nothing }
        if let offset {
            place(at: offset, epoch: -1)
        } else if let reset {
            start = reset
            stage = .seeking(reset)
        } else {
            stage = .still
            return .noPlace
        }
        return .nothing
    }

    /// An offset that was asked for.
    mutating func found(_ offset: Int64, epoch: Int32, error: Int16, life: UInt32, nowNs: UInt64) -> Outcome {
        guard life == self.life else { return .nothing }
        isAsked = false
        guard error == 0 else { return failed(error, nowNs: nowNs) }
        lastError = 0
        switch stage {
        case .seeking:
            guard offset >= 0 else {
                stage = .still
                return .noPlace
            }
            place(at: offset, epoch: -1)
            self.epoch = epoch
        case .measuring(nil):
            stage = .measuring(low: offset)
        case .measuring(let low?):
            guard wanted < low || wanted > offset else {
                // It has grown meanwhile, perhaps under a leader that did not have what was read.
                stage = readable
                resumesAtNs = nowNs + Self.longPauseNs
                return .nothing
            }
            return lose(.outOfRange(Watermarks(low: low, high: offset)))
        case .checking, .reading, .still: break
        }
        return .nothing
    }

    /// Where what was written up to an epoch ends.
    mutating func found(epochEnd: Int64, epoch: Int32, error: Int16, life: UInt32, nowNs: UInt64) -> Outcome {
        guard life == self.life else { return .nothing }
        isAsked = false
        guard stage == .checking else { return .nothing }
        // What cannot be checked is not read: it may be another's.
        guard error == 0 else { return failed(error, nowNs: nowNs) }
        lastError = 0
        if epochEnd < 0 || epoch < 0 { return lose(.truncated(end: nil)) }
        if epochEnd < wanted { return lose(.truncated(end: epochEnd)) }
        stage = .reading
        return .nothing
    }

    /// Its broker does not know the question.
    mutating func cannotCheck() { if stage == .checking { stage = .reading } }

    private mutating func lose(_ reason: LostPlace.Reason) -> Outcome {
        guard stage != .still else { return .nothing }
        let position = hasPlace ? wanted : nil
        stage = .still
        return .lost(reason, position: position)
    }

    /// An answer to a question for records that has none because of an error, or nothing but an error to tell.
    mutating func failed(_ error: Int16, life: UInt32, nowNs: UInt64) -> Outcome {
        guard life == self.life else { return .nothing }
        isAsked = false
        // OFFSET_OUT_OF_RANGE
        guard error == 1 else { return failed(error, nowNs: nowNs) }
        guard stage == .reading else { return .nothing }
        if case .time = start, position == nil {
            // Nothing was taken: the log has moved on since its beginning was asked.
            stage = .seeking(start)
            return .nothing
        }
        stage = .measuring(low: nil)
        // It may be another log, which comes first.
        leader = nil
        return .askLeader
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
        // UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID: gone, another, or not there yet.
        case 3, 100, 103:
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

    // MARK: What is said of the cluster

    /// Who has the partition, since which epoch, and of which log.
    mutating func learned(leader: Int32, epoch: Int32 = -1, log: LogIdentity? = nil, nowNs: UInt64) -> Outcome {
        if let log {
            // Another log's leaders are counted anew.
            if newestLog != log { leaderEpoch = -1 }
            newestLog = log
            if self.log == nil { self.log = log }
            if self.log != log { return isAssigned ? lose(.anotherLog(log)) : .nothing }
        }
        if epoch >= 0, epoch < leaderEpoch {
            // Said by a broker that has not heard yet; or of another log, by brokers that cannot say so.
            let since = goneSinceNs ?? nowNs
            goneSinceNs = since
            let isStale = nowNs &- since >= Self.staleNs
            if log == nil, isStale {
                isEpochOfAnother = true
                return isAssigned ? lose(.anotherLog(nil)) : .nothing
            }
            self.leader = nil
            if isStale, isAssigned {
                // FENCED_LEADER_EPOCH: whoever says that it leads has been deposed, or put back by hand. Said again and again.
                goneSinceNs = nowNs
                return .failed(74)
            }
            resumesAtNs = nowNs + Self.pauseNs
            return .askLeader
        }
        goneSinceNs = nil
        if epoch > leaderEpoch, leaderEpoch >= 0, stage == .reading, self.epoch >= 0 { stage = .checking }
        (self.leader, leaderEpoch) = (leader, epoch)
        return .nothing
    }

    /// Those who should know say that there is no such partition, or that nobody leads it.
    mutating func hasNoLeader(error: Int16, isTopic: Bool = false, nowNs: UInt64) -> Outcome {
        guard isAssigned else { return .nothing }
        if error == 3, isTopic, log != nil {
            let since = goneSinceNs ?? nowNs
            goneSinceNs = since
            if nowNs &- since >= Self.goneNs {
                // Whatever is made under the name is welcome to who goes on without a log in mind.
                newestLog = nil
                return lose(.anotherLog(nil))
            }
        }
        return failed(error, nowNs: nowNs)
    }

    struct Records: Equatable {
        /// What counts of the bytes that came: whole batches.
        var range: Range<Int>
        /// Records before this have been given before.
        var from: Int64
        /// To be told when all of it is taken.
        var end: Int64?
        /// A batch that cannot be used, however often it is asked for, ends here, and is passed over.
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
        // What came of a log that may be another does not count.
        guard stage == .reading else { return nil }
        var records = Records(range: range.lowerBound..<range.lowerBound, from: wanted)
        var position = range.lowerBound
        var isCutOff = false
        loop: while position < range.upperBound {
            switch IncomingBatch.read(bytes, at: position, end: range.upperBound) {
            case .batch(let batch) where isPlausible(batch, isFirst: records.range.isEmpty, end: end):
                position = batch.records.upperBound
                wanted = max(wanted, batch.lastOffset + 1)
                records.range = range.lowerBound..<position
                // No checksum covers a batch's epoch; it never falls, and no leader is newer than the one asked.
                if batch.leaderEpoch <= leaderEpoch || leaderEpoch < 0 { epoch = max(epoch, batch.leaderEpoch) }
            case let reading:
                // What came whole is taken first.
                guard records.range.isEmpty else { break loop }
                let next = IncomingBatch.baseOffset(
                    behind: position, in: bytes, end: range.upperBound, within: wanted + 1..<max(wanted + 1, end))
                // Old brokers send a batch in part that is longer than was asked for; with another behind it, it says a
                // wrong length.
                isCutOff = reading == .cutOff && next == nil
                if isCutOff {
                    cutOff = cutOff.offset == wanted ? (wanted, cutOff.times + 1) : (wanted, 1)
                } else {
                    resumesAtNs = nowNs + Self.longPauseNs
                    guard failsAgain() else { break loop }
                }
                let isAll = range.count < Int(bytesMax) && hadRoom
                if next != nil {
                    records.skipsTo = next
                } else if reading == .old || reading == .nonsense {
                    records.isOld = true
                    stage = .still
                } else if isAll, !isCutOff || cutOff.times >= Self.cutOffTimesMax {
                    // It is the last one that there is.
                    records.skipsTo = max(wanted + 1, end)
                } else {
                    isCutOff = true
                }
                if let next = records.skipsTo { (wanted, resumesAtNs, isCutOff) = (next, 0, false) }
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

    /// No checksum covers where a batch begins: it must fit what was asked for, and what came before.
    private func isPlausible(_ batch: IncomingBatch, isFirst: Bool, end: Int64) -> Bool {
        guard batch.baseOffset < max(end, wanted + 1) else { return false }
        return isFirst ? batch.lastOffset >= wanted : batch.baseOffset >= wanted
    }

    /// The same batch has been unusable often enough for it not to be the connection's fault.
    private mutating func failsAgain() -> Bool {
        corrupt = corrupt.offset == wanted ? (wanted, corrupt.times + 1) : (wanted, 1)
        return corrupt.times >= Self.corruptTimesMax
    }
}
