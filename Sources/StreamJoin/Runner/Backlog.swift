import Wire

/// Records of one topic partition that have been read and cannot be taken yet: copies, in their order.
struct Backlog {
    private struct Entry {
        var offset: Int64
        var timestampMs: Int64
        var key: Range<Int>?
        var value: Range<Int>?
    }

    private var bytes: [UInt8] = []
    private var entries: [Entry] = []
    private var first = 0

    var isEmpty: Bool { first == entries.count }
    var byteCount: Int { bytes.count }

    mutating func append(key: Span<UInt8>?, value: Span<UInt8>?, offset: Int64, timestampMs: Int64) {
        entries.append(
            Entry(offset: offset, timestampMs: timestampMs, key: copy(key), value: copy(value)))
    }

    private mutating func copy(_ span: Span<UInt8>?) -> Range<Int>? {
        guard let span else { return nil }
        let start = bytes.count
        bytes.append(span)
        return start..<bytes.count
    }

    /// Offers the records in their order until one is not taken.
    mutating func drain(
        _ take: (_ key: Span<UInt8>?, _ value: Span<UInt8>?, _ offset: Int64, _ timestampMs: Int64) -> Bool
    ) {
        while first < entries.count {
            let entry = entries[first]
            let isTaken: Bool
            switch (entry.key, entry.value) {
            case (let key?, let value?):
                let bytes = bytes.span
                isTaken = take(bytes.extracting(key), bytes.extracting(value), entry.offset, entry.timestampMs)
            case (let key?, nil):
                isTaken = take(bytes.span.extracting(key), nil, entry.offset, entry.timestampMs)
            case (nil, let value?):
                isTaken = take(nil, bytes.span.extracting(value), entry.offset, entry.timestampMs)
            case (nil, nil): isTaken = take(nil, nil, entry.offset, entry.timestampMs)
            }
            guard isTaken else { return }
            first += 1
        }
        entries.removeAll(keepingCapacity: true)
        bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 20)
        first = 0
    }
}
