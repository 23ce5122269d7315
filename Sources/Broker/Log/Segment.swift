internal import System

/// One file of a partition's log, and what is known of it. The last segment is the active one: only it grows, and only it
/// has its index in memory.
final class Segment {
    let baseOffset: Int64
    /// Without the extension: the log and its index share a name.
    private let stem: String
    /// Bytes of whole batches.
    var size = 0
    /// The offset after the last record.
    var nextOffset: Int64
    /// Of all batches; -1 while there are none or, in a closed segment, while it has not been looked up.
    var maxTimestamp: Int64 = -1
    /// When the first batch arrived, for rolling by age.
    var firstAppendMs: Int64?
    var index: SparseIndex?
    fileprivate var file: SharedFile?
    fileprivate var wasUsed = false

    init(directory: String, partition: Int32, baseOffset: Int64) {
        self.baseOffset = baseOffset
        let digits = String(baseOffset)
        let padded = String(repeating: "0", count: max(0, 20 - digits.count)) + digits
        stem = "\(directory)/\(partition)-\(padded)"
        nextOffset = baseOffset
    }

    var logPath: String { stem + ".log" }
    var indexPath: String { stem + ".index" }

    /// A compacted segment on its way into the place of all segments from its own base to `end`.
    func swapPath(upTo end: Int64) -> String { "\(stem)-\(end).swap" }

    /// Finishes the replacement that a swap file stands for; what the name says, or `nil` for another file.
    static func finishSwap(_ name: String, in directory: String) throws(BrokerError) -> Bool {
        guard name.hasSuffix(".swap") else { return false }
        let parts = name.dropLast(5).split(separator: "-")
        guard parts.count == 3, let partition = Int32(parts[0]), let base = Int64(parts[1]), let end = Int64(parts[2])
        else { return false }
        try storing("\(directory)/\(name)") { () throws(SystemError) in
            for other in try Directory.list(directory) {
                guard let old = parse(other), old.partition == partition, old.baseOffset >= base, old.baseOffset < end
                else { continue }
                try File.remove("\(directory)/\(other)")
            }
            let segment = Segment(directory: directory, partition: partition, baseOffset: base)
            try File.rename("\(directory)/\(name)", to: segment.logPath)
        }
        return true
    }

    /// The partition and base offset that a file's name says, and whether it is a log.
    static func parse(_ name: String) -> (partition: Int32, baseOffset: Int64, isLog: Bool)? {
        let isLog = name.hasSuffix(".log")
        guard isLog || name.hasSuffix(".index") else { return nil }
        let parts = name.dropLast(isLog ? 4 : 6).split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, let partition = Int32(parts[0]), let base = Int64(parts[1]), partition >= 0, base >= 0
        else { return nil }
        return (partition, base, isLog)
    }

    // MARK: Closed segments

    /// Writes the index file's last entries and lets go of the index.
    func close() throws(BrokerError) {
        guard index != nil else { return }
        try storeIndex()
        var last: [UInt8] = []
        SparseIndex.encode(
            .init(offset: nextOffset, position: size, maxTimestampBefore: maxTimestamp), base: baseOffset, into: &last)
        let place = Int64((index?.entries.count ?? 0) * SparseIndex.entrySize)
        try storing(indexPath) { () throws(SystemError) in
            let file = try File(indexPath, .write, create: .ifMissing)
            try file.write(last, at: place)
            try file.truncate(to: place + Int64(last.count))
        }
        index = nil
    }

    /// Brings the index file up to what is in memory. It is a hint and need not be synchronized.
    func storeIndex() throws(BrokerError) {
        guard let unstored = index?.takeUnstored() else { return }
        try storing(indexPath) { () throws(SystemError) in
            try File(indexPath, .write, create: .ifMissing).write(unstored.bytes, at: unstored.fileOffset)
        }
    }

