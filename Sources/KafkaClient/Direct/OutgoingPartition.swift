/// What goes to one partition: the batch under way, and those that wait behind it. A value without I/O: it is told what was
/// answered, and says what may be sent.
///
/// One batch is under way at a time, and what comes meanwhile gathers in the next: a busy partition gets few large
/// batches, a partition that keeps up gets each record at once, and the order of records never rests on the broker's
/// refusal of the second batch when the first was refused.
struct OutgoingPartition {
    struct Limits {
        var batchBytes: Int
        var batchRecords: Int
    }

    /// Nobody waits for its records: they gather until they are sent for.
    var isPatient: Bool { didSet { isReleased = !isPatient } }
    /// The broker that takes its records.
    var leader: Int32?
    /// After a refusal, when to try again.
    var resumesAtNs: UInt64 = 0
    /// It stands in its producer's list of what may have something to send.
    var isDue = false
    private(set) var underWay: OutgoingBatch?
    /// The first may have been sent before; no other has numbers.
    private var waiting: [OutgoingBatch] = []
    /// Who writes here. Epochs are the partition's own: brokers compare them partition by partition.
    private(set) var identity: ProducerIdentity?
    private var nextSequence: Int32
    /// Epochs begun in a row because the broker expected other numbers.
    private(set) var epochsInVain = 0
    /// The last place that was acknowledged.
    private var writtenUpTo: Int64 = -1
    private var isReleased: Bool

    init(isPatient: Bool, firstSequence: Int32 = 0) {
        self.isPatient = isPatient
        isReleased = !isPatient
        nextSequence = firstSequence
    }

    // MARK: Gathering

    /// The batch that takes the next record.
    mutating func batch(for byteCount: Int, _ limits: Limits, nowNs: UInt64) -> OutgoingBatch {
        if let last = waiting.last, !last.wasSent, last.count < limits.batchRecords,
            last.bytes.count + byteCount <= limits.batchBytes
        {
            return last
        }
        let batch = OutgoingBatch(nowNs: nowNs)
        waiting.append(batch)
        return batch
    }

    /// Records wait until they are sent for.
    var waitsForRelease: Bool { !isReleased && waiting.contains { !$0.wasSent } }

    mutating func release() { if !waiting.isEmpty { isReleased = true } }

    func isWorthSending(bytes: Int) -> Bool { !isReleased && (waiting.last?.bytes.count ?? 0) >= bytes }

    // MARK: Sending

    private var hasNext: Bool { underWay == nil && (waiting.first.map { isReleased || $0.wasSent } ?? false) }

    /// Whether a batch may be sent, once its leader can be reached.
    func maySend(nowNs: UInt64) -> Bool { hasNext && nowNs >= resumesAtNs }

    /// Whether all that the next batch waits for is time.
    func waitsForTime(nowNs: UInt64) -> Bool { hasNext && nowNs < resumesAtNs }

    /// Takes the next batch to send. `given` is who writes, unless the partition has got to a later epoch.
    mutating func send(_ given: ProducerIdentity) -> OutgoingBatch {
        let identity = self.identity ?? given
        self.identity = identity
        let batch = waiting.removeFirst()
        if isPatient, waiting.isEmpty { isReleased = false }
        if batch.sequence == nil {
            batch.seal(identity, sequence: nextSequence)
            nextSequence = Int32(truncatingIfNeeded: (Int64(nextSequence) + Int64(batch.count)) & 0x7fff_ffff)
        }
        underWay = batch
        return batch
    }

    // MARK: Answers

    /// What becomes of the batch.
    enum Outcome: Equatable {
        case written
        /// To be sent again.
        case again(asksLeader: Bool)
        case refused(mayBeWritten: Bool)
    }

    /// What becomes of the numbers.
    enum Beginning: Equatable {
        /// The partition has begun a new epoch: whatever of an older one is still on its way will be refused.
        case epoch
        /// The producer must get another id. So it must when another producer has this one's, and when there are no more
        /// epochs.
        case identity
    }

    /// What the answer to the batch under way means.
    mutating func answered(error: Int16, baseOffset: Int64) -> (outcome: Outcome, begins: Beginning?) {
        guard let batch = underWay else { preconditionFailure("an answer about a partition that sent nothing") }
        underWay = nil
        switch ProduceVerdict(error) {
        case .written where baseOffset >= 0 && baseOffset <= writtenUpTo:
            // What this place holds is older than the batch: the broker takes the batch for that of another producer, or
            // the log is another one.
            batch.becomeUncertain()
            return (sendAgain(batch), .identity)
        case .written:
            epochsInVain = 0
            if baseOffset >= 0 { writtenUpTo = baseOffset + Int64(batch.count) - 1 }
            return (.written, nil)
        case .passes(let asksLeader, let mayBeWritten):
            if mayBeWritten { batch.becomeUncertain() }
            return (sendAgain(batch, asksLeader: asksLeader), nil)
        case .disagrees:
            epochsInVain += 1
            return (sendAgain(batch), beginEpoch())
        case .isAnothers: return (sendAgain(batch), .identity)
        case .tooLarge where batch.count > 1:
            // The topic takes no such batches: its records go alone.
            waiting.insert(contentsOf: batch.split(), at: 0)
            return (.again(asksLeader: false), passOver(batch))
        case .tooLarge: return (.refused(mayBeWritten: batch.isUncertain), passOver(batch))
        case .refused(let mayBeWritten):
            if mayBeWritten { batch.becomeUncertain() }
            return (.refused(mayBeWritten: batch.isUncertain), passOver(batch))
        }
    }

