public import PushLink
import Runtime
public import Wire

/// The last deliveries of one partition, as the device frames they were sent as, found by recipient: what a device that
/// was away for a moment missed is served from here, exactly, and Postgres is not asked.
///
///     records    | offset, time, kind, bytes |  in the order of the log; the oldest leave first
///     chunks     frames back to back, 64 KiB at a time
///     postings   one a record and recipient, each linked to the recipient's previous one
///
/// A fill walks the recipient's postings back to the cursor and plays them forward. A record costs its frame, 40 bytes,
/// and 16 for each recipient. A recipient whose postings have all left is still known by the last offset that did, so a
/// device that missed nothing is told so, however old its cursor is.
public struct HotWindow {
    private struct Record {
        let offset: Int64
        let timestamp: Int64
        let chunk: UInt64
        let start: UInt32
        let count: UInt32
        var postingCount: UInt32
        let kind: EventKind
    }

    private struct Posting {
        let owner: UInt32
        /// The record's number, cut to 32 bits: there are never more at once.
        let record: UInt32
        /// The owner's previous posting, if that is still there.
        let previous: UInt64
    }

    /// What is kept of a recipient (a user or a large chat).
    private struct Owner {
        var newest: UInt64 = 0
        var evictedThrough: Int64 = -1
    }

    private static let chatBit: UInt32 = 1 << 31
    private static let chunkByteCount = 64 << 10
    private static let recordOverhead = 48
    private static let postingOverhead = 16

    public var bytesMax: Int
    public private(set) var byteCount = 0
    private var records = Ring<Record>(startingAt: 1)
    private var postings = Ring<Posting>(startingAt: 1)
    private var chunks = Ring<[UInt8]>()
    private var spareChunk: [UInt8]?
    private var users: [Owner] = []
    private var chats: [Owner] = []
    private var chatIDs: [ChatID] = []
    private var chatNumbers: [ChatID: UInt32] = [:]
    /// The few records that are for one device of their recipient.
    private var devices: [UInt64: DeviceID] = [:]

    /// Everything after this is in the window.
    public private(set) var start: Cursor
    /// Nothing is known of what lies up to here.
    private let floor: Cursor

    /// An empty window, before the record that follows `start`.
    public init(bytesMax: Int, start: Cursor) {
        self.bytesMax = bytesMax
        self.start = start
        floor = start
    }

    public var recordCount: Int { records.count }

    // MARK: - Appending

