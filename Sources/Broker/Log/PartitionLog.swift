internal import System
import Wire

/// The log of one partition: its segments, how far it is committed, and which producers wrote what. Used on the loop's
/// thread only.
///
/// Three offsets matter. Records from `startOffset` on exist; `endOffset` is what the next record gets; everything
/// below `committed` is on the disk for good. Consumers see what is committed and nothing else, so no consumer ever holds
/// a record that a crash could take back and replace by another with the same offset.
final class PartitionLog {
    let topic: UInt32
    let partition: Int32
    private let directory: String
    private let files: OpenFiles
    var config: TopicConfig

    private(set) var segments: [Segment] = []
    private(set) var startOffset: Int64 = 0
    private(set) var committed = LogPosition(offset: 0, segment: 0, position: 0)
    var producers = ProducerTable()
    /// In which batches are taken now; those before are in `epochs`.
    let leaderEpoch: Int32
    private(set) var epochs = LeaderEpochs()
    /// The newest timestamp in the log; LogAppendTime never runs behind it.
    private(set) var maxTimestamp: Int64 = -1
    /// Where readers have got to: a consumer that reads on finds its place without a search.
    private var hints: [LogPosition] = []
    private var nextHint = 0
    /// Fetches that wait for this partition to grow.
    var waiters: [FetchWaiter] = []
    /// Whether the segment that is written has been noted for the next checkpoint.
    var isNotedDirty = false
    /// Whether it has grown since the group that gathers now was begun.
    var isInGatheringGroup = false
    /// Start-up: up to here the checkpoint or the journal make the log durable, whether its files are synchronized or not.
    var vouchedOffset: Int64 = 0
    /// Where compaction has got to.
    var cleanedOffset: Int64 = 0
    /// Tombstones below this offset have outlived the values that they delete since then.
    var tombstones: (below: Int64, sinceMs: Int64)?
    var isCompacting = false

    init(
        topic: UInt32, partition: Int32, leaderEpoch: Int32, directory: String, files: OpenFiles, config: TopicConfig
    ) {
        self.topic = topic
        self.leaderEpoch = leaderEpoch
        self.partition = partition
        self.directory = directory
        self.files = files
        self.config = config
    }

    var endOffset: Int64 { segments.last?.nextOffset ?? startOffset }
    var highWatermark: Int64 { max(committed.offset, startOffset) }
    var end: LogPosition {
        guard let active = segments.last else {
            return LogPosition(offset: startOffset, segment: startOffset, position: 0)
        }
        return LogPosition(offset: active.nextOffset, segment: active.baseOffset, position: active.size)
    }
    var sizeBytes: Int { segments.reduce(0) { $0 + $1.size } }

    // MARK: Appending

    /// Writes one placed batch (its base offset is `endOffset`, or beyond it in a replayed log with a gap) behind the
    /// others. It is in the kernel's hands then, not on the disk. A failure leaves the log as it was.
    func append(_ bytes: Span<UInt8>, _ batch: RecordBatch, nowMs: Int64) throws(BrokerError) {
        let active = try segmentToAppend(bytes.count, at: batch.baseOffset, nowMs: nowMs)
        let file = try files.file(of: active, create: true)
        do throws(SystemError) {
            try file.file.write(bytes, at: Int64(active.size))
        } catch {
            throw BrokerError(.storage, "cannot append to \(active.logPath)", cause: error)
        }
        active.index?.note(
            offset: batch.baseOffset, position: active.size, maxTimestampBefore: active.maxTimestamp)
        active.size += bytes.count
        active.nextOffset = batch.nextOffset
        active.maxTimestamp = max(active.maxTimestamp, batch.maxTimestamp)
        if active.firstAppendMs == nil { active.firstAppendMs = nowMs }
        maxTimestamp = max(maxTimestamp, batch.maxTimestamp)
        producers.record(batch, nowMs: nowMs)
        note(batch)
    }

