internal import Runtime
internal import Synchronization
internal import System
import Wire

/// Makes what is appended durable, in groups: while one group is brought to disk, the next one gathers. Whatever arrived in
/// the meantime, from any connection and for any partition, shares one synchronization. Used on the loop's thread only.
///
/// A disk that answers within a fraction of a millisecond is waited for right here, at the end of the tick: two threads
/// that wake each other cost more than the wait (docs/decisions/006). With a slower one, or a large group, the
/// journal thread waits, and the loop goes on serving. So it does with `interval`, where no client waits for the disk.
final class CommitQueue {
    private struct Group {
        var entries: [UInt8] = []
        var logs: [PartitionLog] = []
        var completions: [(BrokerError?) -> Void] = []
        var entryCount = 0

        var isEmpty: Bool { logs.isEmpty && completions.isEmpty && entries.isEmpty }
    }

    private let loop: EventLoop
    private let fsync: BrokerConfiguration.Fsync
    private let metrics: BrokerMetrics
    private let journal: LoopThread
    private let writer: SharedJournal
    /// How long a small group has taken lately.
    private var usualNs: UInt64 = .max
    private var journalRoom = 0
    /// The journal generation that is written now.
    private(set) var generation: UInt64
    private var gathering = Group()
    private var spare: [UInt8] = []
    private var inFlight: (positions: [(PartitionLog, LogPosition)], completions: [(BrokerError?) -> Void])?
    private var isFlushScheduled = false
    private var isIntervalScheduled = false
    /// With `interval`: the time came while another group was on its way.
    private var isSendDue = false

    /// Called when a partition has grown for its readers.
    var onCommit: (PartitionLog) -> Void = { _ in }
    /// Called when the journal went on in another file and the generation named should be checkpointed. Nothing is in
    /// flight then.
    var onRotation: (UInt64) -> Void = { _ in }
    var onFailure: (BrokerError) -> Void = { _ in }
    /// Called when a log's file is written for the first time since the last checkpoint.
    var onDirty: (PartitionLog) -> Void = { _ in }

    /// More than this waiting to be written holds the producers back.
    private static let backlogBytes = 32 << 20
    /// What is waited for on the loop's thread.
    private static let waitNsMax: UInt64 = 400_000
    private static let waitBytesMax = 256 << 10

    init(
        loop: EventLoop, fsync: BrokerConfiguration.Fsync, directory: String, fileBytes: Int, generation: UInt64,
        reusing: [String], metrics: BrokerMetrics
    ) throws(BrokerError) {
        self.loop = loop
        self.fsync = fsync
        self.metrics = metrics
        self.generation = generation
        writer = SharedJournal(
            try JournalWriter(
                directory: directory, fileBytes: fileBytes, synchronizes: fsync != .never, generation: generation,
                reusing: reusing))
        do {
            journal = try LoopThread.start(name: "journal") { _ in }
        } catch {
            throw BrokerError(.storage, "cannot start the journal", cause: error)
        }
    }

    /// What waits for the group under way to be brought to disk.
    var waitingBytes: Int { gathering.entries.count }
    var isBacklogged: Bool { waitingBytes > Self.backlogBytes }
    var isIdle: Bool { inFlight == nil && gathering.isEmpty }

    // MARK: Appending

    /// Places a batch at the end of a log, in the group that gathers. What is returned is durable when `whenDurable` says
    /// so.
    func append(
        _ batch: Span<UInt8>, _ header: RecordBatch, to log: PartitionLog, appendTimeMs: Int64? = nil
    ) throws(BrokerError) -> RecordBatch {
        let entryStart = gathering.entries.count
        Journal.appendHeader(
            .batch, topic: log.topic, partition: log.partition, length: batch.count, to: &gathering.entries)
        let start = gathering.entries.count
        gathering.entries.append(batch)
        var placed = header
        placed.baseOffset = log.endOffset
        placed.leaderEpoch = log.leaderEpoch
        RecordBatch.place(
            &gathering.entries, at: start, baseOffset: placed.baseOffset, leaderEpoch: placed.leaderEpoch)
        if let appendTimeMs {
            placed.maxTimestamp = max(appendTimeMs, log.maxTimestamp)
            RecordBatch.stampAppendTime(
                &gathering.entries, at: start, size: batch.count, timestamp: placed.maxTimestamp)
        }
        do throws(BrokerError) {
            try log.append(
                gathering.entries.span.extracting(start..<gathering.entries.count), placed, nowMs: loop.nowMs)
        } catch {
            gathering.entries.removeLast(gathering.entries.count - entryStart)
            throw error
        }
        gathering.entryCount += 1
        metrics.producedBytes.add(batch.count)
        touch(log)
        return placed
    }

    /// Journals that a log's start moves.
    func moveStart(of log: PartitionLog, to offset: Int64) {
        Journal.appendHeader(.start, topic: log.topic, partition: log.partition, length: 8, to: &gathering.entries)
        gathering.entries.appendBigEndian(offset)
        gathering.entryCount += 1
        touch(log)
    }

    /// Calls `body` when everything appended so far is on the disk, or has failed to get there.
    func whenDurable(_ body: @escaping (BrokerError?) -> Void) {
        gathering.completions.append(body)
        scheduleFlush()
    }

