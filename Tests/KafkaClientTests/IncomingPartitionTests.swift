import TestSupport
import Testing

@testable import KafkaClient

/// A partition that is read against a log which grows, loses its beginning, moves between brokers, answers late, wrongly
/// or not at all, while its reader seeks, pauses and resumes.
@Suite struct IncomingPartitionTests {
    /// The log, some of whose offsets are gone (compaction, markers of transactions).
    private struct LogModel {
        var start: Int64 = 0
        var end: Int64 = 0
        var gone: Set<Int64> = []
        var leader: Int32 = 1

        /// What a broker answers: batches of one to four records, the first of which may begin before what was asked.
        func answer(from: Int64, limit: Int, _ random: inout SeededGenerator) -> (bytes: [UInt8], starts: [Int]) {
            var (bytes, starts) = ([UInt8](), [Int]())
            var next = max(start, from - Int64.random(in: 0..<3, using: &random))
            while next < end, bytes.count < limit {
                let last = min(end - 1, next + Int64.random(in: 0..<4, using: &random))
                starts.append(bytes.count)
                bytes +=
                    EncodedBatch(
                        base: next, last: last, offsets: (next...last).filter { !gone.contains($0) }
                    ).bytes
                next = last + 1
            }
            return (bytes, starts)
        }
    }

    private struct Question {
        var life: UInt32
        var wish: IncomingPartition.Wish
        /// What the broker answered, at some time in between.
        var answer: (bytes: AnswerBytes, end: Int64, error: Int16)
    }

    @Test func `whatever is answered, lost and sought, each record comes once, in order, from where it was wanted`() {
        let base = SeededGenerator.freshSeed()
        print("seed \(base) (a partition that is read; FANOUT_SEED=\(base) runs it again)")
        for round in 0..<400 as Range<UInt64> { run(seed: base &+ round) }
    }

