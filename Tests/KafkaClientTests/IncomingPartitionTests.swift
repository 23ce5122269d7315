import TestSupport
import Testing
import Wire

@testable import KafkaClient

/// A partition that is read against a log which grows, loses its beginning, moves between brokers, answers late, wrongly
/// or not at all, while its reader seeks, pauses and resumes.
@Suite struct IncomingPartitionTests {
    /// The log, some of whose offsets are gone (compaction, markers of transactions). It may be cut off by a new leader,
    /// or be another under the same name.
    private struct LogModel {
        var start: Int64 = 0
        var end: Int64 = 0
        var gone: Set<Int64> = []
        var leader: Int32 = 1
        var identity = LogIdentity(topicID: UUID(high: 1, low: 1))
        var epoch: Int32 = 0
        /// Where the epochs that wrote begin.
        var epochs: [(epoch: Int32, start: Int64)] = []
        /// What stands at each offset, other than at the same of another log or before it was cut off.
        var values: [Int64: String] = [:]
        /// Where batches begin: what was written together stays together, whoever asks.
        var batches: [Int64] = []
        var writes = 0

        mutating func append(_ count: Int64, _ random: inout SeededGenerator) {
            guard count > 0 else { return }
            if epochs.last?.epoch != epoch { epochs.append((epoch, end)) }
            for offset in end..<end + count {
                if offset == end || Int.random(in: 0..<3, using: &random) == 0 { batches.append(offset) }
                writes += 1
                values[offset] = "\(writes)"
            }
            end += count
        }

        mutating func cutOff(at offset: Int64) {
            epoch += 1
            end = offset
            epochs.removeAll { $0.start >= offset }
            batches.removeAll { $0 >= offset }
            gone = gone.filter { $0 < offset }
        }

        mutating func makeAgain(_ number: UInt64) {
            (start, end, gone, epoch, epochs, batches) = (0, 0, [], 0, [], [])
            identity = LogIdentity(topicID: UUID(high: 1, low: number))
        }

        func end(of asked: Int32) -> (epoch: Int32, offset: Int64) {
            (epochs.last { $0.epoch <= asked }?.epoch ?? asked, epochs.first { $0.epoch > asked }?.start ?? end)
        }

        func epoch(at offset: Int64) -> Int32 { epochs.last { $0.start <= offset }?.epoch ?? epoch }

        /// What a broker answers: whole batches, the first of which may begin before what was asked.
        func answer(from: Int64, limit: Int) -> (bytes: [UInt8], starts: [Int]) {
            var (bytes, starts) = ([UInt8](), [Int]())
            for (index, base) in batches.enumerated() where bytes.count < limit {
                let last = (index + 1 < batches.count ? batches[index + 1] : end) - 1
                guard last >= from else { continue }
                starts.append(bytes.count)
                var batch = EncodedBatch(base: base, last: last, offsets: (base...last).filter { !gone.contains($0) })
                batch.leaderEpoch = epoch(at: base)
                batch.value = { Array((values[$0] ?? "").utf8) }
                bytes += batch.bytes
            }
            return (bytes, starts)
        }
    }

    private struct Question {
        var life: UInt32
        var wish: IncomingPartition.Wish
        /// What the broker answered, at some time in between.
        var answer: (bytes: AnswerBytes, end: Int64, error: Int16)
        /// Of an offset, or of an epoch's end.
        var found: (offset: Int64, epoch: Int32) = (-1, -1)
        /// It was asked when the log had ceased to change.
        var isCalm: Bool
    }

    @Test func `whatever is answered, lost, sought, cut off and made again, a reader has what the log has, in order`() {
        let base = SeededGenerator.freshSeed()
        print("seed \(base) (a partition that is read; FANOUT_SEED=\(base) runs it again)")
        for round in 0..<400 as Range<UInt64> { run(seed: base &+ round) }
    }

