import PushLink
import Testing
import Wire

@testable import Ingest

@Suite struct SeqNumberTests {
    private let logs = (1...2).compactMap { LogIdentity(topicID: UUID(high: 9, low: $0)) }

    private func answer(_ offset: Int64, _ partition: Int32 = 0) -> SeqNumbers.Answer {
        SeqNumbers.Answer(
            session: SessionNumber(1), id: .random(), chat: .random(), partition: partition, offset: offset, ts: 1,
            sentMs: 1)
    }

    private func all(_ generation: Int32) -> [(partition: Int32, generation: Int32)] {
        [(0, generation), (1, generation)]
    }

    @Test func `nothing is answered before the generation is known, and then all in their order`() {
        var numbers = SeqNumbers(partitionCount: 2, isAsked: true)
        #expect(numbers.look(at: logs[0], nowMs: 0) == logs[0])
        #expect(numbers.acknowledged(answer(5), nowMs: 1) == .wait)
        #expect(numbers.acknowledged(answer(6), nowMs: 1) == .wait)
        #expect(!numbers.isComplete([(0, 0)], of: logs[0]), "a partition is missing")
        let seqs = numbers.learned(all(3), of: logs[0], nowMs: 2).map(\.seq)
        #expect(seqs == [5, 6].map { LogRun(generation: 3).seq(of: $0) })
        #expect(numbers.acknowledged(answer(7), nowMs: 3) == .answer(seq: LogRun(generation: 3).seq(of: 7)))
    }

    @Test func `an offset that is given again is not answered until it is known what log it is of`() {
        var numbers = SeqNumbers(partitionCount: 2, isAsked: true)
        _ = numbers.look(at: logs[0], nowMs: 0)
        _ = numbers.learned(all(0), of: logs[0], nowMs: 0)
        #expect(numbers.acknowledged(answer(4000), nowMs: 1) == .answer(seq: 4000))
        #expect(numbers.acknowledged(answer(2), nowMs: 10) == .wait)
        #expect(numbers.acknowledged(answer(1, 1), nowMs: 11) == .wait, "who knows which log this partition is of")
        #expect(numbers.learned(all(0), of: logs[0], nowMs: 12).isEmpty)
        #expect(numbers.look(at: logs[1], nowMs: 500) == logs[1])
        #expect(numbers.learned(all(0), of: logs[0], nowMs: 501).isEmpty, "an answer about the old log")
        let seqs = numbers.learned(all(1), of: logs[1], nowMs: 502).map(\.seq)
        #expect(seqs == [2, 1].map { LogRun(generation: 1).seq(of: $0) })
    }

    @Test func `a log that lost its end is the same log with a higher generation`() {
        var numbers = SeqNumbers(partitionCount: 2, isAsked: true)
        _ = numbers.look(at: logs[0], nowMs: 0)
        _ = numbers.learned(all(0), of: logs[0], nowMs: 0)
        _ = numbers.acknowledged(answer(4000), nowMs: 1)
        #expect(numbers.acknowledged(answer(3990), nowMs: 10) == .wait)
        #expect(numbers.look(at: logs[0], nowMs: 1_000) == nil)
        #expect(numbers.look(at: logs[0], nowMs: 10 + SeqNumbers.doubtMs) == logs[0])
        let seqs = numbers.learned([(0, 1), (1, 0)], of: logs[0], nowMs: 11 + SeqNumbers.doubtMs).map(\.seq)
        #expect(seqs == [LogRun(generation: 1).seq(of: 3990)])
        // A database from before does not take it back.
        #expect(!numbers.isComplete(all(0), of: logs[0]) && numbers.floor(0) == 1)
    }

    @Test func `without a database seq is the offset, and what waits is bounded`() {
        var alone = SeqNumbers(partitionCount: 2, isAsked: false)
        #expect(alone.look(at: logs[0], nowMs: 0) == nil)
        #expect(alone.acknowledged(answer(5), nowMs: 1) == .answer(seq: 5))
        #expect(alone.acknowledged(answer(5), nowMs: 1) == .answer(seq: 5))
        var numbers = SeqNumbers(partitionCount: 2, isAsked: true)
        for offset in 0..<Int64(SeqNumbers.heldMax) { #expect(numbers.acknowledged(answer(offset), nowMs: 1) == .wait) }
        #expect(numbers.acknowledged(answer(0), nowMs: 1) == .full)
    }
}
