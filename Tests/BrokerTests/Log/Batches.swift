import System
import Wire

@testable import Broker

/// Makes batches as a producer would.
enum Batches {
    /// A batch of records with the given keys and values.
    static func batch(
        _ records: [(key: String?, value: String?)], timestamp: Int64 = 1_000, producer: Int64 = -1, epoch: Int16 = 0,
        sequence: Int32 = 0
    ) -> [UInt8] {
        var builder = RecordBatchBuilder(timestamp: timestamp)
        for record in records {
            builder.add(key: record.key.map { Array($0.utf8) }, value: record.value.map { Array($0.utf8) })
        }
        var bytes = builder.batch()
        if producer >= 0 {
            bytes.setBigEndian(producer, at: 43)
            bytes.setBigEndian(epoch, at: 51)
            bytes.setBigEndian(sequence, at: 53)
            seal(&bytes)
        }
        return bytes
    }

    static func batch(values: [String], timestamp: Int64 = 1_000) -> [UInt8] {
        batch(values.map { (key: nil, value: $0) }, timestamp: timestamp)
    }

    /// Makes the checksum right again after a field was changed.
    static func seal(_ bytes: inout [UInt8]) {
        bytes.setBigEndian(CRC32C.checksum(bytes.span.extracting(21..<bytes.count)), at: 17)
    }

    /// A batch as it lies in a log.
    static func placed(_ bytes: [UInt8], at offset: Int64) -> [UInt8] {
        var bytes = bytes
        RecordBatch.place(&bytes, at: 0, baseOffset: offset, leaderEpoch: 0)
        return bytes
    }

    /// The values in a run of whole batches, with their offsets.
    static func values(_ bytes: [UInt8]) throws -> [(offset: Int64, key: String?, value: String?)] {
        var found: [(offset: Int64, key: String?, value: String?)] = []
        var start = 0
        while start < bytes.count {
            let batch = try RecordBatch(verifying: bytes.span.extracting(start..<bytes.count))
            let records = try batch.records(of: [UInt8](bytes[start..<start + batch.size]))
            var position = 0
            while let record = Record(records.span, at: position) {
                position = record.range.upperBound
                func text(_ range: Range<Int>?) -> String? {
                    range.map { String(decoding: records[$0], as: UTF8.self) }
                }
                found.append((batch.baseOffset + Int64(record.offsetDelta), text(record.key), text(record.value)))
            }
            start += batch.size
        }
        return found
    }
}