    private func run(seed: UInt64) {
        var random = SeededGenerator(seed)
        func chance(_ odds: Int) -> Bool { Int.random(in: 0..<odds, using: &random) == 0 }
        var log = LogModel()
        var partition = IncomingPartition(reset: .earliest, bytesMax: 1000)
        var arrivals: [(life: UInt32, records: IncomingRecords)] = []
        var damages: [Int64: Int] = [:]
        var underWay: [Question] = []
        /// The first offset that the reader has not seen, since it last said where to read.
        var expected: Int64 = 0
        var ends: [Int64] = []
        partition.assign(.earliest)
        var (now, steps) = (UInt64(1), 0)
        /// What the reader sees next: whatever of the log is left.
        func nextThere() -> Int64 {
            var offset = max(expected, log.start)
            while offset < log.end, log.gone.contains(offset) { offset += 1 }
            return offset
        }
        while steps < 300 || nextThere() < log.end || !underWay.isEmpty {
            steps += 1
            let isCalm = steps > 300
            if steps > 3000 {
                Issue.record("seed \(seed): stuck at \(expected) of \(log)")
                return
            }
            now += isCalm ? 600_000_000 : UInt64.random(in: 0...30_000_000, using: &random)
            if !isCalm {
                if chance(2) {
                    let more = Int64.random(in: 0..<8, using: &random)
                    for offset in log.end..<log.end + more where chance(5) { log.gone.insert(offset) }
                    log.end += more
                }
                if chance(40) { log.leader = 3 - log.leader }
                if chance(60) { log.start = min(log.end, log.start + Int64.random(in: 0..<10, using: &random)) }
                if chance(20) { partition.pause() }
                if chance(25) {
                    expected = Int64.random(in: log.start...log.end, using: &random)
                    partition.seek(.offset(expected))
                }
                if chance(60) {
                    partition.unassign()
                    if chance(2) {
                        partition.assign(.earliest)
                        expected = 0
                    } else {
                        partition.assign(.offset(expected))
                    }
                }
            }
            if chance(3) || isCalm { partition.resume() }
            let wish = partition.wish(nowNs: now)
            switch wish {
            case .nothing, .time: break
            case .committed: Issue.record("nobody has asked for that")
            case .leader: partition.leader = chance(4) && !isCalm ? 3 - log.leader : log.leader
            case .offset, .records:
                partition.asked()
                var answer = (bytes: AnswerBytes(count: 0), end: log.end, error: 0 as Int16)
                if partition.leader != log.leader {
                    answer.error = 6
                } else if chance(15), !isCalm {
                    answer.error = [5, 7, 56, 13, 29][Int.random(in: 0..<5, using: &random)]
                } else if case .records(let from) = wish {
                    if from < log.start || from > log.end {
                        answer.error = 1
                    } else {
                        var (bytes, starts) = log.answer(
                            from: from, limit: Int.random(in: 1...400, using: &random), &random)
                        // Cut off, or damaged on the way.
                        if chance(5), bytes.count > 10 {
                            bytes.removeLast(Int.random(in: 1..<min(80, bytes.count), using: &random))
                        }
                        // Not so often at one place that the batch would be given up.
                        if chance(12), !isCalm, !bytes.isEmpty, damages[from, default: 0] < 2 {
                            damages[from, default: 0] += 1
                            // The offset that a batch begins with is the one thing that no checksum covers.
                            let index = Int.random(in: bytes.indices, using: &random)
                            if !starts.contains(where: { $0 <= index && index < $0 + 8 }) { bytes[index] ^= 1 }
                        }
                        answer.bytes = AnswerBytes(copying: bytes.span)
                    }
                }
                underWay.append(Question(life: partition.life, wish: wish, answer: answer))
            }
            // Answers come late, also to questions of earlier lives, or are lost.
            while let question = underWay.first, isCalm || chance(2) {
                underWay.removeFirst()
                if chance(12), !isCalm {
                    partition.lost(life: question.life)
                    continue
                }
                if chance(20), !isCalm {
                    partition.leftOut(life: question.life, nowNs: now)
                    continue
                }
                let (bytes, end, error) = question.answer
                if case .offset = question.wish {
                    _ = partition.found(log.start, error: error, life: question.life, nowNs: now)
                } else if error != 0 {
                    _ = partition.failed(error, life: question.life, nowNs: now)
                } else if let records = partition.answered(
                    bytes.span, 0..<bytes.count, end: end, life: question.life, hadRoom: true, nowNs: now)
                {
                    #expect(records.skipsTo == nil, "seed \(seed)")
                    if let end = records.end { ends.append(end) }
                    if !records.range.isEmpty {
                        arrivals.append(
                            (question.life, IncomingRecords(bytes, records.range, from: records.from, aborted: [])))
                    }
                }
            }
            // The reader takes some of what waits, perhaps not all of an answer.
            var room = isCalm ? 1000 : Int.random(in: 0..<12, using: &random)
            take: while room > 0, !arrivals.isEmpty {
                guard arrivals[0].life == partition.life else {
                    arrivals.removeFirst()
                    continue
                }
                while room > 0 {
                    switch arrivals[0].records.next() {
                    case .record(let found):
                        // Those that were there when they were asked for may be gone from the log by now.
                        let missing = (min(expected, found.offset)..<found.offset).first {
                            $0 >= log.start && !log.gone.contains($0)
                        }
                        guard missing == nil, found.offset >= expected else {
                            Issue.record(
                                "seed \(seed): \(found.offset) comes at \(expected); missing: \(missing ?? -1)")
                            return
                        }
                        expected = found.offset + 1
                        partition.took(arrivals[0].records.lastOffset)
                        room -= 1
                    case .broken:
                        Issue.record("seed \(seed): a batch is broken")
                        return
                    case .end:
                        partition.took(arrivals[0].records.lastOffset)
                        arrivals.removeFirst()
                        continue take
                    }
                }
            }
        }
        #expect(ends.contains(log.end) || nextThere() >= log.end)
    }