    private func touch(_ log: PartitionLog) {
        if !log.isInGatheringGroup {
            log.isInGatheringGroup = true
            gathering.logs.append(log)
        }
        if !log.isNotedDirty {
            log.isNotedDirty = true
            onDirty(log)
        }
        scheduleFlush()
    }

    private func scheduleFlush() {
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        loop.atTickEnd { [weak self] in
            self?.isFlushScheduled = false
            self?.flush()
        }
    }

    // MARK: Committing

    private func flush() {
        switch fsync {
        case .always, .group: send()
        case .never, .interval: acknowledge()
        }
    }

    /// Does not wait for the disk: readers see what the kernel has.
    private func acknowledge() {
        acknowledgeGathered()
        guard case .interval(let ms) = fsync else { return send() }
        // At more than the backlog's size an interval, the disk is brought up to date more often.
        if isBacklogged { send() }
        guard !isIntervalScheduled, !gathering.isEmpty else { return }
        isIntervalScheduled = true
        loop.schedule(afterMs: ms) { [weak self] in
            self?.isIntervalScheduled = false
            self?.acknowledgeAndSend()
        }
    }

    private func acknowledgeGathered() {
        let completions = gathering.completions
        gathering.completions = []
        for log in gathering.logs {
            log.commit(log.end)
            onCommit(log)
        }
        for completion in completions { completion(nil) }
    }

    /// Between a request and the end of its tick: what goes to the disk now is not to be waited for.
    private func acknowledgeAndSend() {
        acknowledgeGathered()
        send()
    }

    /// Whether the loop may wait for the disk itself.
    private var mayWait: Bool {
        if case .interval = fsync { false } else { true }
    }

    private func send() {
        guard inFlight == nil else {
            isSendDue = true
            return
        }
        isSendDue = false
        guard !gathering.isEmpty else { return }
        var group = Group()
        swap(&group, &gathering)
        swap(&gathering.entries, &spare)
        var positions: [(PartitionLog, LogPosition)] = []
        positions.reserveCapacity(group.logs.count)
        for log in group.logs {
            log.isInGatheringGroup = false
            positions.append((log, log.end))
        }
        inFlight = (positions, group.completions)
        metrics.committedBatches.add(group.entryCount)
        metrics.committedBytes.add(group.entries.count)
        var entries: [UInt8] = []
        swap(&entries, &group.entries)
        // What fills the file is followed by making another, which takes longer.
        if mayWait, usualNs <= Self.waitNsMax, entries.count < min(Self.waitBytesMax, journalRoom) {
            let outcome = writer.commit(&entries)
            return finish(outcome, entries)
        }
        let remote = loop.remote
        let queue = LoopBound(self, on: loop)
        let writer = writer
        let sent = Mutex(entries)
        journal.remote.execute { _ in
            var entries = sent.withLock { entries in
                var taken: [UInt8] = []
                swap(&taken, &entries)
                return taken
            }
            let outcome = writer.commit(&entries)
            let buffer = entries
            remote.execute { queue.value(on: $0).finish(outcome, buffer) }
        }
    }

    private func finish(_ outcome: SharedJournal.Outcome, _ buffer: [UInt8]) {
        guard let done = inFlight.take() else { return }
        spare = buffer
        journalRoom = outcome.room
        if let tookNs = outcome.tookNs {
            metrics.commitSeconds.record(ns: tookNs)
            // One slow answer is enough to let the journal thread wait; a disk that has recovered is noticed soon.
            usualNs = usualNs == .max ? tookNs : (usualNs * 7 + tookNs) / 8
        }
        if let failure = outcome.failure {
            onFailure(failure)
            // What gathers is built upon what has failed, so it fails too.
            var group = Group()
            swap(&group, &gathering)
            for log in group.logs { log.isInGatheringGroup = false }
            for log in done.positions.map(\.0) + group.logs {
                do throws(BrokerError) { try log.truncateToCommitted() } catch { onFailure(error) }
            }
            for completion in done.completions + group.completions { completion(failure) }
        } else {
            for (log, position) in done.positions {
                log.commit(position)
            }
            if let rotatedFrom = outcome.rotatedFrom {
                generation = rotatedFrom + 1
                onRotation(rotatedFrom)
            }
            for completion in done.completions { completion(nil) }
            for (log, _) in done.positions { onCommit(log) }
        }
        switch fsync {
        case .always, .group: if !gathering.isEmpty { scheduleFlush() }
        case .never, .interval: if isSendDue { acknowledgeAndSend() }
        }
    }

    /// The generation's files may be used again.
    func release(upTo generation: UInt64, from first: UInt64) {
        let writer = writer
        journal.remote.execute { _ in writer.release(upTo: generation, from: first) }
    }

    /// Sends what gathers, also when it would wait, and calls `body` once nothing is left.
    func drain(_ body: @escaping () -> Void) {
        send()
        guard isIdle else {
            loop.schedule(afterMs: 1) { [weak self] in self?.drain(body) }
            return
        }
        body()
    }

    func stop() {
        journal.stop()
        journal.join()
    }
}
