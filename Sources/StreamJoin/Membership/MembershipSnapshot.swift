public import System
public import Wire

/// The membership table at one moment, and its form on disk.
///
/// A file is the header's words, the positions, and the table's arrays as they lie in memory (little-endian), so that
/// saving and loading are a few large writes and reads. Only the hash indexes are left out: they are built again.
///
///     magic · version · deliveryPartitions · listedMax · memberCount · freeUser · freeChat · freeCells · savedAtMs
///     · positions · users · chats · cells · freeBlocks (counts) · log (the topic's id, two words) · checksum
///     positions: (partition, offset)… · users: 24 bytes each · chats: 32 · cells: 4 · freeBlocks: 4
///
/// The checksum covers everything else. A file that does not fit in any respect is not a checkpoint.
public struct MembershipSnapshot: Sendable {
    let deliveryPartitions: Int32
    let listedMax: Int
    /// For each partition the next offset of `chat.members`.
    public let positions: [Int32: Int64]
    let users: [UserEntry]
    let chats: [ChatEntry]
    let arena: MemberArena
    let freeUser: UInt64
    let freeChat: UInt64
    public let memberCount: Int
    /// When it was taken: what the log no longer tells of the time since, it cannot make up for.
    public let savedAtMs: Int64
    /// The log that the positions are of.
    public let log: LogIdentity?

    static let magic: UInt64 = 0x3130_4e49_4f4a_4e46  // "FNJOIN01"
    static let version: UInt64 = 4
    private static let headerWords = 17

    public enum Unusable: Error, Sendable, CustomStringConvertible {
        case notACheckpoint(String)
        case damaged(String)
        /// Made for other partitions or another layout.
        case otherLayout(String)
        /// So old that the log may have forgotten deletions since: who was removed then would be a member again.
        case old(String)
        /// The topic was made again since.
        case otherLog(String)

        public var description: String {
            switch self {
            case .notACheckpoint(let path): "\(path) is not a checkpoint of this version"
            case .damaged(let path): "\(path) is damaged"
            case .otherLayout(let path): "\(path) was made for another number of partitions or another --large-chat"
            case .old(let path): "\(path) is older than the log's memory of what was deleted"
            case .otherLog(let path): "\(path) was made from another log; chat.members has been made again since"
            }
        }
    }

    private func header(_ places: [UInt64]) -> [UInt64] {
        [
            Self.magic, Self.version, UInt64(deliveryPartitions), UInt64(listedMax), UInt64(memberCount), freeUser,
            freeChat, UInt64(arena.freeCells), UInt64(bitPattern: savedAtMs), UInt64(positions.count),
            UInt64(users.count), UInt64(chats.count),
            UInt64(arena.cells.count), UInt64(arena.freeBlocks.count), logWords.high, logWords.low, sum(places),
        ]
    }

    private var logWords: UUID { log?.topicID ?? UUID(high: 0, low: 0) }

    /// A hash, not a cipher: it finds torn and rotten files.
    private func sum(_ places: [UInt64]) -> UInt64 {
        var sum = Checksum()
        sum.add(UInt64(deliveryPartitions) ^ UInt64(listedMax) << 32)
        for word in [
            UInt64(memberCount), freeUser, freeChat, UInt64(arena.freeCells), UInt64(bitPattern: savedAtMs),
            logWords.high, logWords.low,
        ] { sum.add(word) }
        for place in places { sum.add(place) }
        for user in users {
            sum.add(user.id.high)
            sum.add(user.id.low)
            sum.add(UInt64(user.references) << 32 | UInt64(user.partition))
        }
        for chat in chats {
            sum.add(chat.id.high)
            sum.add(chat.id.low)
            sum.add(chat.words.0)
            sum.add(chat.words.1)
        }
        var cells = arena.cells.makeIterator()
        while let first = cells.next() { sum.add(UInt64(first) << 32 | UInt64(cells.next() ?? 0)) }
        for block in arena.freeBlocks { sum.add(UInt64(block)) }
        return sum.value
    }

    init(
        deliveryPartitions: Int32, listedMax: Int, positions: [Int32: Int64], users: [UserEntry], chats: [ChatEntry],
        arena: MemberArena, freeUser: UInt64, freeChat: UInt64, memberCount: Int, savedAtMs: Int64, log: LogIdentity?
    ) {
        (self.deliveryPartitions, self.listedMax, self.positions) = (deliveryPartitions, listedMax, positions)
        (self.users, self.chats, self.arena) = (users, chats, arena)
        (self.freeUser, self.freeChat, self.memberCount) = (freeUser, freeChat, memberCount)
        self.savedAtMs = savedAtMs
        self.log = log
    }

    // MARK: Files