    /// No checksum covers a batch's epoch: a damaged one must not end the epochs behind it.
    private func note(_ batch: RecordBatch) {
        if batch.leaderEpoch <= leaderEpoch { epochs.note(batch.leaderEpoch, at: batch.baseOffset) }
    }

    /// What a request says of the leader that it is meant for; -1 says nothing.
    func check(leaderEpoch current: Int32) -> ErrorCode {
        current < 0 || current == leaderEpoch
            ? .none : current < leaderEpoch ? .fencedLeaderEpoch : .unknownLeaderEpoch
    }

    /// Where what was written up to an epoch ends, as far as consumers see it; nil of an epoch that is still to come.
    func end(ofEpoch epoch: Int32) -> (epoch: Int32, offset: Int64)? {
        epoch >= 0 && epoch <= leaderEpoch ? epochs.end(of: epoch, logEnd: highWatermark) : nil
    }

    private func segmentToAppend(_ count: Int, at offset: Int64, nowMs: Int64) throws(BrokerError) -> Segment {
        guard let active = segments.last else { return addSegment(at: offset) }
        let isOld = active.firstAppendMs.map { nowMs - $0 >= config.segmentMs } ?? false
        let isFull =
            active.size + count > config.segmentBytes || offset - active.baseOffset > Int64(UInt32.max) - 0x8000_0000
        guard active.size > 0, isFull || isOld else { return active }
        return try roll(at: offset)
    }

    private func addSegment(at offset: Int64) -> Segment {
        let segment = Segment(directory: directory, partition: partition, baseOffset: offset)
        segment.index = SparseIndex(baseOffset: offset)
        segments.append(segment)
        return segment
    }

    /// Closes the active segment and starts another.
    @discardableResult
    func roll(at offset: Int64? = nil) throws(BrokerError) -> Segment {
        let offset = offset ?? endOffset
        try segments.last?.close()
        isNotedDirty = false
        let segment = addSegment(at: offset)
        // The file exists from now on, so the log's end is known even when all before it is deleted.
        _ = try files.file(of: segment, create: true)
        return segment
    }

    /// Closes an active segment that is old enough, also when nothing more arrives: only closed ones are deleted or compacted.
    func rollIfOld(nowMs: Int64) throws(BrokerError) {
        guard let active = segments.last, active.size > 0, let since = active.firstAppendMs else { return }
        let limit = config.isCompacted ? min(config.segmentMs, config.maxCompactionLagMs) : config.segmentMs
        if nowMs - since >= limit { try roll() }
    }

    /// Everything up to `position` is on the disk.
    func commit(_ position: LogPosition) {
        if position.offset > committed.offset { committed = position }
    }

    /// Takes back what was appended and could not be made durable.
    func truncateToCommitted() throws(BrokerError) {
        while let active = segments.last, active.baseOffset > committed.segment, segments.count > 1 {
            try delete(active)
            segments.removeLast()
        }
        guard let active = segments.last else { return }
        let position = active.baseOffset == committed.segment ? committed.position : 0
        let offset = active.baseOffset == committed.segment ? committed.offset : active.baseOffset
        let file = try files.file(of: active, create: true)
        try storing(active.logPath) { () throws(SystemError) in try file.file.truncate(to: Int64(position)) }
        active.size = position
        active.nextOffset = offset
        if active.index == nil { active.index = SparseIndex(baseOffset: active.baseOffset) }
        active.index?.truncate(to: position)
        producers.truncate(to: offset)
        epochs.truncate(to: offset)
    }

    // MARK: Reading

    /// What a reader was given: whole batches, and whether there are more behind them.
    struct Reading {
        var bytes = 0
        var isCutShort = false
    }

