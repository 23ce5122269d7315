internal import System
internal import Wire

/// The header of a record batch (message format 2; its layout is at `OutgoingBatch`), as it comes from the network.
struct IncomingBatch: Equatable {
    static let headerBytes = 61
    private static let format: Int8 = 2

    var baseOffset: Int64
    var lastOffset: Int64
    /// Where its records lie.
    var records: Range<Int>
    var codec: UInt8
    var hasLogAppendTime: Bool
    var isTransactional: Bool
    var isControl: Bool
    /// Of the leader that took it.
    var leaderEpoch: Int32
    var baseTimestamp: Int64
    var maxTimestamp: Int64
    var producerID: Int64
    var recordCount: Int

    /// What stands at a place of an answer where a batch should.
    enum Reading: Equatable {
        case batch(IncomingBatch)
        /// The rest is the beginning of a batch: answers may be cut off anywhere.
        case cutOff
        /// A whole batch by its length, that is not what it should be.
        case corrupt
        /// A batch of a format that went with Apache Kafka 0.11.
        case old
        /// Nothing that a batch could begin with.
        case nonsense
    }

    /// Reads the batch at `position` of `bytes`, which end at `end`. `comparesChecksum`: not for what was read before.
    static func read(
        _ bytes: Span<UInt8>, at position: Int, end: Int, comparesChecksum: Bool = true
    ) -> Reading {
        guard end - position >= 17 else { return .cutOff }
        let baseOffset: Int64 = bytes.bigEndian(at: position)
        let length = Int(bytes.bigEndian(at: position + 8) as Int32)
        guard baseOffset >= 0, length > 0 else { return .nonsense }
        let format: Int8 = bytes.bigEndian(at: position + 16)
        guard format == Self.format else { return format < Self.format && format >= 0 ? .old : .nonsense }
        guard length >= headerBytes - 12 else { return .nonsense }
        guard length <= end - position - 12 else { return .cutOff }
        let size = length + 12
        let delta = bytes.bigEndian(at: position + 23) as Int32
        let (lastOffset, overflows) = baseOffset.addingReportingOverflow(Int64(delta))
        guard delta >= 0, !overflows, lastOffset < .max else { return .corrupt }
        let checksum: UInt32 = bytes.bigEndian(at: position + 17)
        guard !comparesChecksum || CRC32C.checksum(bytes.extracting(position + 21..<position + size)) == checksum else {
            return .corrupt
        }
        let attributes: UInt16 = bytes.bigEndian(at: position + 21)
        let count = Int(bytes.bigEndian(at: position + 57) as Int32)
        guard count >= 0 else { return .corrupt }
        return .batch(
            IncomingBatch(
                baseOffset: baseOffset, lastOffset: lastOffset, records: position + headerBytes..<position + size,
                codec: UInt8(attributes & 7), hasLogAppendTime: attributes & 8 != 0,
                isTransactional: attributes & 16 != 0, isControl: attributes & 32 != 0,
                leaderEpoch: bytes.bigEndian(at: position + 12),
                baseTimestamp: bytes.bigEndian(at: position + 27), maxTimestamp: bytes.bigEndian(at: position + 35),
                producerID: bytes.bigEndian(at: position + 43), recordCount: count))
    }
}

extension IncomingBatch {
    /// Where the log goes on behind a damaged batch at `position`: the base offset of the first whole batch. What the
    /// damaged one says of its own length may be what is damaged, so it is tried first, and then every place.
    static func baseOffset(
        behind position: Int, in bytes: Span<UInt8>, end: Int, within offsets: Range<Int64>
    ) -> Int64? {
        func base(at place: Int) -> Int64? {
            guard place > position, end - place >= headerBytes, bytes[place + 16] == UInt8(format),
                offsets.contains(bytes.bigEndian(at: place)),
                case .batch(let batch) = read(bytes, at: place, end: end)
            else { return nil }
            return batch.baseOffset
        }
        if end - position >= 12 {
            let length = Int(bytes.bigEndian(at: position + 8) as Int32)
            if let told = base(at: position + 12 + length) { return told }
        }
        for place in stride(from: position + 1, to: end, by: 1) {
            if let found = base(at: place) { return found }
        }
        return nil
    }
}

/// Where the parts of one record lie within its batch's records.
struct IncomingRecord: Equatable {
    var offsetDelta: Int64
    var timestampDelta: Int64
    /// nil is none, which is not an empty one.
    var key: Range<Int>?
    var value: Range<Int>?
    var headerCount: Int
    /// What stands behind the count of headers.
    var headers: Range<Int>

    /// The record at `position`, which moves behind it; nil when there is no such thing.
    static func read(_ bytes: Span<UInt8>, at position: inout Int) -> IncomingRecord? {
        guard let size = bytes.checkedVarint(at: &position, end: bytes.count), size > 0,
            size <= Int64(bytes.count - position)
        else { return nil }
        let end = position + Int(size)
        var place = position + 1
        guard let timestampDelta = bytes.checkedVarint(at: &place, end: end),
            let offsetDelta = bytes.checkedVarint(at: &place, end: end),
            let key = field(bytes, at: &place, end: end), let value = field(bytes, at: &place, end: end),
            let headerCount = bytes.checkedVarint(at: &place, end: end), headerCount >= 0,
            headerCount <= Int64(end - place)
        else { return nil }
        position = end
        return IncomingRecord(
            offsetDelta: offsetDelta, timestampDelta: timestampDelta, key: key.range, value: value.range,
            headerCount: Int(headerCount), headers: place..<end)
    }

    struct Field {
        var range: Range<Int>?
    }

    /// A key, a value, or a header's: behind its length, which is negative when there is none.
    static func field(_ bytes: Span<UInt8>, at position: inout Int, end: Int) -> Field? {
        guard let count = bytes.checkedVarint(at: &position, end: end) else { return nil }
        if count < 0 { return Field(range: nil) }
        guard count <= Int64(end - position) else { return nil }
        defer { position += Int(count) }
        return Field(range: position..<position + Int(count))
    }
}

extension Span<UInt8> {
    /// A zigzag varint of anybody's writing; nil when it does not end before `end`, or does not fit.
    func checkedVarint(at position: inout Int, end: Int) -> Int64? {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while position < end, shift < 64 {
            let byte = self[position]
            position += 1
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1) }
            shift += 7
        }
        return nil
    }
}