    /// Replaces the file atomically: whoever reads it finds this checkpoint or the one before.
    public func save(to path: String) throws(SystemError) {
        let places = positions.sorted { $0.key < $1.key }.flatMap { [UInt64($0.key), UInt64($0.value)] }
        let temporary = path + ".new"
        do throws(SystemError) {
            let file = try File(temporary, .write, create: .truncate)
            var offset: Int64 = 0
            try write(header(places), to: file, &offset)
            try write(places, to: file, &offset)
            try write(users, to: file, &offset)
            try write(chats, to: file, &offset)
            try write(arena.cells, to: file, &offset)
            try write(arena.freeBlocks, to: file, &offset)
            try file.synchronize()
            try File.rename(temporary, to: path)
        } catch {
            try? File.remove(temporary)
            throw error
        }
        try Directory.synchronize(Directory.parent(of: path))
    }

    private func write<Element: BitwiseCopyable>(
        _ elements: [Element], to file: borrowing File, _ offset: inout Int64
    ) throws(SystemError) {
        try file.write(elements: elements.span, at: offset)
        offset += Int64(elements.count * MemoryLayout<Element>.stride)
    }

    /// - Throws: `Unusable`, or `SystemError` when there is no file or it cannot be read.
    public init(loading path: String, deliveryPartitions: Int32, listedMax: Int) throws {
        let file = try File(path)
        let size = try file.size
        var offset: Int64 = 0
        var header = [UInt64](repeating: 0, count: Self.headerWords)
        guard try Self.read(&header, from: file, &offset), header[0] == Self.magic, header[1] == Self.version else {
            throw Unusable.notACheckpoint(path)
        }
        guard header[2] == UInt64(deliveryPartitions), header[3] == UInt64(listedMax) else {
            throw Unusable.otherLayout(path)
        }
        // Counts are believed only if the file is as long as they say.
        let counts = header[9...13].map { Int(clamping: $0) }
        let elementBytes = [16, 24, 32, 4, 4]
        var expected = Int64(Self.headerWords * 8)
        for (count, bytes) in zip(counts, elementBytes) {
            guard count <= 1 << 36 else { throw Unusable.damaged(path) }
            expected += Int64(count * bytes)
        }
        guard size == expected, counts[4] == MemberArena.classCount else { throw Unusable.damaged(path) }
        var places = [UInt64](repeating: 0, count: counts[0] * 2)
        let noID = UserEntry(id: .init(high: 0, low: 0), references: 0, partition: 0)
        var users = [UserEntry](repeating: noID, count: counts[1])
        var chats = [ChatEntry](repeating: ChatEntry(id: .init(high: 0, low: 0)), count: counts[2])
        var cells = [UInt32](repeating: 0, count: counts[3])
        var freeBlocks = [UInt32](repeating: 0, count: counts[4])
        guard try Self.read(&places, from: file, &offset), try Self.read(&users, from: file, &offset),
            try Self.read(&chats, from: file, &offset), try Self.read(&cells, from: file, &offset),
            try Self.read(&freeBlocks, from: file, &offset)
        else { throw Unusable.damaged(path) }

        self.deliveryPartitions = deliveryPartitions
        self.listedMax = listedMax
        self.users = users
        self.chats = chats
        arena = MemberArena(cells: cells, freeBlocks: freeBlocks, freeCells: Int(clamping: header[7]))
        (freeUser, freeChat, memberCount) = (header[5], header[6], Int(clamping: header[4]))
        savedAtMs = Int64(bitPattern: header[8])
        log = LogIdentity(topicID: UUID(high: header[14], low: header[15]))
        var positions: [Int32: Int64] = [:]
        for index in stride(from: 0, to: places.count, by: 2) {
            positions[Int32(truncatingIfNeeded: places[index])] = Int64(bitPattern: places[index + 1])
        }
        self.positions = positions
        guard sum(places) == header[16] else { throw Unusable.damaged(path) }
    }

    private static func read<Element: BitwiseCopyable>(
        _ elements: inout [Element], from file: borrowing File, _ offset: inout Int64
    ) throws(SystemError) -> Bool {
        let wanted = elements.count * MemoryLayout<Element>.stride
        var span = elements.mutableSpan
        let count = try file.read(at: offset, elements: &span)
        offset += Int64(count)
        return count == wanted
    }
}

/// Four lanes, so that the multiplications of one word do not wait for those of the word before.
private struct Checksum {
    private var lanes: (UInt64, UInt64, UInt64, UInt64) = (1, 2, 3, 4)

    mutating func add(_ word: UInt64) {
        let mixed = (lanes.0 ^ word) &* 0x9e37_79b9_7f4a_7c15
        lanes = (lanes.1, lanes.2, lanes.3, mixed ^ mixed >> 32)
    }

    var value: UInt64 {
        ((lanes.0 &* 31 &+ lanes.1) &* 31 &+ lanes.2) &* 31 &+ lanes.3
    }
}