    /// Appends whole committed batches from `offset` on, `maxBytes` of them at most but always one if `atLeastOne`.
    /// Nothing at the log's end.
    func read(
        from offset: Int64, maxBytes: Int, atLeastOne: Bool, into output: inout [UInt8]
    ) throws(BrokerError) -> Reading {
        guard let place = try locate(offset) else { return Reading() }
        let (segment, position) = place
        let limit = committedSize(of: segment)
        guard position < limit else { return Reading() }
        let file = try files.file(of: segment)
        var count = min(maxBytes, limit - position)
        if count < RecordBatch.headerSize {
            guard atLeastOne else { return Reading(isCutShort: true) }
            count = min(RecordBatch.headerSize, limit - position)
        }
        let start = output.count
        try append(count, of: file, segment, at: position, to: &output)
        var whole = 0
        var next = offset
        while start + whole < output.count {
            let present = output.count - start - whole
            guard let batch = try? RecordBatch(header: output.span.extracting(start + whole..<output.count)) else {
                break
            }
            if batch.size <= present {
                whole += batch.size
                next = batch.nextOffset
            } else {
                guard whole == 0, atLeastOne, position + batch.size <= limit else { break }
                try append(batch.size - present, of: file, segment, at: position + present, to: &output)
            }
        }
        output.removeLast(output.count - start - whole)
        if whole > 0 { remember(LogPosition(offset: next, segment: segment.baseOffset, position: position + whole)) }
        return Reading(bytes: whole, isCutShort: next < committed.offset)
    }

    private func append(
        _ count: Int, of file: SharedFile, _ segment: Segment, at position: Int, to output: inout [UInt8]
    ) throws(BrokerError) {
        do throws(SystemError) {
            let read = try file.file.read(at: Int64(position), count: count, appendingTo: &output)
            guard read == count else {
                throw SystemError(.corrupt, "read", on: segment.logPath, message: "it is shorter than its batches")
            }
        } catch {
            throw BrokerError(.storage, "cannot read \(segment.logPath)", cause: error)
        }
    }

    private func committedSize(of segment: Segment) -> Int {
        if segment.baseOffset < committed.segment { return segment.size }
        return segment.baseOffset == committed.segment ? min(committed.position, segment.size) : 0
    }

    private func remember(_ position: LogPosition) {
        if hints.count < 4 {
            hints.append(position)
        } else {
            hints[nextHint & 3] = position
            nextHint += 1
        }
    }

    func forgetHints() { hints = [] }

    /// The place of the batch that holds `offset`, or of the next one where compaction has left a gap. `nil` at the
    /// committed end.
    private func locate(_ offset: Int64) throws(BrokerError) -> (Segment, Int)? {
        guard offset < committed.offset, var index = segmentIndex(of: offset) else { return nil }
        if let hint = hints.first(where: { $0.offset == offset }), hint.segment == segments[index].baseOffset,
            hint.position < committedSize(of: segments[index])
        {
            return (segments[index], hint.position)
        }
        while index < segments.count {
            let segment = segments[index]
            let limit = committedSize(of: segment)
            let position = try search(segment, .offset(offset), limit) { batch, scanner in
                batch.lastOffset >= offset ? scanner.batchStart : nil
            }
            if let position { return (segment, position) }
            index += 1
        }
        return nil
    }

    private func segmentIndex(of offset: Int64) -> Int? {
        let count = SparseIndex.partition(segments.count) { segments[$0].baseOffset <= offset }
        return segments.isEmpty ? nil : max(0, count - 1)
    }

    /// Looks at one batch after the other, from the last place that the index knows to lie before `key`, until one yields
    /// something.
    private func search<Found>(
        _ segment: Segment, _ key: Segment.SearchKey, _ limit: Int,
        _ look: (RecordBatch, inout BatchScanner) throws(BrokerError) -> Found?
    ) throws(BrokerError) -> Found? {
        guard limit > 0 else { return nil }
        let floor = segment.floor(key)
        let file = try files.file(of: segment)
        var scanner = BatchScanner(file, path: segment.logPath, from: floor.position, limit: limit)
        var isFirst = true
        while let batch = try scanner.next() {
            // The index is a hint. If it points at anything but the batch it names, scan from the start.
            if isFirst, floor.position > 0, batch.baseOffset != floor.offset {
                scanner = BatchScanner(file, path: segment.logPath, from: 0, limit: limit)
                isFirst = false
                continue
            }
            isFirst = false
            if let found = try look(batch, &scanner) { return found }
        }
        if isFirst, floor.position > 0 {
            scanner = BatchScanner(file, path: segment.logPath, from: 0, limit: limit)
            while let batch = try scanner.next() {
                if let found = try look(batch, &scanner) { return found }
            }
        }
        return nil
    }

