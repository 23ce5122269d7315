internal import System
internal import Wire

/// A record batch (message format 2) in the making, and then on its way: the unit that is sent, acknowledged and sent
/// again. Records are encoded as they come; the header is filled in when the batch is first sent.
///
///     offset  0  base offset int64 · length int32 · leader epoch int32 · magic int8 · CRC-32C uint32 of all behind it
///            21  attributes int16 · last offset delta int32 · base and max timestamp int64
///            43  producer id int64 · producer epoch int16 · base sequence int32 · record count int32
///            61  records: length · attributes · timestamp delta · offset delta · key · value · headers, with varints
final class OutgoingBatch {
    static let headerBytes = 61

    private(set) var bytes: [UInt8]
    /// The callers' marks of the records, in their order.
    private(set) var tags: [UInt64] = []
    private(set) var timestamps: [Int64] = []
    /// What its callers count: keys, values and headers.
    private(set) var payloadBytes = 0
    let createdNs: UInt64
    /// The number of the first record within its partition, from when it is first sent until its producer gets another
    /// identity.
    private(set) var sequence: Int32?
    /// It is as it was sent: nothing is added to it.
    private(set) var wasSent = false
    /// It may be in the log, whatever the next answer is: an answer was lost, or did not say.
    private(set) var isUncertain = false
    /// It may be in the log under its former numbers, too, by which no broker knows it again.
    private(set) var mayBeRepeated = false

    init(nowNs: UInt64) {
        createdNs = nowNs
        bytes = [UInt8](repeating: 0, count: Self.headerBytes)
    }

    var count: Int { tags.count }

    func append(
        key: Span<UInt8>?, value: Span<UInt8>?, headers: borrowing RecordHeaders, timestampMs: Int64, tag: UInt64
    ) {
        let timestampDelta = timestampMs - (timestamps.first ?? timestampMs)
        let offsetDelta = Int64(tags.count)
        let entries = headers.entries
        var size = 1 + varintBytes(timestampDelta) + varintBytes(offsetDelta) + varintBytes(Int64(entries.count))
        size += Self.fieldBytes(key?.count) + Self.fieldBytes(value?.count)
        for entry in entries {
            size += Self.fieldBytes(entry.nameCount) + Self.fieldBytes(entry.valueCount < 0 ? nil : entry.valueCount)
        }
        bytes.appendZigzag(Int64(size))
        bytes.append(0)
        bytes.appendZigzag(timestampDelta)
        bytes.appendZigzag(offsetDelta)
        append(key)
        append(value)
        bytes.appendZigzag(Int64(entries.count))
        let source = headers.bytes
        for entry in entries {
            append(source, entry.nameStart, entry.nameCount)
            append(source, entry.valueStart, entry.valueCount)
        }
        tags.append(tag)
        timestamps.append(timestampMs)
        payloadBytes += (key?.count ?? 0) + (value?.count ?? 0) + headers.bytes.count
    }

    private func append(_ field: Span<UInt8>?) {
        guard let field else { return bytes.appendZigzag(-1) }
        bytes.appendZigzag(Int64(field.count))
        bytes.append(field)
    }

    private func append(_ source: [UInt8], _ start: Int, _ count: Int) {
        bytes.appendZigzag(Int64(count))
        if count > 0 { bytes.append(contentsOf: source[start..<start + count]) }
    }

    private static func fieldBytes(_ count: Int?) -> Int {
        guard let count else { return 1 }
        return varintBytes(Int64(count)) + count
    }

    /// Makes the batch ready to be sent. Sent again, it stays what it was, so that the broker knows it again.
    func seal(_ identity: ProducerIdentity, sequence: Int32) {
        wasSent = true
        guard self.sequence == nil else { return }
        self.sequence = sequence
        // In a variable of its own: a span of a class's array does not leave the optimizer of Swift 6.3.1 alone.
        var sealed: [UInt8] = []
        swap(&sealed, &bytes)
        sealed.setBigEndian(Int32(sealed.count - 12), at: 8)
        sealed[16] = 2
        sealed.setBigEndian(Int32(count - 1), at: 23)
        sealed.setBigEndian(timestamps[0], at: 27)
        sealed.setBigEndian(timestamps.max() ?? timestamps[0], at: 35)
        sealed.setBigEndian(identity.id, at: 43)
        sealed.setBigEndian(identity.epoch, at: 51)
        sealed.setBigEndian(sequence, at: 53)
        sealed.setBigEndian(Int32(count), at: 57)
        let checksum = CRC32C.checksum(sealed.span.extracting(21..<sealed.count))
        sealed.setBigEndian(checksum, at: 17)
        swap(&sealed, &bytes)
    }

    func becomeUncertain() { isUncertain = true }

    /// Its numbers were those of an identity or epoch that is no more.
    func forgetSequence() {
        sequence = nil
        if isUncertain { mayBeRepeated = true }
    }

    /// The same records in batches of one, for a topic that takes no batch as large as this one.
    func split() -> [OutgoingBatch] {
        let records = bytes
        var position = Self.headerBytes
        var singles: [OutgoingBatch] = []
        for index in tags.indices {
            let single = OutgoingBatch(nowNs: createdNs)
            guard let size = records.span.checkedVarint(at: &position, end: records.count) else {
                preconditionFailure("what was written here can be read")
            }
            var body = position
            position += Int(size)
            // Behind the attributes stand the two deltas, which are zero in a batch of one.
            body += 1
            _ = records.span.checkedVarint(at: &body, end: records.count)
            _ = records.span.checkedVarint(at: &body, end: records.count)
            single.bytes.appendZigzag(Int64(3 + position - body))
            single.bytes.append(contentsOf: [0, 0, 0])
            single.bytes.append(contentsOf: records[body..<position])
            single.tags = [tags[index]]
            single.timestamps = [timestamps[index]]
            single.wasSent = wasSent
            (single.isUncertain, single.mayBeRepeated) = (isUncertain, isUncertain)
            // The last one counts what is left, so that the sum is right.
            let share = payloadBytes / count
            single.payloadBytes = index == count - 1 ? payloadBytes - share * index : share
            singles.append(single)
        }
        return singles
    }
}

extension RecordHeaders.Entry {
    /// Without the NUL that ends it for librdkafka.
    var nameCount: Int { valueStart - nameStart - 1 }
}

/// How many bytes a zigzag varint takes.
private func varintBytes(_ value: Int64) -> Int {
    let bits = 64 - UInt64(bitPattern: value << 1 ^ value >> 63).leadingZeroBitCount
    return max(1, (bits + 6) / 7)
}
