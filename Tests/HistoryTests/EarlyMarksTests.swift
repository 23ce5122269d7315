import Testing
import Wire

@testable import History

@Suite struct EarlyMarksTests {
    private let ann = SinkBatch.Reader(chat: .random(), user: .random())
    private let bob = SinkBatch.Reader(chat: .random(), user: .random())

    private func read(_ seq: Int64, partition: Int32 = 0) -> SinkBatch.Reading {
        SinkBatch.Reading(readSeq: seq, deliveredSeq: seq, partition: partition)
    }

    @Test func `a mark waits for its message, and its partition's position waits with it`() {
        var early = EarlyMarks()
        early.hold(ann, read(10), offset: 70, recordMs: 5000)
        early.hold(ann, read(12), offset: 75, recordMs: 5100)
        early.hold(bob, read(11, partition: 3), offset: 8, recordMs: 5000)
        #expect(early.positions == [0: 70, 3: 8])
        #expect(early.take { _ in EarlyMarks.Reached(seq: 11, ms: 6000) }.map(\.reader) == [bob])
        #expect(early.positions == [0: 70])
        let ready = early.take { _ in EarlyMarks.Reached(seq: 12, ms: 0) }
        #expect(ready.map(\.reading.readSeq) == [12] && ready[0].reading.limitSeq == .max)
        #expect(early.isEmpty && early.positions.isEmpty)
    }

    @Test func `what has not come when all from before the mark is stored will not come, and the mark is limited`() {
        var early = EarlyMarks()
        early.hold(ann, read(1_000_000_000_000_000), offset: 1, recordMs: 5000)
        #expect(early.take { _ in EarlyMarks.Reached(seq: 40, ms: 5000 + EarlyMarks.slackMs - 1) }.isEmpty)
        let ready = early.take { _ in EarlyMarks.Reached(seq: 41, ms: 5000 + EarlyMarks.slackMs) }
        #expect(ready.map(\.reading.limitSeq) == [41])
    }

    @Test func `marks of a partition of which nothing is known wait`() {
        var early = EarlyMarks()
        early.hold(ann, read(1), offset: 1, recordMs: 0)
        #expect(early.take { _ in nil }.isEmpty && !early.isEmpty)
    }
}