    /// Takes a record's event as a device frame: the cursor goes before the closing brace. Its recipients are named next.
    public mutating func append(_ cursor: Cursor, kind: EventKind, event: Span<UInt8>) {
        let count = event.count + 14 + Cursor.textCount
        if chunks.isEmpty || chunks[chunks.end - 1].count + count > Self.chunkByteCount { addChunk(for: count) }
        let chunk = chunks.end - 1
        var bytes: [UInt8] = []
        // Taken out and put back, so that it is appended to in place.
        swap(&bytes, &chunks[chunk])
        let start = bytes.count
        bytes.append(event.extracting(0..<event.count - 1))
        if Self.hasMembers(event) { bytes.append(0x2c) }
        bytes.append(contentsOf: #""cursor":""#.utf8)
        cursor.appendText(to: &bytes)
        bytes.append(0x22)
        bytes.append(0x7d)
        let written = bytes.count - start
        swap(&bytes, &chunks[chunk])
        records.append(
            Record(
                offset: cursor.offset, timestamp: cursor.timestamp, chunk: chunk, start: UInt32(start),
                count: UInt32(written), postingCount: 0, kind: kind))
        byteCount += written + Self.recordOverhead
    }

    /// Says that the record appended last is for this device only.
    public mutating func limit(to device: DeviceID) { devices[records.end - 1] = device }

    private static func hasMembers(_ event: Span<UInt8>) -> Bool {
        var index = event.count - 2
        while index > 0 {
            switch event[index] {
            case 0x20, 0x0a, 0x0d, 0x09: index -= 1
            default: return true
            }
        }
        return false
    }

    private mutating func addChunk(for count: Int) {
        var chunk = spareChunk ?? []
        spareChunk = nil
        chunk.reserveCapacity(max(Self.chunkByteCount, count))
        chunks.append(chunk)
    }

    /// Names a user as a recipient of the record appended last.
    @inline(__always)
    public mutating func addRecipient(user: Int) {
        if user >= users.count {
            users += [Owner](repeating: Owner(), count: max(user + 1, users.count * 2) - users.count)
        }
        let previous = users[user].newest
        users[user].newest = postings.end
        addPosting(UInt32(user), previous)
    }

    /// Addresses the record appended last to whoever is in a large chat.
    public mutating func addRecipients(largeChat chat: ChatID) {
        let number: UInt32
        if let known = chatNumbers[chat] {
            number = known
        } else {
            number = UInt32(chats.count)
            chatNumbers[chat] = number
            chatIDs.append(chat)
            chats.append(Owner())
        }
        let previous = chats[Int(number)].newest
        chats[Int(number)].newest = postings.end
        addPosting(number | Self.chatBit, previous)
    }

    @inline(__always)
    private mutating func addPosting(_ owner: UInt32, _ previous: UInt64) {
        let record = records.end - 1
        postings.append(Posting(owner: owner, record: UInt32(truncatingIfNeeded: record), previous: previous))
        records[record].postingCount += 1
        byteCount += Self.postingOverhead
    }

    // MARK: - Letting go

    /// Drops the oldest records until the window is within its bytes and holds nothing from before `timestamp`. The last
    /// record appended stays: it is being sent.
    public mutating func trim(before timestamp: Int64) {
        while records.count > 1, byteCount > bytesMax || records[records.start].timestamp < timestamp { removeFirst() }
    }

    /// A message that has left the window: for these users, or for a large chat.
    public struct Gone {
        public let offset: Int64
        public let event: [UInt8]
        public let users: [Int]
        public let largeChat: ChatID?
    }

    /// The same; answers the messages that leave, from an offset on.
    public mutating func trim(before timestamp: Int64, messagesFrom offset: Int64) -> [Gone] {
        var gone: [Gone] = []
        while records.count > 1, byteCount > bytesMax || records[records.start].timestamp < timestamp {
            let record = records[records.start]
            if record.offset >= offset, record.kind == .message, devices[records.start] == nil {
                gone.append(describeFirst(record))
            }
            removeFirst()
        }
        return gone
    }

    private func describeFirst(_ record: Record) -> Gone {
        let owners = (0..<UInt64(record.postingCount)).map { postings[postings.start + $0].owner }
        let chat = owners.first.flatMap { $0 & Self.chatBit == 0 ? nil : chatIDs[Int($0 & ~Self.chatBit)] }
        return Gone(
            offset: record.offset, event: withPayload(records.start) { [UInt8](copying: $0) },
            users: chat == nil ? owners.map(Int.init) : [], largeChat: chat)
    }

    private mutating func removeFirst() {
        if !devices.isEmpty { devices[records.start] = nil }
        let record = records.removeFirst()
        for _ in 0..<record.postingCount {
            let number = postings.start
            let owner = postings.removeFirst().owner
            if owner & Self.chatBit == 0 {
                Self.evict(number, record.offset, &users[Int(owner)])
            } else {
                Self.evict(number, record.offset, &chats[Int(owner & ~Self.chatBit)])
            }
        }
        while !chunks.isEmpty, records.isEmpty || chunks.start < records[records.start].chunk {
            var chunk = chunks.removeFirst()
            if spareChunk == nil, chunk.capacity <= 2 * Self.chunkByteCount {
                chunk.removeAll(keepingCapacity: true)
                spareChunk = chunk
            }
        }
        byteCount -= Int(record.count) + Self.recordOverhead + Int(record.postingCount) * Self.postingOverhead
        start = Cursor(offset: record.offset, timestamp: record.timestamp)
    }

    private static func evict(_ posting: UInt64, _ offset: Int64, _ owner: inout Owner) {
        owner.evictedThrough = offset
        if owner.newest == posting { owner.newest = 0 }
    }

    // MARK: - Reading

    /// The device frame of the record appended last.
    public func withLastPayload<Result>(_ body: (Span<UInt8>) -> Result) -> Result {
        withPayload(records.end - 1, body)
    }

    private func withPayload<Result>(_ number: UInt64, _ body: (Span<UInt8>) -> Result) -> Result {
        let record = records[number]
        let chunk = chunks[record.chunk]
        return body(chunk.span.extracting(Int(record.start)..<Int(record.start + record.count)))
    }

    public enum Fill: Equatable, Sendable {
        /// Everything up to here has been given.
        case served(upTo: Cursor, isLast: Bool)
        case refused(FillRefusal)
    }

    /// Gives `body` the recipient's events after `after`, up to and including `through`, in order; stops behind the first
    /// that brings it to `bytesMax`.
    public func fill(
        user: Int, device: DeviceID? = nil, largeChats: [ChatStay], after: Cursor, through: Int64, bytesMax: Int,
        _ body: (_ offset: Int64, _ kind: EventKind, _ payload: Span<UInt8>) -> Void
    ) -> Fill {
        if let refusal = refusal(user: user, largeChats: largeChats, after: after) { return .refused(refusal) }
        let owners = owners(user, largeChats)
        var found: [UInt64] = []
        for (owner, stay) in owners {
            var number = owner.newest
            while postings.contains(number) {
                let posting = postings[number]
                let record = self.record(of: posting)
                let offset = records[record].offset
                guard offset > after.offset else { break }
                if offset <= through, stay?.contains(offset) != false { found.append(record) }
                number = posting.previous
            }
        }
        if owners.count > 1 { found.sort(by: >) }
        var given = 0
        while let number = found.popLast() {
            if let only = devices[number], let device, only != device { continue }
            let record = records[number]
            withPayload(number) { body(record.offset, record.kind, $0) }
            given += Int(record.count)
            if given >= bytesMax, !found.isEmpty {
                return .served(upTo: Cursor(offset: record.offset, timestamp: record.timestamp), isLast: false)
            }
        }
        return .served(upTo: cursor(at: through, after: after), isLast: true)
    }

    /// Why events after this cursor cannot be given; `nil` when they can.
    public func refusal(user: Int, largeChats: [ChatStay], after: Cursor) -> FillRefusal? {
        if isForeign(after) { return .foreign }
        guard after.offset < start.offset else { return nil }
        let isComplete =
            after.offset >= floor.offset
            && owners(user, largeChats).allSatisfy { $0.owner.evictedThrough <= after.offset }
        return isComplete ? nil : .older
    }

    private func owners(_ user: Int, _ largeChats: [ChatStay]) -> [(owner: Owner, stay: ChatStay?)] {
        var owners: [(owner: Owner, stay: ChatStay?)] = []
        if user < users.count { owners.append((users[user], nil)) }
        for stay in largeChats {
            if let number = chatNumbers[stay.chat] { owners.append((chats[Int(number)], stay)) }
        }
        return owners
    }

    private func record(of posting: Posting) -> UInt64 {
        records.start + UInt64(posting.record &- UInt32(truncatingIfNeeded: records.start))
    }

    /// Whether the record at the cursor's offset is here and bears another time: then the topic is not the one that the
    /// cursor was made in.
    public func isForeign(_ cursor: Cursor) -> Bool {
        guard cursor.timestamp != 0, let record = lastRecord(atOrBefore: cursor.offset),
            record.offset == cursor.offset
        else { return false }
        return record.timestamp != cursor.timestamp
    }

    private func cursor(at offset: Int64, after: Cursor) -> Cursor {
        guard offset > after.offset else { return after }
        return Cursor(offset: offset, timestamp: lastRecord(atOrBefore: offset)?.timestamp ?? start.timestamp)
    }

    private func lastRecord(atOrBefore offset: Int64) -> Record? {
        var low = records.start
        var high = records.end
        while low < high {
            let middle = low + (high - low) / 2
            if records[middle].offset <= offset { low = middle + 1 } else { high = middle }
        }
        return low == records.start ? nil : records[low - 1]
    }
}
