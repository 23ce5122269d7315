import Testing
import Wire

@testable import Broker

@Suite struct RecordBatchTests {
    /// One record with key `k` and value `value`, written out from the format's description; length and checksum missing.
    private static let golden: [UInt8] = {
        let hex = """
            0000000000000000 00000041 00000000 02 00000000 0000 00000000 0000018bcfe56800 0000018bcfe56800
            ffffffffffffffff ffff ffffffff 00000001 18 00 00 00 02 6b 0a 76616c7565 00
            """.filter { $0.isHexDigit }
        var bytes: [UInt8] = []
        var rest = Substring(hex)
        while let byte = UInt8(rest.prefix(2), radix: 16) {
            bytes.append(byte)
            rest = rest.dropFirst(2)
        }
        return bytes
    }()

    @Test func `the builder writes what the format prescribes, byte for byte`() {
        var expected = Self.golden
        expected.setBigEndian(Int32(expected.count - 12), at: 8)
        Batches.seal(&expected)
        #expect(Batches.batch([(key: "k", value: "value")], timestamp: 1_700_000_000_000) == expected)
    }

    @Test func `a header is read field by field`() throws {
        var bytes = Batches.batch(
            [(key: "a", value: "1"), (key: "b", value: nil)], timestamp: 77, producer: 9, epoch: 3, sequence: 41)
        RecordBatch.place(&bytes, at: 0, baseOffset: 1234, leaderEpoch: 0)
        let batch = try RecordBatch(verifying: bytes.span)
        #expect(batch.baseOffset == 1234)
        #expect(batch.lastOffset == 1235)
        #expect(batch.nextOffset == 1236)
        #expect(batch.recordCount == 2)
        #expect(batch.producerID == 9)
        #expect(batch.producerEpoch == 3)
        #expect(batch.baseSequence == 41)
        #expect(batch.lastSequence == 42)
        #expect(batch.maxTimestamp == 77)
        #expect(batch.size == bytes.count)
        #expect(batch.isWellFormedFromProducer)
    }

    @Test func `every cut of a batch is incomplete, and no flipped bit under the checksum passes`() {
        let bytes = Batches.batch(values: ["one", "two", "three"])
        for count in 0..<bytes.count {
            #expect(throws: RecordBatch.Malformed.incomplete) {
                try RecordBatch(verifying: bytes.span.extracting(0..<count))
            }
        }
        for index in 16..<bytes.count {
            for bit in 0..<8 {
                var broken = bytes
                broken[index] ^= 1 << UInt8(bit)
                #expect(throws: RecordBatch.Malformed.self) { try RecordBatch(verifying: broken.span) }
            }
        }
    }

    @Test func `placing a batch leaves its checksum right, stamping it makes a new one`() throws {
        var bytes = Batches.batch(values: ["x"], timestamp: 5)
        let before = try RecordBatch(verifying: bytes.span).checksum
        RecordBatch.place(&bytes, at: 0, baseOffset: 1 << 40, leaderEpoch: 7)
        #expect(try RecordBatch(verifying: bytes.span).checksum == before)
        RecordBatch.stampAppendTime(&bytes, at: 0, size: bytes.count, timestamp: 99)
        let stamped = try RecordBatch(verifying: bytes.span)
        #expect(stamped.usesLogAppendTime)
        #expect(stamped.maxTimestamp == 99)
        #expect(stamped.baseTimestamp == 5)
    }

    @Test func `sequence numbers wrap to zero`() {
        #expect(RecordBatch.sequence(Int32.max, plus: 1) == 0)
        #expect(RecordBatch.sequence(Int32.max - 1, plus: 4) == 2)
    }

    @Test func `records with hostile lengths are refused, not read`() {
        for bytes: [UInt8] in [
            [], [0], [2], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], [10, 0, 0, 0, 20, 0],
            [12, 0, 0, 0, 0x80, 0x80], [4, 0, 0],
        ] {
            #expect(Record(bytes.span, at: 0) == nil)
        }
    }
}