    private func run(seed: UInt64) {
        var random = SeededGenerator(seed)
        func chance(_ odds: Int) -> Bool { Int.random(in: 0..<odds, using: &random) == 0 }
        var log = LogModel()
        var partition = IncomingPartition(reset: .earliest, bytesMax: 1000)
        var arrivals: [(life: UInt32, records: IncomingRecords?, lost: LostPlace.Reason?)] = []
        var damages: [Int64: Int] = [:]
        var underWay: [Question] = []
        /// What the reader has seen of the log that it believes in.
        var view: [Int64: String] = [:]
        /// The first offset that the reader has not seen, since it last said where to read.
        var expected: Int64 = 0
        var (logs, losses) = (UInt64(1), 0)
        partition.assign(.earliest)
        var (now, steps) = (UInt64(1), 0)
        /// The reader has been given records, or none, of the log as it is in the end.
        var isSettled = false
        /// What the reader sees next: whatever of the log is left.
        func nextThere() -> Int64 {
            var offset = max(expected, log.start)
            while offset < log.end, log.gone.contains(offset) { offset += 1 }
            return offset
        }
        func follow(_ outcome: IncomingPartition.Outcome) {
            if case .lost(let reason, _) = outcome { arrivals.append((partition.life, nil, reason)) }
        }
        while steps < 300 || nextThere() < log.end || !underWay.isEmpty || !arrivals.isEmpty
            || partition.log != log.identity || !isSettled
        {
            steps += 1
            let isCalm = steps > 300
            if steps > 3000 {
                let wish = partition.wish(nowNs: .max)
                Issue.record("seed \(seed): stuck at \(expected) of \(log.start)..<\(log.end), \(wish)")
                return
            }
            now += isCalm ? 600_000_000 : UInt64.random(in: 0...30_000_000, using: &random)
            if !isCalm {
                if chance(2) {
                    let more = Int64.random(in: 0..<8, using: &random)
                    for offset in log.end..<log.end + more where chance(5) { log.gone.insert(offset) }
                    log.append(more, &random)
                }
                if chance(40) { (log.leader, log.epoch) = (3 - log.leader, log.epoch + 1) }
                if chance(60) { log.start = min(log.end, log.start + Int64.random(in: 0..<10, using: &random)) }
                if chance(70) {
                    log.leader = 3 - log.leader
                    // Between two batches, as brokers do.
                    let places = log.batches.filter { $0 >= log.start } + [log.end]
                    log.cutOff(at: places[Int.random(in: places.indices, using: &random)])
                }
                if chance(120) {
                    logs += 1
                    log.makeAgain(logs)
                }
                if chance(20) { partition.pause() }
                if chance(60) {
                    partition.unassign()
                    partition.assign(.offset(expected), log: partition.log, epoch: partition.epoch)
                }
            }
            if chance(3) || isCalm { partition.resume() }
            let wish = partition.wish(nowNs: now)
            switch wish {
            case .nothing, .time: break
            case .committed: Issue.record("nobody has asked for that")
            case .leader:
                // Some broker that is asked has not heard yet.
                let isOld = chance(4) && !isCalm
                follow(
                    partition.learned(
                        leader: isOld ? 3 - log.leader : log.leader, epoch: isOld ? max(0, log.epoch - 1) : log.epoch,
                        log: log.identity, nowNs: now))
            case .offset, .records, .epochEnd:
                partition.asked()
                var question = Question(
                    life: partition.life, wish: wish, answer: (AnswerBytes(count: 0), log.end, 0), isCalm: isCalm)
                if partition.log != log.identity {
                    question.answer.error = 100
                } else if partition.leader != log.leader {
                    question.answer.error = 6
                } else if partition.leaderEpoch != log.epoch {
                    question.answer.error = partition.leaderEpoch < log.epoch ? 74 : 75
                } else if chance(15), !isCalm {
                    question.answer.error = [5, 7, 56, 13, 78][Int.random(in: 0..<5, using: &random)]
                } else if case .offset(let time) = wish {
                    question.found = time == -2 ? (log.start, log.epoch(at: log.start)) : (log.end, log.epoch)
                } else if case .epochEnd(let epoch) = wish {
                    let end = log.end(of: epoch)
                    question.found = (end.offset, end.epoch)
                } else if case .records(let from) = wish {
                    if from < log.start || from > log.end {
                        question.answer.error = 1
                    } else {
                        var (bytes, starts) = log.answer(
                            from: from, limit: Int.random(in: 1...400, using: &random))
                        // Cut off, or damaged on the way.
                        if chance(5), bytes.count > 10 {
                            bytes.removeLast(Int.random(in: 1..<min(80, bytes.count), using: &random))
                        }
                        // Not so often at one place that the batch would be given up.
                        if chance(12), !isCalm, !bytes.isEmpty, damages[from, default: 0] < 2 {
                            damages[from, default: 0] += 1
                            // What stands before the checksum is believed.
                            let index = Int.random(in: bytes.indices, using: &random)
                            if !starts.contains(where: { $0 <= index && index < $0 + 17 }) { bytes[index] ^= 1 }
                        }
                        question.answer.bytes = AnswerBytes(copying: bytes.span)
                    }
                }
                underWay.append(question)
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
                    follow(
                        partition.found(
                            question.found.offset, epoch: question.found.epoch, error: error, life: question.life,
                            nowNs: now))
                } else if case .epochEnd = question.wish {
                    follow(
                        partition.found(
                            epochEnd: question.found.offset, epoch: question.found.epoch, error: error,
                            life: question.life, nowNs: now))
                } else if error != 0 {
                    follow(partition.failed(error, life: question.life, nowNs: now))
                } else if let records = partition.answered(
                    bytes.span, 0..<bytes.count, end: end, life: question.life, hadRoom: true, nowNs: now)
                {
                    #expect(records.skipsTo == nil, "seed \(seed)")
                    isSettled = isCalm && question.isCalm
                    if !records.range.isEmpty {
                        arrivals.append(
                            (
                                question.life,
                                IncomingRecords(bytes, records.range, from: records.from, aborted: []), nil
                            ))
                    }
                }
            }
            // The reader takes some of what waits, perhaps not all of an answer.
            var room = isCalm ? 1000 : Int.random(in: 0..<12, using: &random)
            take: while room > 0, let arrival = arrivals.first {
                guard arrival.life == partition.life else {
                    arrivals.removeFirst()
                    continue
                }
                if let lost = arrival.lost {
                    // It says where to go on, and forgets what is not in the log any more.
                    arrivals.removeFirst()
                    losses += 1
                    switch lost {
                    case .anotherLog:
                        (view, expected) = ([:], 0)
                        partition.seek(.earliest)
                    case .truncated(let end):
                        expected = end ?? 0
                        view = view.filter { $0.key < expected }
                        partition.seek(.offset(expected), log: partition.log, epoch: partition.epoch)
                    case .outOfRange(let marks):
                        expected = marks?.low ?? 0
                        view = view.filter { $0.key < expected }
                        partition.seek(.offset(expected))
                    }
                    continue
                }
                while room > 0 {
                    guard let step = arrivals[0].records?.next() else { break take }
                    switch step {
                    case .record(let found):
                        guard found.offset >= expected, let records = arrivals[0].records else {
                            Issue.record("seed \(seed): \(found.offset) comes at \(expected)")
                            return
                        }
                        let start = records.contentStart
                        let value = found.record.value.map {
                            [UInt8](
                                copying: records.content.span.extracting($0.lowerBound + start..<$0.upperBound + start))
                        }
                        view[found.offset] = String(decoding: value ?? [], as: UTF8.self)
                        expected = found.offset + 1
                        partition.took(records.lastOffset)
                        room -= 1
                    case .broken:
                        Issue.record("seed \(seed): a batch is broken")
                        return
                    case .end:
                        if let last = arrivals[0].records?.lastOffset { partition.took(last) }
                        arrivals.removeFirst()
                        continue take
                    }
                }
            }
        }
        // What is left of the log, from where the reader last began, is what it has; and nothing else.
        for offset in log.start..<max(log.start, log.end) where !log.gone.contains(offset) {
            guard view[offset] == log.values[offset] else {
                Issue.record("seed \(seed): \(offset) is \(view[offset] ?? "missing"), not \(log.values[offset] ?? "")")
                return
            }
        }
        #expect(view.keys.allSatisfy { $0 < log.end }, "seed \(seed): more than there is")
    }

    private func placed(at offset: Int64, epoch: Int32, leaderEpoch: Int32) -> IncomingPartition {
        var partition = IncomingPartition(reset: nil, bytesMax: 1000)
        partition.assign(.offset(offset), log: Self.log(1), epoch: epoch)
        #expect(partition.learned(leader: 1, epoch: leaderEpoch, log: Self.log(1), nowNs: 1) == .nothing)
        return partition
    }

    private static func log(_ number: UInt64) -> LogIdentity? { LogIdentity(topicID: UUID(high: 7, low: number)) }

    @Test func `a kept position is held against the log before anything is read`() {
        var partition = placed(at: 20, epoch: 3, leaderEpoch: 5)
        #expect(partition.wish(nowNs: 1) == .epochEnd(3))
        partition.asked()
        #expect(
            partition.found(epochEnd: 12, epoch: 3, error: 0, life: partition.life, nowNs: 1)
                == .lost(.truncated(end: 12), position: 20))
        #expect(partition.wish(nowNs: .max) == .nothing, "it stands still")
        partition.seek(.offset(12), log: Self.log(1), epoch: 3)
        #expect(partition.wish(nowNs: 2) == .epochEnd(3))
        partition.asked()
        #expect(partition.found(epochEnd: 12, epoch: 3, error: 0, life: partition.life, nowNs: 2) == .nothing)
        #expect(partition.wish(nowNs: 2) == .records(from: 12))
    }

    @Test func `a new leader is asked for what was read before it is read from`() {
        var partition = placed(at: 0, epoch: -1, leaderEpoch: 5)
        partition.asked()
        var batch = EncodedBatch(base: 0, last: 3, offsets: [0, 1, 2, 3])
        batch.leaderEpoch = 4
        let bytes = AnswerBytes(copying: batch.bytes.span)
        _ = partition.answered(bytes.span, 0..<bytes.count, end: 4, life: partition.life, hadRoom: true, nowNs: 1)
        partition.asked()
        // FENCED_LEADER_EPOCH
        #expect(partition.failed(74, life: partition.life, nowNs: 1) == .askLeader)
        let later: UInt64 = 1_000_000_000
        #expect(partition.wish(nowNs: later) == .leader)
        #expect(
            partition.learned(leader: 2, epoch: 4, log: Self.log(1), nowNs: later) == .askLeader, "who has not heard")
        #expect(partition.learned(leader: 2, epoch: 6, log: Self.log(1), nowNs: later) == .nothing)
        #expect(partition.wish(nowNs: 2 * later) == .epochEnd(4))
        partition.asked()
        #expect(partition.found(epochEnd: 9, epoch: 4, error: 0, life: partition.life, nowNs: later) == .nothing)
        #expect(partition.wish(nowNs: 2 * later) == .records(from: 4))
    }

    @Test func `another log under the name is said once, and what comes late of it is not taken`() {
        var partition = placed(at: 3, epoch: -1, leaderEpoch: 5)
        partition.asked()
        let outcome = IncomingPartition.Outcome.lost(.anotherLog(Self.log(2)), position: 3)
        #expect(partition.learned(leader: 1, epoch: 1, log: Self.log(2), nowNs: 1) == outcome)
        #expect(partition.learned(leader: 1, epoch: 1, log: Self.log(2), nowNs: 2) == .nothing)
        let bytes = AnswerBytes(copying: EncodedBatch(base: 3, last: 3, offsets: [3]).bytes.span)
        #expect(
            partition.answered(bytes.span, 0..<bytes.count, end: 4, life: partition.life, hadRoom: true, nowNs: 2)
                == nil)
        // Who asks for whatever is there has it.
        partition.seek(.earliest)
        #expect(partition.log == Self.log(2))
    }

    @Test func `a topic that nobody knows any more is gone after half a second, one that never was is waited for`() {
        var partition = placed(at: 3, epoch: -1, leaderEpoch: 5)
        var unknown = IncomingPartition(reset: nil, bytesMax: 1000)
        unknown.assign(.offset(0))
        var now: UInt64 = 1
        #expect(partition.hasNoLeader(error: 3, isTopic: true, nowNs: now) == .askLeader)
        now += 400_000_000
        #expect(partition.hasNoLeader(error: 3, isTopic: true, nowNs: now) == .askLeader)
        now += 100_000_000
        #expect(
            partition.hasNoLeader(error: 3, isTopic: true, nowNs: now) == .lost(.anotherLog(nil), position: 3))
        for _ in 0..<10 {
            now += 100_000_000
            #expect(unknown.hasNoLeader(error: 3, isTopic: true, nowNs: now) == .askLeader)
        }
    }

    @Test func `a position that fell out of the log is said with where the log begins and ends`() {
        for (position, low, high) in [(3, 5, 9), (12, 5, 9)] as [(Int64, Int64, Int64)] {
            var partition = placed(at: position, epoch: -1, leaderEpoch: 5)
            partition.asked()
            #expect(partition.failed(1, life: partition.life, nowNs: 1) == .askLeader, "it may be another log")
            #expect(partition.wish(nowNs: 1) == .leader)
            #expect(partition.learned(leader: 1, epoch: 5, log: Self.log(1), nowNs: 1) == .nothing)
            #expect(partition.wish(nowNs: 1) == .offset(time: -2))
            partition.asked()
            #expect(partition.found(low, epoch: 0, error: 0, life: partition.life, nowNs: 1) == .nothing)
            #expect(partition.wish(nowNs: 1) == .offset(time: -1))
            partition.asked()
            #expect(
                partition.found(high, epoch: 0, error: 0, life: partition.life, nowNs: 1)
                    == .lost(.outOfRange(Watermarks(low: low, high: high)), position: position))
            #expect(partition.wish(nowNs: .max) == .nothing)
        }
    }

    @Test func `brokers that tell no topic ids are believed when the leader's epoch stays below the known one`() {
        var partition = IncomingPartition(reset: nil, bytesMax: 1000)
        partition.assign(.offset(3))
        #expect(partition.learned(leader: 1, epoch: 5, nowNs: 1) == .nothing)
        var now: UInt64 = 1
        #expect(partition.learned(leader: 1, epoch: 0, nowNs: now) == .askLeader)
        now += 5_000_000_000
        #expect(partition.learned(leader: 1, epoch: 0, nowNs: now) == .lost(.anotherLog(nil), position: 3))
    }

    @Test func `what was said and not heard before a pause is said again, and nothing of another log is read`() {
        var partition = placed(at: 20, epoch: -1, leaderEpoch: 5)
        #expect(partition.wish(nowNs: 1) == .records(from: 20))
        let lost = IncomingPartition.Outcome.lost(.anotherLog(Self.log(2)), position: 20)
        // Told beside what was asked for another partition.
        #expect(partition.learned(leader: 1, epoch: 5, log: Self.log(2), nowNs: 1) == lost)
        partition.pause()
        partition.resume()
        #expect(partition.wish(nowNs: 2) == .leader)
        #expect(partition.learned(leader: 1, epoch: 5, log: Self.log(2), nowNs: 2) == lost)
        #expect(partition.wish(nowNs: .max) == .nothing)
    }

    @Test func `a batch that is damaged each time is left out, with what is behind it kept`() throws {
        var partition = IncomingPartition(reset: .earliest, bytesMax: 1000)
        partition.assign(.offset(10))
        _ = partition.learned(leader: 1, nowNs: 1)
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

    @Test func `whatever bit of a stored batch is wrong, those around it are read, and what is not is said`() throws {
        let batches = [10, 13, 16].map { EncodedBatch(base: $0, last: $0 + 2, offsets: [$0, $0 + 1, $0 + 2]).bytes }
        let start = batches[0].count
        for bit in 0..<batches[1].count * 8 {
            var stored = batches.flatMap { $0 }
            stored[start + bit / 8] ^= 1 << UInt8(bit % 8)
            let (read, passedOver) = try readAll(stored, starts: [0, start, start + batches[1].count])
            // Where a batch begins, no checksum covers: what stands behind it may then be taken for what was read.
            guard bit >= 64 else { continue }
            for offset in 10...18 as ClosedRange<Int64> {
                let isRead = read[offset] == ["\(offset)"]
                if (13...15).contains(offset) {
                    #expect(isRead != passedOver.contains(offset), "bit \(bit): \(offset) \(read) \(passedOver)")
                } else {
                    #expect(isRead && !passedOver.contains(offset), "bit \(bit): \(offset) \(read) \(passedOver)")
                }
            }
        }
    }

    /// Reads three batches of three records from 10 on, of which a broker answers those that hold what is asked for.
    private func readAll(_ stored: [UInt8], starts: [Int]) throws -> (read: [Int64: [String]], passedOver: Set<Int64>) {
        var partition = IncomingPartition(reset: .earliest, bytesMax: 1000)
        partition.assign(.offset(10))
        _ = partition.learned(leader: 1, nowNs: 1)
        var (read, passedOver) = ([Int64: [String]](), Set<Int64>())
        for round in 1...40 {
            let now = UInt64(round) * 1_000_000_000
            guard case .records(let from) = partition.wish(nowNs: now), from < 19 else { break }
            try #require(round < 40, "it goes round in circles")
            partition.asked()
            let answer = Array(stored[starts[Int(from - 10) / 3]...])
            let bytes = AnswerBytes(copying: answer.span)
            guard
                let records = partition.answered(
                    bytes.span, 0..<bytes.count, end: 19, life: partition.life, hadRoom: true, nowNs: now)
            else { continue }
            if let next = records.skipsTo { passedOver.formUnion(records.from..<next) }
            var content = IncomingRecords(bytes, records.range, from: records.from, aborted: [])
            reading: while true {
                switch content.next() {
                case .record(let found):
                    let place = content.contentStart
                    let value = found.record.value.map {
                        [UInt8](copying: content.content.span.extracting($0.lowerBound + place..<$0.upperBound + place))
                    }
                    read[found.offset, default: []].append(String(decoding: value ?? [], as: UTF8.self))
                case .broken: break reading
                case .end: break reading
                }
            }
        }
        return (read, passedOver)
    }

    @Test func `a format that is not read is said once, and nothing is asked any more until a seek`() throws {
        var partition = IncomingPartition(reset: .earliest, bytesMax: 1000)
        partition.assign(.offset(0))
        _ = partition.learned(leader: 1, nowNs: 1)
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
        _ = partition.learned(leader: 1, nowNs: 1)
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
        _ = partition.learned(leader: 1, nowNs: 1)
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
