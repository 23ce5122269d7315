internal import Wire

/// Finds a batch in a segment by offset or by time without reading the segment from its start.
///
/// An entry is noted each 32 KiB of log, so a look-up ends with at most that much to scan, and an index costs a 2000th
/// of its log. In the file an entry is 16 bytes, big-endian:
///
///     offset − base  uint32 · position  uint32 · largest timestamp of all batches before this position  int64
///
/// The index of the active segment is in memory. A closed segment's is searched in its file, which ends with an entry
/// for the segment's own end. Index files are hints: what they say is checked against the log, and a missing or torn
/// one only makes a look-up scan.
struct SparseIndex: Equatable {
    struct Entry: Equatable {
        var offset: Int64
        var position: Int
        var maxTimestampBefore: Int64
    }

    static let entrySize = 16
    static let intervalBytes = 32 << 10

    let baseOffset: Int64
    private(set) var entries: [Entry] = []
    /// How many entries the file has already.
    var storedCount = 0

    init(baseOffset: Int64) { self.baseOffset = baseOffset }

    /// Notes a batch that starts at `position` if the last noted one is far enough away.
    mutating func note(offset: Int64, position: Int, maxTimestampBefore: Int64) {
        guard position >= (entries.last?.position ?? 0) + Self.intervalBytes else { return }
        entries.append(Entry(offset: offset, position: position, maxTimestampBefore: maxTimestampBefore))
    }

    mutating func truncate(to position: Int) {
        while let last = entries.last, last.position >= position { entries.removeLast() }
        storedCount = min(storedCount, entries.count)
    }

    /// The last entry that is not after `offset`.
    func floor(offset: Int64) -> Entry? {
        let index = Self.partition(entries.count) { entries[$0].offset <= offset }
        return index == 0 ? nil : entries[index - 1]
    }

    /// The last entry before which everything is older than `timestamp`.
    func floor(timestamp: Int64) -> Entry? {
        let index = Self.partition(entries.count) { entries[$0].maxTimestampBefore < timestamp }
        return index == 0 ? nil : entries[index - 1]
    }

    // MARK: In a file

    mutating func takeUnstored() -> (bytes: [UInt8], fileOffset: Int64)? {
        guard storedCount < entries.count else { return nil }
        var bytes: [UInt8] = []
        for entry in entries[storedCount...] { Self.encode(entry, base: baseOffset, into: &bytes) }
        defer { storedCount = entries.count }
        return (bytes, Int64(storedCount * Self.entrySize))
    }

    /// Restores the index of a segment of which the first `size` bytes are known to be good.
    init(baseOffset: Int64, file: [UInt8], size: Int) {
        self.init(baseOffset: baseOffset)
        var start = 0
        while start + Self.entrySize <= file.count {
            let entry = Self.decode(file.span.extracting(start..<start + Self.entrySize), base: baseOffset)
            guard size > entry.position, entry.position > (entries.last?.position ?? 0),
                entry.offset > (entries.last?.offset ?? baseOffset)
            else { break }
            entries.append(entry)
            start += Self.entrySize
        }
        storedCount = entries.count
    }

    static func encode(_ entry: Entry, base: Int64, into bytes: inout [UInt8]) {
        bytes.appendBigEndian(UInt32(truncatingIfNeeded: entry.offset - base))
        bytes.appendBigEndian(UInt32(truncatingIfNeeded: entry.position))
        bytes.appendBigEndian(entry.maxTimestampBefore)
    }

    static func decode(_ bytes: Span<UInt8>, base: Int64) -> Entry {
        Entry(
            offset: base + Int64(bytes.bigEndian(at: 0, as: UInt32.self)),
            position: Int(bytes.bigEndian(at: 4, as: UInt32.self)), maxTimestampBefore: bytes.bigEndian(at: 8))
    }

    /// How many of the first `count` places, which are sorted by it, satisfy a condition.
    static func partition<E: Error>(_ count: Int, _ holds: (Int) throws(E) -> Bool) throws(E) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if try holds(middle) { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
