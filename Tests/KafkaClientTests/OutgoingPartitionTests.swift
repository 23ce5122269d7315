import TestSupport
import Testing
import Wire

@testable import KafkaClient

/// A partition's batches against a broker that keeps the rules of idempotent producers, and forgets, refuses and loses
/// connections at random.
@Suite struct OutgoingPartitionTests {
    /// The rules: a producer's numbers follow one another, and its last batches are known again.
    private struct PartitionModel {
        var log: [UInt64] = []
        private var producer: ProducerIdentity?
        private var next: Int32 = 0
        private var known: [(first: Int32, offset: Int)] = []
        let recordsMax: Int

        init(recordsMax: Int) { self.recordsMax = recordsMax }

        mutating func forget() { producer = nil }

        mutating func append(_ batch: OutgoingBatch, _ identity: ProducerIdentity) -> Int16 {
            if batch.count > recordsMax { return 10 }
            let sequence = batch.sequence ?? -1
            if producer == identity {
                if known.contains(where: { $0.first == sequence }) { return 46 }
                guard sequence == next else { return 45 }
            } else {
                guard sequence == 0 else { return 59 }
                producer = identity
                known = []
            }
            known = known.suffix(4) + [(sequence, log.count)]
            next = sequence + Int32(batch.count)
            log += batch.tags
            return 0
        }
    }

    @Test func `whatever happens, every record is written in order, and twice only after the broker forgot`() {
        let base = SeededGenerator.freshSeed()
        print("seed \(base) (batches of a partition; FANOUT_SEED=\(base) runs it again)")
        for round in 0..<300 as Range<UInt64> { run(seed: base &+ round) }
    }

    private func run(seed: UInt64) {
        var random = SeededGenerator(seed)
        var broker = PartitionModel(recordsMax: Int.random(in: 0..<4, using: &random) == 0 ? 3 : 1000)
        var partition = OutgoingPartition(isPatient: false)
        let limits = OutgoingPartition.Limits(batchBytes: 400, batchRecords: 10)
        var identity = ProducerIdentity(id: 1, epoch: 0)
        var (made, reported) = (UInt64(0), [UInt64]())
        var now = UInt64(0)
        var mayRepeat = false
        let headers = RecordHeaders()
        while reported.count < 200 {
            now += 1
            if made < 200 {
                for _ in 0..<Int.random(in: 0..<6, using: &random) where made < 200 {
                    let value = [UInt8](repeating: 7, count: Int.random(in: 0..<60, using: &random))
                    partition.batch(for: value.count + 64, limits, nowNs: now).append(
                        key: nil, value: value.span, headers: headers, timestampMs: 5, tag: made)
                    made += 1
                }
            }
            guard partition.maySend(nowNs: now) else { continue }
            let batch = partition.send(identity)
            var error: Int16
            switch Int.random(in: 0..<12, using: &random) {
            // Lost on the way there, or on the way back.
            case 0:
                partition.lost()
                continue
            case 1:
                _ = broker.append(batch, identity)
                partition.lost()
                continue
            case 2: error = [6, 7, 19, 56][Int.random(in: 0..<4, using: &random)]
            // Written, and yet the answer says that replicas are missing.
            case 3:
                error = broker.append(batch, identity)
                if error == 0 { error = 20 }
            case 4 where Int.random(in: 0..<3, using: &random) == 0:
                // It may take a first batch twice, too.
                broker.forget()
                mayRepeat = true
                error = broker.append(batch, identity)
            default: error = broker.append(batch, identity)
            }
            switch partition.answered(error: error) {
            case .written: reported += batch.tags
            case .again: partition.resumesAtNs = now + UInt64(Int.random(in: 0..<3, using: &random))
            case .refused: Issue.record("seed \(seed): refused with \(error)")
            case .disagreement:
                mayRepeat = true
                identity = ProducerIdentity(id: identity.id + 1, epoch: 0)
                partition.startOver()
            }
        }
        #expect(reported == Array(0..<200), "seed \(seed)")
        var kept: [UInt64] = []
        for tag in broker.log where kept.last.map({ tag > $0 }) ?? true { kept.append(tag) }
        #expect(kept == Array(0..<200), "seed \(seed)")
        if !mayRepeat { #expect(broker.log == Array(0..<200), "seed \(seed)") }
    }

    @Test func `a record that no topic takes is refused alone, and its numbers are the next one's`() {
        var partition = OutgoingPartition(isPatient: false)
        let identity = ProducerIdentity(id: 1, epoch: 0)
        let limits = OutgoingPartition.Limits(batchBytes: 10_000, batchRecords: 10)
        for tag in 0..<3 as Range<UInt64> {
            partition.batch(for: 64, limits, nowNs: 0).append(
                key: nil, value: [1].span, headers: RecordHeaders(), timestampMs: 0, tag: tag)
        }
        #expect(partition.send(identity).tags == [0, 1, 2])
        #expect(partition.answered(error: 10) == .again(asksLeader: false))
        #expect(partition.send(identity).tags == [0])
        #expect(partition.answered(error: 0) == .written)
        let large = partition.send(identity)
        #expect(large.tags == [1])
        #expect(large.sequence == 1)
        #expect(partition.answered(error: 10) == .refused)
        let last = partition.send(identity)
        #expect(last.tags == [2])
        #expect(last.sequence == 1)
    }

    @Test func `numbers wrap at the largest`() {
        var partition = OutgoingPartition(isPatient: false, firstSequence: .max)
        let identity = ProducerIdentity(id: 1, epoch: 0)
        let limits = OutgoingPartition.Limits(batchBytes: 10_000, batchRecords: 10)
        for tag in 0..<2 as Range<UInt64> {
            partition.batch(for: 64, limits, nowNs: 0).append(
                key: nil, value: nil, headers: RecordHeaders(), timestampMs: 0, tag: tag)
            #expect(partition.send(identity).sequence == (tag == 0 ? .max : 0))
            #expect(partition.answered(error: 0) == .written)
        }
    }

    @Test func `what is too old is given up, and a gap is told`() {
        var partition = OutgoingPartition(isPatient: false)
        let limits = OutgoingPartition.Limits(batchBytes: 10_000, batchRecords: 1)
        for tag in 0..<3 as Range<UInt64> {
            partition.batch(for: 64, limits, nowNs: tag * 10).append(
                key: nil, value: nil, headers: RecordHeaders(), timestampMs: 0, tag: tag)
        }
        _ = partition.send(ProducerIdentity(id: 1, epoch: 0))
        let young = partition.expire(before: 15)
        #expect(young.batches.map(\.tags) == [[1]])
        #expect(!young.leavesGap)
        partition.lost()
        let old = partition.expire(before: 15)
        #expect(old.batches.map(\.tags) == [[0]])
        #expect(old.leavesGap)
        #expect(partition.takeAll().map(\.tags) == [[2]])
    }
}

/// Answers come from the network.
@Suite struct DirectAnswersTests {
    private func produceAnswer() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(Int32(1))
        bytes += [0, 1, 0x74]
        bytes.appendBigEndian(Int32(1))
        bytes.appendBigEndian(Int32(3))
        bytes.appendBigEndian(Int16(6))
        for value in [77, -1, 0] as [Int64] { bytes.appendBigEndian(value) }
        bytes.appendBigEndian(Int32(0))
        return bytes
    }