    /// Looks at the committed batches that may hold a record of `timestamp` or later, in order and with their bytes, until
    /// one yields something. A batch's largest timestamp is no promise: compaction or DeleteRecords may have taken
    /// the record that had it.
    func search<Found>(
        notBefore timestamp: Int64, _ look: (RecordBatch, [UInt8]) -> Found?
    ) throws(BrokerError) -> Found? {
        for segment in segments where segment.nextOffset > startOffset {
            let limit = committedSize(of: segment)
            if segment.index == nil, try maxTimestamp(of: segment) < timestamp { continue }
            let found = try search(segment, .timestamp(timestamp), limit) { (batch, scanner) throws(BrokerError) in
                guard batch.maxTimestamp >= timestamp, batch.lastOffset >= startOffset else { return Found?.none }
                return look(batch, try scanner.bytes(of: batch))
            }
            if let found { return found }
        }
        return nil
    }

    /// The largest timestamp of a segment. That of a closed one is in its index file; where that is missing or torn (a power
    /// loss, a compaction cut short), the segment is read once and the file made again: retention must not take a
    /// segment for old because it does not know.
    func maxTimestamp(of segment: Segment) throws(BrokerError) -> Int64 {
        if segment.index != nil || segment.size == 0 { return segment.maxTimestamp }
        if let known = segment.loadMaxTimestamp() { return known }
        let file = try files.file(of: segment)
        var scanner = BatchScanner(file, path: segment.logPath, from: 0, limit: segment.size, chunkBytes: 1 << 20)
        var index = SparseIndex(baseOffset: segment.baseOffset)
        var newest: Int64 = -1
        while let batch = try scanner.next() {
            index.note(offset: batch.baseOffset, position: scanner.batchStart, maxTimestampBefore: newest)
            newest = max(newest, batch.maxTimestamp)
        }
        if let damage = scanner.damage { throw BrokerError(.corrupt, "\(segment.logPath): \(damage)") }
        segment.maxTimestamp = newest
        segment.index = index
        try segment.close()
        return newest
    }

    // MARK: Deleting

    /// Moves the log's start; what is wholly before it is deleted. The start may not pass what is committed.
    func moveStart(to offset: Int64) throws(BrokerError) {
        guard offset > startOffset else { return }
        startOffset = min(offset, highWatermark)
        if let active = segments.last, startOffset >= active.nextOffset, active.size > 0 { try roll() }
        while segments.count > 1, segments[1].baseOffset <= startOffset {
            try delete(segments.removeFirst())
        }
    }

    /// Deletes the segments that the topic's retention no longer covers. How many.
    func enforceRetention(nowMs: Int64) throws(BrokerError) -> Int {
        guard config.isDeleted else { return 0 }
        let before = segments.count
        var excess = config.retentionBytes < 0 ? nil : sizeBytes - Int(config.retentionBytes)
        while let first = segments.first, first.size > 0 || segments.count > 1 {
            let end = first.nextOffset
            if first.size == 0 {
                // Compaction left nothing of it.
                try delete(segments.removeFirst())
                continue
            }
            guard end <= committed.offset else { break }
            let ageMs = config.retentionMs < 0 ? 0 : nowMs - (try newestTime(in: first))
            let isExpired = config.retentionMs >= 0 && ageMs > config.retentionMs
            // A log keeps at least the asked-for bytes: a segment goes only when the rest is still enough.
            guard isExpired || excess.map({ $0 >= first.size }) ?? false else { break }
            excess = excess.map { $0 - first.size }
            if segments.count == 1 { try roll() }
            startOffset = max(startOffset, end)
            try delete(segments.removeFirst())
        }
        return before - segments.count
    }