    /// The place to start looking for `offset` or `timestamp`.
    func floor(_ key: SearchKey) -> (offset: Int64, position: Int) {
        let found: SparseIndex.Entry?
        if let index {
            found =
                switch key {
                case .offset(let offset): index.floor(offset: offset)
                case .timestamp(let timestamp): index.floor(timestamp: timestamp)
                }
        } else {
            found = searchIndexFile(key)
        }
        guard let found, found.position < size else { return (baseOffset, 0) }
        return (found.offset, found.position)
    }

    enum SearchKey {
        case offset(Int64)
        case timestamp(Int64)
    }

    private func searchIndexFile(_ key: SearchKey) -> SparseIndex.Entry? {
        do throws(SystemError) {
            let file = try File(indexPath)
            let count = Int(try file.size) / SparseIndex.entrySize
            func entry(_ index: Int) throws(SystemError) -> SparseIndex.Entry {
                let bytes = try file.read(at: Int64(index * SparseIndex.entrySize), count: SparseIndex.entrySize)
                guard bytes.count == SparseIndex.entrySize else {
                    return SparseIndex.Entry(offset: .max, position: .max, maxTimestampBefore: .max)
                }
                return SparseIndex.decode(bytes.span, base: baseOffset)
            }
            let place = try SparseIndex.partition(count) { (index: Int) throws(SystemError) -> Bool in
                let entry = try entry(index)
                return switch key {
                case .offset(let offset): entry.offset <= offset
                case .timestamp(let timestamp): entry.maxTimestampBefore < timestamp
                }
            }
            guard place > 0 else { return nil }
            return try entry(place - 1)
        } catch {
            return nil
        }
    }

    /// The largest timestamp of a closed segment, from the last entry of its index file; `nil` if that is not there.
    func loadMaxTimestamp() -> Int64? {
        if maxTimestamp >= 0 { return maxTimestamp }
        guard let file = try? File.contents(of: indexPath), file.count >= SparseIndex.entrySize else { return nil }
        let last = SparseIndex.decode(
            file.span.extracting(file.count - SparseIndex.entrySize..<file.count), base: baseOffset)
        guard last.position == size else { return nil }
        maxTimestamp = last.maxTimestampBefore
        return maxTimestamp
    }
}

/// Keeps the number of open log files within a limit: ten thousand partitions do not fit a process's descriptors. The
/// file that has gone unused the longest, roughly (second chance), makes room.
final class OpenFiles {
    private let limit: Int
    private var open: [Segment] = []
    private var hand = 0

    init(limit: Int) { self.limit = max(1, limit) }

    func file(of segment: Segment, create: Bool = false) throws(BrokerError) -> SharedFile {
        if let file = segment.file {
            segment.wasUsed = true
            return file
        }
        if open.count >= limit { closeOne() }
        let file: SharedFile
        do throws(SystemError) {
            file = try open(segment, create)
        } catch {
            // Connections took what was meant for files: go on with fewer.
            guard error.code == .tooManyFiles, !open.isEmpty else {
                throw BrokerError(.storage, "cannot use \(segment.logPath)", cause: error)
            }
            closeOne()
            file = try storing(segment.logPath) { () throws(SystemError) in try open(segment, create) }
        }
        segment.file = file
        open.append(segment)
        return file
    }

    private func open(_ segment: Segment, _ create: Bool) throws(SystemError) -> SharedFile {
        SharedFile(try File(segment.logPath, .readWrite, create: create ? .ifMissing : .never))
    }

    func close(_ segment: Segment) {
        guard segment.file != nil else { return }
        segment.file = nil
        if let index = open.firstIndex(where: { $0 === segment }) { open.remove(at: index) }
    }

    private func closeOne() {
        while true {
            hand = hand >= open.count ? 0 : hand
            let segment = open[hand]
            if segment.wasUsed {
                segment.wasUsed = false
                hand += 1
            } else {
                segment.file = nil
                open.remove(at: hand)
                return
            }
        }
    }
}

/// Runs file operations with their failure turned into the broker's error.
func storing<Value: ~Copyable>(
    _ subject: String, _ body: () throws(SystemError) -> Value
) throws(BrokerError) -> Value {
    do throws(SystemError) {
        return try body()
    } catch {
        throw BrokerError(.storage, "cannot use \(subject)", cause: error)
    }
}
