import TestSupport
import Testing
import Wire

@testable import KafkaClient

@Suite struct OutgoingPartitionTests {
    private let identity = ProducerIdentity(id: 1, epoch: 0)

    /// Batches of one record each.
    private func partition(records: UInt64) -> OutgoingPartition {
        var partition = OutgoingPartition(isPatient: false)
        let limits = OutgoingPartition.Limits(batchBytes: 10_000, batchRecords: 1)
        for tag in 0..<records {
            partition.batch(for: 64, limits, nowNs: tag * 10).append(
                key: nil, value: [1].span, headers: RecordHeaders(), timestampMs: 0, tag: tag)
        }
        return partition
    }

    @Test(arguments: [-1, 87, 29] as [Int16])
    func `a refusal after a lost answer keeps the numbers, says maybe, and begins an epoch`(_ error: Int16) {
        var partition = partition(records: 2)
        #expect(partition.send(identity).sequence == 0)
        partition.lost()
        #expect(partition.send(identity).sequence == 0)
        #expect(partition.answered(error: error, baseOffset: -1) == (.refused(mayBeWritten: true), .epoch))
        let next = partition.send(identity)
        #expect(next.tags == [1])
        #expect(next.sequence == 0)
        #expect(partition.identity == ProducerIdentity(id: 1, epoch: 1))
        #expect(next.bytes[51..<53] == [0, 1])
        #expect(partition.answered(error: 0, baseOffset: 5) == (.written, nil))
        #expect(!next.mayBeRepeated)
    }

    @Test(arguments: [7, 20, 6, 56] as [Int16])
    func `a refusal that does not say whether it is written counts as a lost answer`(_ error: Int16) {
        var partition = partition(records: 2)
        _ = partition.send(identity)
        guard case (.again, nil) = partition.answered(error: error, baseOffset: -1) else {
            Issue.record("\(error) does not pass")
            return
        }
        #expect(partition.send(identity).sequence == 0)
        #expect(partition.answered(error: 29, baseOffset: -1) == (.refused(mayBeWritten: true), .epoch))
    }

    @Test func `a refusal of what was never written leaves its numbers to the next`() {
        var partition = partition(records: 2)
        _ = partition.send(identity)
        #expect(partition.answered(error: 19, baseOffset: -1) == (.again(asksLeader: false), nil))
        _ = partition.send(identity)
        #expect(partition.answered(error: 29, baseOffset: -1) == (.refused(mayBeWritten: false), nil))
        #expect(partition.send(identity).sequence == 0)
        #expect(partition.identity == identity)
    }

    @Test(arguments: [45, 59] as [Int16])
    func `numbers that the broker does not expect begin an epoch, in this partition only`(_ error: Int16) {
        var partition = partition(records: 1)
        _ = partition.send(identity)
        #expect(partition.answered(error: error, baseOffset: -1) == (.again(asksLeader: false), .epoch))
        let again = partition.send(identity)
        #expect(again.sequence == 0)
        #expect(!again.mayBeRepeated, "no earlier sending of it can be in the log")
    }

    @Test(arguments: [46, 47, 49, 90] as [Int16])
    func `a duplicate or an older epoch, of a batch sent for the first time, is another producer's: never written`(
        _ error: Int16
    ) {
        var partition = partition(records: 1)
        _ = partition.send(identity)
        #expect(partition.answered(error: error, baseOffset: -1) == (.again(asksLeader: false), .identity))
        partition.startOver()
        let other = ProducerIdentity(id: 9, epoch: 0)
        #expect(partition.send(other).sequence == 0)
        #expect(partition.identity == other)
    }

    @Test func `a place that an earlier record has is not believed`() {
        var partition = partition(records: 2)
        _ = partition.send(identity)
        #expect(partition.answered(error: 0, baseOffset: 100) == (.written, nil))
        _ = partition.send(identity)
        #expect(partition.answered(error: 0, baseOffset: 3) == (.again(asksLeader: false), .identity))
        partition.startOver()
        #expect(partition.send(ProducerIdentity(id: 9, epoch: 0)).mayBeRepeated)
        #expect(partition.answered(error: 0, baseOffset: 4) == (.written, nil))
    }

    @Test func `a lost batch that is too large now goes on as single records that may be repeats`() {
        var partition = OutgoingPartition(isPatient: false)
        let limits = OutgoingPartition.Limits(batchBytes: 10_000, batchRecords: 10)
        for tag in 0..<2 as Range<UInt64> {
            partition.batch(for: 64, limits, nowNs: 0).append(
                key: nil, value: [1].span, headers: RecordHeaders(), timestampMs: 0, tag: tag)
        }
        _ = partition.send(identity)
        partition.lost()
        _ = partition.send(identity)
        #expect(partition.answered(error: 10, baseOffset: -1) == (.again(asksLeader: false), .epoch))
        let single = partition.send(identity)
        #expect(single.tags == [0])
        #expect(single.sequence == 0)
        #expect(single.mayBeRepeated)
        #expect(partition.answered(error: 10, baseOffset: -1) == (.refused(mayBeWritten: true), .epoch))
    }

    @Test func `behind the last epoch there must be another id`() {
        var partition = partition(records: 2)
        _ = partition.send(ProducerIdentity(id: 1, epoch: .max))
        partition.lost()
        _ = partition.send(identity)
        #expect(partition.answered(error: -1, baseOffset: -1) == (.refused(mayBeWritten: true), .identity))
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
        #expect(partition.answered(error: 10, baseOffset: -1) == (.again(asksLeader: false), nil))
        #expect(partition.send(identity).tags == [0])
        #expect(partition.answered(error: 0, baseOffset: 0) == (.written, nil))
        let large = partition.send(identity)
        #expect(large.tags == [1])
        #expect(large.sequence == 1)
        #expect(partition.answered(error: 10, baseOffset: -1) == (.refused(mayBeWritten: false), nil))
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
            #expect(partition.answered(error: 0, baseOffset: Int64(tag)) == (.written, nil))
        }
    }

    @Test func `what is too old is given up, and what may be written ends its epoch`() {
        var partition = partition(records: 3)
        _ = partition.send(identity)
        let young = partition.expire(before: 15)
        #expect(young.batches.map(\.tags) == [[1]])
        #expect(young.begins == nil)
        #expect(!young.batches[0].isUncertain)
        partition.lost()
        let old = partition.expire(before: 15)
        #expect(old.batches.map(\.tags) == [[0]])
        #expect(old.batches[0].isUncertain)
        #expect(old.begins == .epoch)
        #expect(partition.send(identity).sequence == 0)
        let rest = partition.takeAll()
        #expect(rest.map(\.tags) == [[2]])
        #expect(rest[0].isUncertain, "it is under way")
    }

    @Test func `what was refused for now and certainly is not written is given up without an epoch`() {
        var partition = partition(records: 2)
        _ = partition.send(identity)
        _ = partition.answered(error: 19, baseOffset: -1)
        let old = partition.expire(before: 5)
        #expect(old.batches.map(\.isUncertain) == [false])
        #expect(old.begins == nil)
        #expect(partition.send(identity).sequence == 0)
        #expect(partition.identity == identity)
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