    /// The newest time in a segment; of records that say none, when the last of them came.
    private func newestTime(in segment: Segment) throws(BrokerError) -> Int64 {
        let newest = try maxTimestamp(of: segment)
        if newest >= 0 { return newest }
        return try storing(segment.logPath) { () throws(SystemError) in try File(segment.logPath).modifiedMs }
    }

    private func delete(_ segment: Segment) throws(BrokerError) {
        files.close(segment)
        try? File.remove(segment.indexPath)
        do throws(SystemError) {
            try File.remove(segment.logPath)
        } catch  where error.code != .notFound {
            throw BrokerError(.storage, "cannot delete \(segment.logPath)", cause: error)
        } catch {}
    }

    /// Puts a compacted segment in the place of those it was made from.
    ///
    /// A crash at any point leaves either the old segments or the new one: the new one is renamed to a *swap* file, whose
    /// name says which offsets it replaces, before any old one is deleted; start-up finishes what it finds begun.
    func replace(_ range: Range<Int>, with product: Compaction.Product) throws(BrokerError) {
        let segment = Segment(directory: directory, partition: partition, baseOffset: product.baseOffset)
        let swap = segment.swapPath(upTo: product.nextOffset)
        let directory = directory
        try storing(swap) { () throws(SystemError) in
            try File.rename(product.path, to: swap)
            try Directory.synchronize(directory)
        }
        for old in segments[range] { try delete(old) }
        try storing(segment.logPath) { () throws(SystemError) in
            try File.rename(swap, to: segment.logPath)
            try File(segment.indexPath, .write, create: .truncate).write(product.index, at: 0)
        }
        segment.size = product.size
        segment.nextOffset = product.nextOffset
        segment.maxTimestamp = product.maxTimestamp
        segments.replaceSubrange(range, with: [segment])
        hints = []
    }

    func deleteAll() throws(BrokerError) {
        for segment in segments { try delete(segment) }
        segments = []
    }

    func closeFiles() {
        for segment in segments { files.close(segment) }
    }

    // MARK: Start-up

    /// What a checkpoint knows about the log.
    struct Recovered {
        var startOffset: Int64 = 0
        /// Everything before this place was verified and synchronized.
        var verified: LogPosition?
        var segmentMaxTimestamp: Int64 = -1
        var cleanedOffset: Int64 = 0
        var tombstones: (below: Int64, sinceMs: Int64)?
        var producers = ProducerTable()
        var epochs = LeaderEpochs()
    }

    /// What a checkpoint taken now says about the log: what is committed, never what may yet be taken back.
    var checkpointed: Recovered {
        let segment = segments.first { $0.baseOffset == committed.segment }
        var committedEpochs = epochs
        committedEpochs.truncate(to: committed.offset)
        return Recovered(
            startOffset: startOffset, verified: committed, segmentMaxTimestamp: segment?.maxTimestamp ?? -1,
            cleanedOffset: cleanedOffset, tombstones: tombstones, producers: producers,
            epochs: committedEpochs)
    }

    /// Restores a log that has no files.
    func restoreEmpty(_ known: Recovered) {
        startOffset = max(known.startOffset, known.verified?.offset ?? 0)
        epochs = known.epochs
        committed = end
    }

    /// What start-up found and did.
    struct RecoveryReport: Equatable {
        var scannedBytes = 0
        var truncatedBytes = 0
        var reason: String?
    }