    @Test func `a batch that is damaged each time is left out, with what is behind it kept`() throws {
        var partition = IncomingPartition(reset: .earliest, bytesMax: 1000)
        partition.assign(.offset(10))
        partition.leader = 1
        var damaged = EncodedBatch(base: 10, last: 12, offsets: [10, 11, 12]).bytes
        damaged[70] ^= 1
        let bytes = AnswerBytes(copying: (damaged + EncodedBatch(base: 13, last: 13, offsets: [13]).bytes).span)
        var now: UInt64 = 1
        for time in 1...IncomingPartition.corruptTimesMax {
            #expect(partition.wish(nowNs: now) == .records(from: 10))
            partition.asked()
            let answered = partition.answered(
                bytes.span, 0..<bytes.count, end: 14, life: partition.life, hadRoom: true, nowNs: now)
            let records = try #require(answered)
            #expect(records.skipsTo == (time < IncomingPartition.corruptTimesMax ? nil : 13))
            #expect(records.range.isEmpty)
            now += 1_000_000_000
        }
        #expect(partition.wish(nowNs: now) == .records(from: 13))
    }

    @Test func `a format that is not read is said once, and nothing is asked any more until a seek`() throws {
        var partition = IncomingPartition(reset: .earliest, bytesMax: 1000)
        partition.assign(.offset(0))
        partition.leader = 1
        var old = EncodedBatch(base: 0, last: 0, offsets: [0]).bytes
        old[16] = 1
        let bytes = AnswerBytes(copying: old.span)
        var (now, said) = (UInt64(1), 0)
        while case .records = partition.wish(nowNs: now) {
            partition.asked()
            let answered = partition.answered(
                bytes.span, 0..<bytes.count, end: 1, life: partition.life, hadRoom: true, nowNs: now)
            let records = try #require(answered)
            said += records.isOld ? 1 : 0
            now += 1_000_000_000
        }
        #expect(said == 1)
        #expect(partition.wish(nowNs: .max) == .nothing)
        partition.seek(.offset(5))
        #expect(partition.wish(nowNs: now) == .records(from: 5))
    }

    @Test func `the end is told at the first arrival and after waiting in vain, not after each record that comes`()
        throws
    {
        var partition = IncomingPartition(reset: .earliest, bytesMax: 1000)
        partition.assign(.offset(0))
        partition.leader = 1
        func answer(_ range: Range<Int64>, end: Int64) -> Int64? {
            let batch =
                range.isEmpty ? [] : EncodedBatch(base: range.lowerBound, last: end - 1, offsets: Array(range)).bytes
            let bytes = AnswerBytes(copying: batch.span)
            partition.asked()
            return partition.answered(
                bytes.span, 0..<bytes.count, end: end, life: partition.life, hadRoom: true, nowNs: 1)?.end
        }
        #expect(answer(0..<3, end: 3) == 3)
        #expect(answer(3..<3, end: 3) == nil)
        #expect(answer(3..<4, end: 4) == nil)
        #expect(answer(4..<4, end: 4) == 4)
        #expect(answer(4..<4, end: 4) == nil)
    }

    @Test func `what does not fit into an answer is asked for with more room`() {
        var partition = IncomingPartition(reset: .earliest, bytesMax: 1000)
        partition.assign(.offset(0))
        partition.leader = 1
        func answer(_ byteCount: Int, hadRoom: Bool) {
            let part = Array(EncodedBatch(base: 0, last: 3, offsets: [0, 1]).bytes.prefix(byteCount))
            let bytes = AnswerBytes(copying: part.span)
            partition.asked()
            _ = partition.answered(
                bytes.span, 0..<bytes.count, end: 4, life: partition.life, hadRoom: hadRoom, nowNs: 1)
        }
        answer(0, hadRoom: false)
        #expect(partition.bytesMax == 1000, "others have taken the room")
        answer(0, hadRoom: true)
        #expect(partition.bytesMax == 2000)
        answer(40, hadRoom: true)
        #expect(partition.bytesMax == 4000)
        #expect(partition.wish(nowNs: 1) == .records(from: 0))
    }

    @Test func `without a place to begin there is an error, and nothing is asked`() {
        var partition = IncomingPartition(reset: nil, bytesMax: 1000)
        partition.assign(.committed)
        #expect(partition.wish(nowNs: 1) == .committed)
        #expect(partition.committed(nil, life: partition.life) == .noPlace)
        #expect(partition.wish(nowNs: .max) == .nothing)
    }
}
