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
    /// The first may have been sent before.
    private var waiting: [OutgoingBatch] = []
    private var nextSequence: Int32
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

    /// Takes the next batch to send.
    mutating func send(_ identity: ProducerIdentity) -> OutgoingBatch {
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

    enum Outcome: Equatable {
        /// Written, or known to have been written before.
        case written
        /// To be sent again, as it is.
        case again(asksLeader: Bool)
        /// It will not be written.
        case refused
        /// The broker and this producer no longer agree on the numbers.
        case disagreement
    }

    /// What the answer to the batch under way means.
    mutating func answered(error: Int16) -> Outcome {
        guard let batch = underWay else { return .written }
        underWay = nil
        switch ProduceVerdict(error) {
        case .written: return .written
        case .again(let asksLeader):
            waiting.insert(batch, at: 0)
            return .again(asksLeader: asksLeader)
        case .disagreement:
            waiting.insert(batch, at: 0)
            return .disagreement
        case .tooLarge where batch.count > 1:
            // The topic takes no such batches: its records go alone.
            takeBackNumbers(of: batch)
            waiting.insert(contentsOf: batch.split(), at: 0)
            return .again(asksLeader: false)
        case .tooLarge, .refused:
            takeBackNumbers(of: batch)
            return .refused
        }
    }

    /// What was not written leaves its numbers to the next.
    private mutating func takeBackNumbers(of batch: OutgoingBatch) {
        if let sequence = batch.sequence { nextSequence = sequence }
    }

    /// The connection on which the batch was under way is lost, and with it the answer: it goes again, with the same
    /// numbers, so that the broker knows it again.
    mutating func lost() {
        guard let batch = underWay else { return }
        underWay = nil
        waiting.insert(batch, at: 0)
    }

    /// A new identity counts from zero. Nothing may be under way.
    mutating func startOver() {
        precondition(underWay == nil, "numbers are given anew while a batch is under way")
        nextSequence = 0
        resumesAtNs = 0
        for batch in waiting { batch.forgetSequence() }
    }

    // MARK: Giving up

    /// Takes out what was made before a time and is not under way. `leavesGap`: what follows has numbers that the broker
    /// will not take.
    mutating func expire(before ns: UInt64) -> (batches: [OutgoingBatch], leavesGap: Bool) {
        let old = Array(waiting.prefix { $0.createdNs < ns })
        waiting.removeFirst(old.count)
        return (old, old.contains { $0.sequence != nil })
    }

    /// Everything, to be given up.
    mutating func takeAll() -> [OutgoingBatch] {
        defer { (underWay, waiting) = (nil, []) }
        return (underWay.map { [$0] } ?? []) + waiting
    }
}

/// What an error number in an answer to Produce asks for.
private enum ProduceVerdict {
    case written
    case again(asksLeader: Bool)
    case disagreement
    case tooLarge
    case refused

    init(_ code: Int16) {
        switch code {
        // NONE, DUPLICATE_SEQUENCE_NUMBER: a repeat of what is written.
        case 0, 46: self = .written
        // UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, BROKER_NOT_AVAILABLE,
        // REPLICA_NOT_AVAILABLE, NETWORK_EXCEPTION, KAFKA_STORAGE_ERROR, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH
        case 3, 5, 6, 8, 9, 13, 56, 74, 75: self = .again(asksLeader: true)
        // CORRUPT_MESSAGE (on the way), REQUEST_TIMED_OUT, COORDINATOR_LOAD_IN_PROGRESS, NOT_ENOUGH_REPLICAS,
        // NOT_ENOUGH_REPLICAS_AFTER_APPEND, THROTTLING_QUOTA_EXCEEDED
        case 2, 7, 14, 19, 20, 89: self = .again(asksLeader: false)
        // OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING, UNKNOWN_PRODUCER_ID,
        // PRODUCER_FENCED
        case 45, 47, 49, 59, 90: self = .disagreement
        // MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE
        case 10, 18: self = .tooLarge
        default: self = .refused
        }
    }
}