    private mutating func sendAgain(_ batch: OutgoingBatch, asksLeader: Bool = false) -> Outcome {
        waiting.insert(batch, at: 0)
        return .again(asksLeader: asksLeader)
    }

    /// What certainly was not written leaves its numbers to the next. What may be written keeps them: given to another
    /// batch, the broker could take that for a repeat of this one, and it would count as written and be lost.
    private mutating func passOver(_ batch: OutgoingBatch) -> Beginning? {
        guard let sequence = batch.sequence else { return nil }
        if batch.isUncertain { return beginEpoch() }
        nextSequence = sequence
        return nil
    }

    private mutating func beginEpoch() -> Beginning {
        nextSequence = 0
        for batch in waiting { batch.forgetSequence() }
        guard let old = identity, old.epoch < .max else { return .identity }
        identity = ProducerIdentity(id: old.id, epoch: old.epoch + 1)
        return .epoch
    }

    /// The connection on which the batch was under way is lost, and with it the answer: it goes again, with the same
    /// numbers, so that the broker knows it again.
    mutating func lost() {
        guard let batch = underWay else { return }
        underWay = nil
        batch.becomeUncertain()
        waiting.insert(batch, at: 0)
    }

    /// Another identity counts from zero. Nothing may be under way.
    mutating func startOver() {
        precondition(underWay == nil, "numbers are given anew while a batch is under way")
        identity = nil
        nextSequence = 0
        resumesAtNs = 0
        writtenUpTo = -1
        for batch in waiting { batch.forgetSequence() }
    }

    // MARK: Giving up

    /// Takes out what was made before a time and is not under way.
    mutating func expire(before ns: UInt64) -> (batches: [OutgoingBatch], begins: Beginning?) {
        let old = Array(waiting.prefix { $0.createdNs < ns })
        waiting.removeFirst(old.count)
        return (old, old.first.flatMap { passOver($0) })
    }

    /// Everything, to be given up.
    mutating func takeAll() -> [OutgoingBatch] {
        lost()
        defer { waiting = [] }
        return waiting
    }
}

/// What an error number in an answer to Produce says.
private enum ProduceVerdict {
    case written
    /// Another time it may go well. `mayBeWritten`: brokers also say so of what they have appended.
    case passes(asksLeader: Bool, mayBeWritten: Bool)
    /// These are not the numbers that the broker expects: it has lost some of what was written, or all of its memory.
    case disagrees
    /// Another producer has this one's id. One batch is under way, and the broker knows the last five, so that no repeat
    /// of our own can be too old for it to say where it is.
    case isAnothers
    case tooLarge
    case refused(mayBeWritten: Bool)

    init(_ code: Int16) {
        switch code {
        case 0: self = .written
        // UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, BROKER_NOT_AVAILABLE,
        // REPLICA_NOT_AVAILABLE, NETWORK_EXCEPTION, KAFKA_STORAGE_ERROR, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH:
        // also when a leader has appended, and is no longer leader before its followers have
        case 3, 5, 6, 8, 9, 13, 56, 74, 75: self = .passes(asksLeader: true, mayBeWritten: true)
        // REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS_AFTER_APPEND
        case 7, 20: self = .passes(asksLeader: false, mayBeWritten: true)
        // CORRUPT_MESSAGE (on the way), COORDINATOR_LOAD_IN_PROGRESS, NOT_ENOUGH_REPLICAS, THROTTLING_QUOTA_EXCEEDED
        case 2, 14, 19, 89: self = .passes(asksLeader: false, mayBeWritten: false)
        // OUT_OF_ORDER_SEQUENCE_NUMBER, UNKNOWN_PRODUCER_ID
        case 45, 59: self = .disagrees
        // DUPLICATE_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED
        case 46, 47, 49, 90: self = .isAnothers
        // MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE
        case 10, 18: self = .tooLarge
        // INVALID_TOPIC, INVALID_REQUIRED_ACKS, TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED,
        // INVALID_TIMESTAMP, UNSUPPORTED_VERSION, INVALID_REQUEST, UNSUPPORTED_FOR_MESSAGE_FORMAT, POLICY_VIOLATION,
        // TRANSACTIONAL_ID_AUTHORIZATION_FAILED, UNSUPPORTED_COMPRESSION_TYPE, INVALID_RECORD: found before appending
        case 17, 21, 29, 31, 32, 35, 42, 43, 44, 53, 76, 87: self = .refused(mayBeWritten: false)
        // UNKNOWN_SERVER_ERROR, and what is not known here
        default: self = .refused(mayBeWritten: true)
        }
    }
}