    /// Restores the log from its files: trusts what the checkpoint vouches for, checks every batch behind that, and cuts
    /// the log off at the first bad one.
    func recover(
        _ found: [(baseOffset: Int64, size: Int)], _ known: Recovered, nowMs: Int64
    ) throws(BrokerError) -> RecoveryReport {
        var report = RecoveryReport()
        startOffset = known.startOffset
        producers = known.producers
        epochs = known.epochs
        cleanedOffset = known.cleanedOffset
        tombstones = known.tombstones
        let vouched = known.verified.flatMap { verified in
            // The place must exist; else the files are older than the checkpoint, and everything is checked.
            found.contains { $0.baseOffset == verified.segment && $0.size >= verified.position } ? verified : nil
        }
        if vouched == nil { (producers, epochs) = (ProducerTable(), LeaderEpochs()) }
        vouchedOffset = vouched?.offset ?? found.first?.baseOffset ?? 0
        for (index, file) in found.enumerated() {
            let segment = Segment(directory: directory, partition: partition, baseOffset: file.baseOffset)
            segments.append(segment)
            let isLast = index == found.count - 1
            if let vouched, file.baseOffset < vouched.segment {
                segment.size = file.size
                segment.nextOffset = found[index + 1].baseOffset
                continue
            }
            var start = 0
            if let vouched, file.baseOffset == vouched.segment {
                start = vouched.position
                segment.nextOffset = vouched.offset
                segment.maxTimestamp = known.segmentMaxTimestamp
            }
            segment.size = start
            segment.firstAppendMs = start > 0 || file.size > 0 ? nowMs : nil
            segment.index = SparseIndex(
                baseOffset: file.baseOffset, file: (try? File.contents(of: segment.indexPath)) ?? [], size: start)
            if file.size > start {
                report.scannedBytes += file.size - start
                if let reason = try verify(segment, fileSize: file.size, nowMs: nowMs) {
                    report.reason = reason
                    report.truncatedBytes = file.size - segment.size + found[(index + 1)...].reduce(0) { $0 + $1.size }
                    for later in found[(index + 1)...] {
                        try delete(Segment(directory: directory, partition: partition, baseOffset: later.baseOffset))
                    }
                    break
                }
            }
            if !isLast { try segment.close() }
        }
        if let first = segments.first { startOffset = max(startOffset, first.baseOffset) }
        if let active = segments.last {
            startOffset = min(startOffset, active.nextOffset)
            maxTimestamp = active.maxTimestamp
            if maxTimestamp < 0, segments.count > 1 {
                maxTimestamp = try maxTimestamp(of: segments[segments.count - 2])
            }
        }
        committed = end
        return report
    }

    /// Checks the batches behind `segment.size`; why it stopped before the file's end, if it did.
    private func verify(_ segment: Segment, fileSize: Int, nowMs: Int64) throws(BrokerError) -> String? {
        let file = try files.file(of: segment)
        var scanner = BatchScanner(
            file, path: segment.logPath, from: segment.size, limit: fileSize, chunkBytes: 1 << 20)
        var reason: String?
        while let batch = try scanner.nextVerified() {
            guard batch.baseOffset >= segment.nextOffset else {
                reason = "offset \(batch.baseOffset) where \(segment.nextOffset) was next"
                break
            }
            segment.index?.note(
                offset: batch.baseOffset, position: scanner.batchStart, maxTimestampBefore: segment.maxTimestamp)
            segment.size = scanner.position
            segment.nextOffset = batch.nextOffset
            segment.maxTimestamp = max(segment.maxTimestamp, batch.maxTimestamp)
            producers.record(batch, nowMs: nowMs)
            note(batch)
        }
        if let damage = scanner.damage { reason = "\(damage)" }
        guard reason != nil else { return nil }
        try storing(segment.logPath) { () throws(SystemError) in try file.file.truncate(to: Int64(segment.size)) }
        return reason
    }
}

/// An offset and the place of its batch: the segment, by its base offset, and the byte.
struct LogPosition: Equatable, Sendable {
    var offset: Int64
    var segment: Int64
    var position: Int
}
