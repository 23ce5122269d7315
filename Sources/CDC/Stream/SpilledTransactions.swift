internal import PostgresClient
internal import System
internal import Wire

/// Transactions that the server sends while they are under way, kept on disk until they end: nobody may see them before,
/// and of one that is rolled back nobody may see anything.
///
/// The server begins to send a transaction when what it holds of all that are open exceeds `logical_decoding_work_mem`,
/// in parts between a Stream Start and a Stream Stop, and it ends in a Stream Commit or a Stream Abort. So neither it nor
/// we keep a large transaction in memory, and when it commits it is here already.
///
/// A file holds the messages of one transaction as they came, each behind its length and its (sub)transaction. After a
/// crash the server sends everything again, so what is left of the last session is removed.
final class SpilledTransactions {
    private final class Spill {
        let path: String
        let file: File
        var size: Int64 = 0
        var buffer: [UInt8] = []
        /// Subtransactions that were rolled back.
        var aborted: Set<UInt32> = []

        init(_ path: String) throws(SystemError) {
            self.path = path
            file = try File(path, .readWrite, create: .truncate)
        }
    }

    private static let bufferBytesMax = 256 << 10
    private static let headBytes = 8

    private let directory: String
    private var open: [UInt32: Spill] = [:]
    private var current: Spill?
    /// On disk at present.
    private(set) var bytes: Int64 = 0
    private var isMade = false

    init(directory: String) { self.directory = directory }

    deinit { close() }

    func close() {
        open = [:]
        current = nil
        if isMade { try? Directory.removeAll(directory) }
        isMade = false
    }

    var count: Int { open.count }

    // MARK: In

    func start(_ xid: UInt32) throws(CDCError) {
        if let known = open[xid] {
            current = known
            return
        }
        let spill: Spill
        do throws(SystemError) {
            if !isMade {
                try? Directory.removeAll(directory)
                try Directory.create(directory, permissions: 0o700)
                isMade = true
            }
            spill = try Spill("\(directory)/\(xid)")
        } catch {
            throw Self.failure(error)
        }
        open[xid] = spill
        current = spill
    }

    func append(_ message: Span<UInt8>, of xid: UInt32) throws(CDCError) {
        guard let current else { throw CDCError(.protocol, "a part of a transaction outside of a stream") }
        current.buffer.appendBigEndian(UInt32(message.count))
        current.buffer.appendBigEndian(xid)
        current.buffer.append(message)
        if current.buffer.count >= Self.bufferBytesMax { try flush(current) }
    }

    func stop() throws(CDCError) {
        if let current { try flush(current) }
        current = nil
    }

    private func flush(_ spill: Spill) throws(CDCError) {
        do throws(SystemError) {
            try spill.file.write(spill.buffer, at: spill.size)
        } catch {
            throw Self.failure(error)
        }
        spill.size += Int64(spill.buffer.count)
        bytes += Int64(spill.buffer.count)
        spill.buffer.removeAll(keepingCapacity: true)
    }

    // MARK: Out

    func abort(_ xid: UInt32, _ subXID: UInt32) {
        if xid == subXID { remove(xid) } else { open[xid]?.aborted.insert(subXID) }
    }

    /// Hands over the transaction's messages in their order, without those of subtransactions that were rolled back. What
    /// a table looks like is told whoever told it: it holds for the rest of the transaction too.
    func commit(
        _ xid: UInt32, _ body: (_ message: Span<UInt8>) throws(CDCError) -> Void
    ) throws(CDCError) {
        guard let spill = open[xid] else { return }
        var offset: Int64 = 0
        while offset < spill.size {
            let chunk: [UInt8]
            do throws(SystemError) {
                chunk = try spill.file.read(
                    at: offset, count: Int(min(Int64(Self.bufferBytesMax), spill.size - offset)))
            } catch {
                throw Self.failure(error)
            }
            var place = 0
            while let end = Self.end(of: place, in: chunk) {
                let start = place + Self.headBytes
                let isRelation = start < end && chunk[start] == UInt8(ascii: "R")
                if isRelation || !spill.aborted.contains(Self.number(chunk, place + 4)) {
                    try body(chunk.span.extracting(start..<end))
                }
                place = end
            }
            if place > 0 {
                offset += Int64(place)
                continue
            }
            // A single message longer than a chunk.
            let length = Self.headBytes + Int(chunk.count >= Self.headBytes ? Self.number(chunk, 0) : .max)
            guard offset + Int64(length) <= spill.size else {
                throw CDCError(.transient, "\(spill.path) is not as it was written")
            }
            let whole: [UInt8]
            do throws(SystemError) { whole = try spill.file.read(at: offset, count: length) } catch {
                throw Self.failure(error)
            }
            if !spill.aborted.contains(Self.number(whole, 4)) { try body(whole.span.extracting(Self.headBytes...)) }
            offset += Int64(length)
        }
        remove(xid)
    }

    private func remove(_ xid: UInt32) {
        guard let spill = open.removeValue(forKey: xid) else { return }
        bytes -= spill.size
        try? File.remove(spill.path)
    }

    /// Where the message that begins here ends; nil when the chunk does not hold all of it.
    private static func end(of place: Int, in chunk: [UInt8]) -> Int? {
        guard place + headBytes <= chunk.count else { return nil }
        let end = place + headBytes + Int(number(chunk, place))
        return end <= chunk.count ? end : nil
    }

    private static func number(_ bytes: [UInt8], _ place: Int) -> UInt32 {
        bytes[place..<place + 4].reduce(0) { $0 << 8 | UInt32($1) }
    }

    private static func failure(_ error: SystemError) -> CDCError {
        CDCError(.transient, "cannot keep a large transaction on disk: \(error)")
    }
}
