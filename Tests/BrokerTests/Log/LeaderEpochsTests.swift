import System
import Testing

@testable import Broker

@Suite struct LeaderEpochsTests {
    @Test func `an epoch ends where the next one that wrote begins, and the last where the log does`() {
        var epochs = LeaderEpochs()
        #expect(epochs.end(of: 7, logEnd: 0) == (7, 0))
        epochs.note(3, at: 0)
        epochs.note(3, at: 5)
        epochs.note(8, at: 10)
        #expect(epochs.end(of: 2, logEnd: 20) == (2, 0), "before all that is known")
        #expect(epochs.end(of: 3, logEnd: 20) == (3, 10))
        #expect(epochs.end(of: 5, logEnd: 20) == (3, 10), "nothing was written in it")
        #expect(epochs.end(of: 8, logEnd: 20) == (8, 20))
        #expect(epochs.epoch(at: 9) == 3)
        #expect(epochs.epoch(at: 10) == 8)
        epochs.truncate(to: 10)
        #expect(epochs.end(of: 8, logEnd: 10) == (3, 10))
    }

    @Test func `no more epochs are kept than there is room for, and the oldest go`() {
        var epochs = LeaderEpochs()
        for epoch in 0..<Int32(LeaderEpochs.countMax + 10) { epochs.note(epoch, at: Int64(epoch) * 10) }
        #expect(epochs.entries.count == LeaderEpochs.countMax)
        #expect(epochs.end(of: 0, logEnd: 1 << 20) == (0, 100))
    }

    @Test func `a log knows its epochs again after a start, with a checkpoint and without`() throws {
        let directory = LogDirectory()
        func add(_ log: PartitionLog, _ value: String) throws {
            var batch = Batches.placed(Batches.batch(values: [value]), at: log.endOffset)
            RecordBatch.place(&batch, at: 0, baseOffset: log.endOffset, leaderEpoch: log.leaderEpoch)
            try log.append(batch.span, try RecordBatch(verifying: batch.span), nowMs: 0)
            log.commit(log.end)
        }
        let first = try directory.makeLog(leaderEpoch: 5)
        for value in ["a", "b", "c"] { try add(first, value) }
        let (second, _) = try directory.reopen(leaderEpoch: 9)
        #expect(second.end(ofEpoch: 5).map { $0.offset } == 3)
        try add(second, "d")
        for known in [PartitionLog.Recovered(), second.checkpointed] {
            let (third, _) = try directory.reopen(known: known, leaderEpoch: 12)
            #expect(third.epochs.entries == [.init(epoch: 5, start: 0), .init(epoch: 9, start: 3)])
            #expect(third.end(ofEpoch: 13) == nil, "it is still to come")
        }
        var checkpoint = Checkpoint(generation: 1)
        checkpoint.partitions = [.init(topic: 1, partition: 0, recovered: second.checkpointed)]
        let read = try Checkpoint(decoding: checkpoint.encoded())
        #expect(read.partitions.first?.recovered.epochs == second.epochs)
    }

    @Test func `every start has a newer epoch, also after the clock went back, and newer than a copy's later ones`()
        throws
    {
        var catalog = Catalog(clusterID: TopicID(high: 1, low: 2))
        let first = catalog.nextEpoch(nowMs: 1_800_000_000_000)
        let copy = catalog
        #expect(catalog.nextEpoch(nowMs: 1_800_000_000_000) == first + 1)
        #expect(catalog.nextEpoch(nowMs: 1_700_000_000_000) == first + 2)
        var read = try Catalog(decoding: copy.encoded())
        #expect(read.lastEpoch == first)
        let nowMs: Int64 = 1_800_000_000_000
        #expect(read.nextEpoch(nowMs: nowMs + 1000) > first + 2)
        // A start at the last moment of a quarter waits for the next one, in which another start has another epoch.
        var (early, late) = (copy, copy)
        let epoch = early.nextEpoch(nowMs: nowMs + 499)
        #expect(late.nextEpoch(nowMs: nowMs + 499 + Catalog.epochPassesInMs(nowMs: nowMs + 499)) > epoch)
    }
}