    private func metadataAnswer() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(Int32(0))
        bytes.appendBigEndian(Int32(1))
        bytes.appendBigEndian(Int32(9))
        bytes += [0, 2, 0x68, 0x69]
        bytes.appendBigEndian(Int32(9092))
        bytes += [0xff, 0xff, 0xff, 0xff]
        bytes.appendBigEndian(Int32(9))
        bytes.appendBigEndian(Int32(1))
        bytes += [0, 0, 0, 1, 0x74, 0]
        bytes.appendBigEndian(Int32(1))
        bytes += [0, 0]
        for value in [2, 9, 1, 9, 0] as [Int32] { bytes.appendBigEndian(value) }
        return bytes
    }

    @Test func `answers are read as the protocol says`() throws {
        let produced = produceAnswer()
        var reader = AnswerReader(produced.span)
        #expect(
            try ProduceAnswer.read(&reader, version: 7)
                == [ProduceAnswer(topic: "t", partition: 3, error: 6, baseOffset: 77, appendTimeMs: -1)])
        let described = metadataAnswer()
        var other = AnswerReader(described.span)
        let metadata = try MetadataAnswer(&other, version: 4)
        #expect(metadata.brokers == [.init(id: 9, host: "hi", port: 9092)])
        #expect(metadata.topics == [.init(error: 0, name: "t", partitions: [.init(error: 0, index: 2, leader: 9)])])
    }

    @Test func `hostile answers are refused or read, and never more than that`() {
        var random = SeededGenerator.announced(#function)
        for _ in 0..<20_000 {
            let bytes = Mutation.of(Bool.random(using: &random) ? produceAnswer() : metadataAnswer(), &random)
            var first = AnswerReader(bytes.span)
            _ = try? ProduceAnswer.read(&first, version: 7)
            var second = AnswerReader(bytes.span)
            _ = try? MetadataAnswer(&second, version: 4)
            var third = AnswerReader(bytes.span)
            _ = try? IdentityAnswer(&third)
            var fourth = AnswerReader(bytes.span)
            _ = try? SpokenVersions(&fourth)
        }
    }
}
