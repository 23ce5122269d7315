internal import System
import Wire

/// The header of a record batch (message format v2), the unit that is produced, stored and fetched.
///
///     offset  0  base offset          int64   ┐ filled in by the broker; not under the checksum
///             8  length after here    int32   │
///            12  leader epoch         int32   ┘
///            16  magic = 2            int8
///            17  CRC-32C of the rest  uint32
///            21  attributes           int16   bits 0–2 codec, 3 LogAppendTime, 4 transactional, 5 control
///            23  last offset delta    int32
///            27  base timestamp       int64
///            35  max timestamp        int64
///            43  producer id          int64   −1 when not idempotent
///            51  producer epoch       int16
///            53  base sequence        int32
///            57  record count         int32
///            61  records
///
/// The records themselves are never decoded on the way in or out, so any codec passes.
struct RecordBatch: Equatable {
    static let headerSize = 61
    /// Base offset and length: what precedes the counted bytes.
    static let lengthOverhead = 12

    var baseOffset: Int64
    /// Of the whole batch, header included.
    var size: Int
    /// Of the leader that took it; a producer's says nothing.
    var leaderEpoch: Int32
    var checksum: UInt32
    var attributes: Int16
    var lastOffsetDelta: Int32
    var baseTimestamp: Int64
    var maxTimestamp: Int64
    var producerID: Int64
    var producerEpoch: Int16
    var baseSequence: Int32
    var recordCount: Int32

    var codec: Codec? { Codec(rawValue: UInt8(attributes & 7)) }
    var usesLogAppendTime: Bool { attributes & 0x08 != 0 }
    var isTransactional: Bool { attributes & 0x10 != 0 }
    var isControl: Bool { attributes & 0x20 != 0 }
    var lastOffset: Int64 { baseOffset + Int64(lastOffsetDelta) }
    var nextOffset: Int64 { lastOffset + 1 }
    /// The sequence number of the last record; sequences wrap from the largest int32 to zero.
    var lastSequence: Int32 { Self.sequence(baseSequence, plus: lastOffsetDelta) }

    static func sequence(_ base: Int32, plus delta: Int32) -> Int32 {
        Int32(truncatingIfNeeded: (Int64(base) + Int64(delta)) & 0x7fff_ffff)
    }

    enum Malformed: Error, Equatable {
        /// The bytes end before the batch does: a torn tail, or a fetch cut short.
        case incomplete
        case badLength(Int32)
        case badMagic(Int8)
        case badChecksum
        case badCounts
    }

    /// Reads a header that starts `bytes`; the records behind it need not be there.
    init(header bytes: Span<UInt8>) throws(Malformed) {
        guard bytes.count >= Self.headerSize else { throw .incomplete }
        let length: Int32 = bytes.bigEndian(at: 8)
        let magic: Int8 = bytes.bigEndian(at: 16)
        guard magic == 2 else { throw .badMagic(magic) }
        guard length >= Self.headerSize - Self.lengthOverhead else { throw .badLength(length) }
        baseOffset = bytes.bigEndian(at: 0)
        size = Int(length) + Self.lengthOverhead
        leaderEpoch = bytes.bigEndian(at: 12)
        checksum = bytes.bigEndian(at: 17)
        attributes = bytes.bigEndian(at: 21)
        lastOffsetDelta = bytes.bigEndian(at: 23)
        baseTimestamp = bytes.bigEndian(at: 27)
        maxTimestamp = bytes.bigEndian(at: 35)
        producerID = bytes.bigEndian(at: 43)
        producerEpoch = bytes.bigEndian(at: 51)
        baseSequence = bytes.bigEndian(at: 53)
        recordCount = bytes.bigEndian(at: 57)
        guard lastOffsetDelta >= 0, recordCount >= 0, baseOffset >= 0, baseOffset <= Int64.max - 0x8000_0000 else {
            throw .badCounts
        }
    }

    /// Reads a whole batch and checks its checksum.
    init(verifying bytes: Span<UInt8>) throws(Malformed) {
        try self.init(header: bytes)
        guard size <= bytes.count else { throw .incomplete }
        guard CRC32C.checksum(bytes.extracting(21..<size)) == checksum else { throw .badChecksum }
    }

    /// What a producer's batch must keep beyond its checksum: dense offsets from zero and a producer who says who it is.
    var isWellFormedFromProducer: Bool {
        recordCount > 0 && lastOffsetDelta == recordCount - 1 && codec != nil && !isControl
            && (producerID < 0 || (producerEpoch >= 0 && baseSequence >= 0))
    }

    /// Gives the batch that starts at `start` its place in the log, without touching what the checksum covers.
    static func place(_ bytes: inout [UInt8], at start: Int, baseOffset: Int64, leaderEpoch: Int32) {
        bytes.setBigEndian(baseOffset, at: start)
        bytes.setBigEndian(leaderEpoch, at: start + 12)
    }

    /// Stamps the batch with the time of its arrival; the only change that needs a new checksum.
    static func stampAppendTime(_ bytes: inout [UInt8], at start: Int, size: Int, timestamp: Int64) {
        let attributes: Int16 = bytes.span.bigEndian(at: start + 21)
        bytes.setBigEndian(attributes | 0x08, at: start + 21)
        bytes.setBigEndian(timestamp, at: start + 35)
        bytes.setBigEndian(CRC32C.checksum(bytes.span.extracting(start + 21..<start + size)), at: start + 17)
    }
}
