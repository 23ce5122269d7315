internal import System

/// Records of one partition that have come and wait to be taken, in order: batches are opened one after the other, and
/// what only concerns transactions is left out, with what was written in those that were given up.
struct IncomingRecords {
    /// One record and the bytes that its parts lie in.
    struct Found {
        var offset: Int64
        var timestampMs: Int64
        var hasLogAppendTime: Bool
        var leaderEpoch: Int32
        var record: IncomingRecord
    }

    enum Step {
        case record(Found)
        /// What calls itself a batch holds something else; the rest of it, these offsets, is left out.
        case broken(Range<Int64>)
        case end
    }

    /// Where the current record's parts lie, and from where they are counted. It may be another with each batch.
    private(set) var content: AnswerBytes
    private(set) var contentStart = 0
    /// All up to here has been taken, or was nothing for anybody.
    private(set) var lastOffset: Int64
    private let answer: AnswerBytes
    private let range: Range<Int>
    private let from: Int64
    /// By their first offsets, of which those before `nextAborted` have begun.
    private let aborted: [AbortedTransaction]
    private var nextAborted = 0
    private var abortedProducers: Set<Int64> = []
    /// Where the next batch begins.
    private var position: Int
    private var batch: IncomingBatch?
    private var contentCount = 0
    private var contentPosition = 0
    private var recordsLeft = 0

    /// A few bytes may announce gigabytes.
    private static let contentBytesMax = 256 << 20

    /// `range`: whole batches, as `IncomingPartition` has found them. Records before `from` are left out.
    init(_ answer: AnswerBytes, _ range: Range<Int>, from: Int64, aborted: [AbortedTransaction]) {
        self.answer = answer
        content = answer
        self.range = range
        self.from = from
        self.aborted = aborted.sorted { $0.firstOffset < $1.firstOffset }
        position = range.lowerBound
        lastOffset = from - 1
    }

    var byteCount: Int { range.count }

    mutating func next() -> Step {
        while true {
            while recordsLeft > 0, let batch {
                recordsLeft -= 1
                let content = self.content
                let records = content.span.extracting(contentStart..<contentStart + contentCount)
                var position = contentPosition
                guard let record = IncomingRecord.read(records, at: &position),
                    record.offsetDelta >= 0, record.offsetDelta <= batch.lastOffset - batch.baseOffset
                else {
                    return broken(batch)
                }
                contentPosition = position
                let offset = batch.baseOffset + record.offsetDelta
                // Before what is wanted; or not after what has been: a record is given once, whatever a batch says.
                guard offset > lastOffset else { continue }
                lastOffset = offset
                return .record(
                    Found(
                        offset: offset,
                        timestampMs: batch.hasLogAppendTime
                            ? batch.maxTimestamp : batch.baseTimestamp &+ record.timestampDelta,
                        hasLogAppendTime: batch.hasLogAppendTime, leaderEpoch: batch.leaderEpoch, record: record))
            }
            finishBatch()
            guard position < range.upperBound,
                case .batch(let next) = IncomingBatch.read(
                    answer.span, at: position, end: range.upperBound, comparesChecksum: false)
            else { return .end }
            position = next.records.upperBound
            guard open(next) else { return broken(next) }
        }
    }

    private mutating func broken(_ batch: IncomingBatch) -> Step {
        let first = max(lastOffset + 1, batch.baseOffset)
        finishBatch()
        return .broken(first..<max(first, lastOffset + 1))
    }

    private mutating func finishBatch() {
        if let batch { lastOffset = max(lastOffset, batch.lastOffset) }
        batch = nil
        recordsLeft = 0
    }

    /// False when it cannot be opened.
    private mutating func open(_ next: IncomingBatch) -> Bool {
        batch = next
        guard next.lastOffset > lastOffset else { return true }
        while nextAborted < aborted.count, aborted[nextAborted].firstOffset <= next.lastOffset {
            abortedProducers.insert(aborted[nextAborted].producerID)
            nextAborted += 1
        }
        if next.isControl {
            if isAbort(next) { abortedProducers.remove(next.producerID) }
            return true
        }
        if next.isTransactional, abortedProducers.contains(next.producerID) { return true }
        if next.codec == 0 {
            content = answer
            (contentStart, contentCount) = (next.records.lowerBound, next.records.count)
        } else {
            guard let codec = Codec(rawValue: next.codec),
                let plain = try? codec.decompress(
                    answer.span.extracting(next.records), maxBytes: Self.contentBytesMax)
            else { return false }
            content = AnswerBytes(copying: plain.span)
            (contentStart, contentCount) = (0, plain.count)
        }
        contentPosition = 0
        recordsLeft = next.recordCount
        return true
    }

    /// Whether a control batch ends a transaction that was given up: its key is a version and a type, of which 0 is that.
    private func isAbort(_ batch: IncomingBatch) -> Bool {
        let bytes = answer.span.extracting(batch.records)
        var position = 0
        guard let key = IncomingRecord.read(bytes, at: &position)?.key, key.count >= 4 else { return false }
        return bytes[key.lowerBound + 2] == 0 && bytes[key.lowerBound + 3] == 0
    }
}
