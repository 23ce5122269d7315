import System
import Wire

@testable import KafkaClient

/// A record batch as a broker would send it, with whatever a test wants to be in it.
struct EncodedBatch {
    var base: Int64
    var last: Int64
    var offsets: [Int64]
    var value: (Int64) -> [UInt8] = { Array("\($0)".utf8) }
    var codec = Codec.none
    var attributes: UInt16 = 0
    var producerID: Int64 = -1
    var baseTimestamp: Int64 = 1000
    var maxTimestamp: Int64 = 2000
    var leaderEpoch: Int32 = 0
    /// In place of the key that a record has otherwise, which is none.
    var key: [UInt8]?

    /// The end of a transaction.
    static func marker(_ offset: Int64, producerID: Int64, isCommit: Bool) -> EncodedBatch {
        var batch = EncodedBatch(base: offset, last: offset, offsets: [offset])
        (batch.attributes, batch.producerID) = (0x30, producerID)
        batch.key = [0, 0, 0, isCommit ? 1 : 0]
        return batch
    }

    var bytes: [UInt8] {
        var records: [UInt8] = []
        for offset in offsets {
            var record: [UInt8] = [0]
            record.appendZigzag(offset - base)
            record.appendZigzag(offset - base)
            record.appendZigzag(Int64(key?.count ?? -1))
            record += key ?? []
            let value = value(offset)
            record.appendZigzag(Int64(value.count))
            record += value
            record.appendZigzag(1)
            record.appendZigzag(1)
            record += Array("h".utf8)
            record.appendZigzag(-1)
            records.appendZigzag(Int64(record.count))
            records += record
        }
        // What cannot be compressed is not a test's fault.
        let content = codec == .none ? records : (try? codec.compress(records)) ?? []
        var covered: [UInt8] = []
        covered.appendBigEndian(attributes | UInt16(codec.rawValue))
        covered.appendBigEndian(Int32(last - base))
        covered.appendBigEndian(baseTimestamp)
        covered.appendBigEndian(maxTimestamp)
        covered.appendBigEndian(producerID)
        covered.appendBigEndian(-1 as Int16)
        covered.appendBigEndian(-1 as Int32)
        covered.appendBigEndian(Int32(offsets.count))
        covered += content
        var bytes: [UInt8] = []
        bytes.appendBigEndian(base)
        bytes.appendBigEndian(Int32(covered.count + 9))
        bytes.appendBigEndian(leaderEpoch)
        bytes.append(2)
        bytes.appendBigEndian(CRC32C.checksum(covered.span))
        return bytes + covered
    }
}
