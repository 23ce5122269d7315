import Testing

@testable import Broker

@Suite struct ProducerTableTests {
    private func batch(
        _ sequence: Int32, _ count: Int32, at offset: Int64 = 0, producer: Int64 = 1, epoch: Int16 = 0
    ) throws -> RecordBatch {
        let bytes = Batches.placed(
            Batches.batch(
                (0..<count).map { (key: nil, value: "\($0)") }, producer: producer, epoch: epoch, sequence: sequence),
            at: offset)
        return try RecordBatch(verifying: bytes.span)
    }

    @Test func `batches in order are appended, the last five again are duplicates of themselves`() throws {
        var table = ProducerTable()
        var sent: [RecordBatch] = []
        for index in 0..<7 {
            let next = try batch(Int32(index * 3), 3, at: Int64(index * 3))
            #expect(table.check(next) == .append)
            table.record(next, nowMs: 0)
            sent.append(next)
        }
        for known in sent.suffix(5) {
            guard case .duplicate(let found) = table.check(known) else {
                Issue.record("\(known.baseSequence) is not known")
                continue
            }
            #expect(found.firstOffset == known.baseOffset)
        }
        for forgotten in sent.prefix(2) { #expect(table.check(forgotten) == .refuse(.outOfOrderSequenceNumber)) }
    }

    @Test func `a gap is out of order, and so is half of a known batch`() throws {
        var table = ProducerTable()
        table.record(try batch(0, 10), nowMs: 0)
        #expect(table.check(try batch(11, 1)) == .refuse(.outOfOrderSequenceNumber))
        #expect(table.check(try batch(5, 10)) == .refuse(.outOfOrderSequenceNumber))
    }

    @Test func `numbering goes on over the wrap`() throws {
        var table = ProducerTable()
        table.record(try batch(Int32.max - 1, 2), nowMs: 0)
        #expect(table.check(try batch(0, 3)) == .append)
        table.record(try batch(Int32.max - 1, 4), nowMs: 0)
        #expect(table.check(try batch(2, 1)) == .append)
    }

    @Test func `an older epoch is fenced, a newer one starts at zero`() throws {
        var table = ProducerTable()
        table.record(try batch(0, 1, epoch: 5), nowMs: 0)
        #expect(table.check(try batch(1, 1, epoch: 4)) == .refuse(.invalidProducerEpoch))
        #expect(table.check(try batch(1, 1, epoch: 6)) == .refuse(.outOfOrderSequenceNumber))
        #expect(table.check(try batch(0, 1, epoch: 6)) == .append)
    }

    @Test func `a producer that is not known may go on from anywhere`() throws {
        #expect(ProducerTable().check(try batch(500, 1)) == .append)
    }

    @Test func `what is cut off the log is forgotten, so a retry of it is appended`() throws {
        var table = ProducerTable()
        table.record(try batch(0, 2, at: 10), nowMs: 0)
        table.record(try batch(2, 2, at: 12), nowMs: 0)
        table.truncate(to: 12)
        #expect(table.check(try batch(2, 2)) == .append)
        guard case .duplicate = table.check(try batch(0, 2)) else {
            Issue.record("what was kept is forgotten")
            return
        }
        table.truncate(to: 0)
        #expect(table.producers.isEmpty)
    }

    @Test func `silent producers expire`() throws {
        var table = ProducerTable()
        table.record(try batch(0, 1, producer: 1), nowMs: 100)
        table.record(try batch(0, 1, producer: 2), nowMs: 200)
        table.expire(before: 150)
        #expect(Array(table.producers.keys) == [2])
    }
}
