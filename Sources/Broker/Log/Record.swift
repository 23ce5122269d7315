internal import System
import Wire

/// One record inside a batch. The broker looks at records only to compact a topic, to answer for a timestamp, and for
/// its own records of groups and offsets.
///
///     length varint · attributes int8 · timestamp delta varlong · offset delta varint
///     key length varint (−1 = null) · key · value length varint (−1 = tombstone) · value · header count · headers
struct Record {
    var offsetDelta: Int32
    var timestampDelta: Int64
    /// Inside the span that was decoded.
    var key: Range<Int>?
    var value: Range<Int>?
    /// The whole record with its length, inside the span that was decoded.
    var range: Range<Int>

    /// Decodes the record at `position`, or returns `nil` where there is none.
    init?(_ bytes: Span<UInt8>, at position: Int) {
        var reader = VarintReader(bytes, position)
        guard let length = reader.next(), length > 0, length <= Int64(bytes.count - reader.position) else { return nil }
        let end = reader.position + Int(length)
        range = position..<end
        reader.position += 1
        guard let timestamp = reader.next(), let offset = reader.next(), let offset = Int32(exactly: offset),
            offset >= 0
        else { return nil }
        timestampDelta = timestamp
        offsetDelta = offset
        guard let key = reader.bytes(before: end), let value = reader.bytes(before: end) else { return nil }
        self.key = key.range
        self.value = value.range
    }

    private struct VarintReader: ~Escapable {
        let source: Span<UInt8>
        var position: Int

        @_lifetime(copy source)
        init(_ source: Span<UInt8>, _ position: Int) {
            self.source = source
            self.position = position
        }

        /// A zigzag varint.
        mutating func next() -> Int64? {
            var value: UInt64 = 0
            var shift: UInt64 = 0
            while position < source.count, shift < 70 {
                let byte = source[position]
                position += 1
                value |= UInt64(byte & 0x7f) << shift
                if byte < 0x80 { return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1) }
                shift += 7
            }
            return nil
        }

        struct Bytes {
            var range: Range<Int>?
        }

        mutating func bytes(before end: Int) -> Bytes? {
            guard let length = next() else { return nil }
            if length == -1 { return Bytes(range: nil) }
            guard length >= 0, length <= Int64(end - position), position <= end else { return nil }
            defer { position += Int(length) }
            return Bytes(range: position..<position + Int(length))
        }
    }
}

/// Builds an uncompressed batch of the broker's own records.
struct RecordBatchBuilder {
    private var records: [UInt8] = []
    private var count: Int32 = 0
    private let timestamp: Int64

    init(timestamp: Int64) { self.timestamp = timestamp }

    mutating func add(key: [UInt8]?, value: [UInt8]?) {
        var record: [UInt8] = [0]
        record.appendZigzag(0)
        record.appendZigzag(Int64(count))
        for field in [key, value] {
            record.appendZigzag(field.map { Int64($0.count) } ?? -1)
            record += field ?? []
        }
        record.appendZigzag(0)
        records.appendZigzag(Int64(record.count))
        records += record
        count += 1
    }

    func batch() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(RecordBatch.headerSize + records.count)
        bytes.appendBigEndian(Int64(0))
        bytes.appendBigEndian(Int32(RecordBatch.headerSize - RecordBatch.lengthOverhead + records.count))
        bytes.appendBigEndian(Int32(0))
        bytes.append(2)
        bytes.appendBigEndian(UInt32(0))
        bytes.appendBigEndian(Int16(0))
        bytes.appendBigEndian(count - 1)
        bytes.appendBigEndian(timestamp)
        bytes.appendBigEndian(timestamp)
        bytes.appendBigEndian(Int64(-1))
        bytes.appendBigEndian(Int16(-1))
        bytes.appendBigEndian(Int32(-1))
        bytes.appendBigEndian(count)
        bytes += records
        bytes.setBigEndian(CRC32C.checksum(bytes.span.extracting(21..<bytes.count)), at: 17)
        return bytes
    }
}
