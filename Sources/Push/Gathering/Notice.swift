public import Wire

/// Where a record of `chat.push` stands; it may be committed once all that it led to is settled.
public struct RecordPosition: Hashable, Sendable {
    public let partition: Int32
    public let offset: Int64

    public init(partition: Int32, offset: Int64) {
        self.partition = partition
        self.offset = offset
    }
}

/// What one person is to be told: everything that has gathered in their chats.
public struct Notice: Equatable, Sendable {
    public struct ChatPart: Equatable, Sendable {
        public let chat: ChatID
        /// How many messages have gathered.
        public internal(set) var gathered: Int64
        /// How many the person has not read, when somebody knows.
        public var unread: Int64?
        /// The newest message's event, as raw JSON.
        public internal(set) var last: [UInt8]
        public internal(set) var lastSeq: Int64
        /// When it was found that there was no session to give the newest message to: whoever was seen later has it.
        public internal(set) var newestMs: Int64
        public internal(set) var isMention: Bool
        var records: [RecordPosition]

        public init(
            chat: ChatID, count: Int64, last: [UInt8], lastSeq: Int64, newestMs: Int64, isMention: Bool,
            record: RecordPosition
        ) {
            self.chat = chat
            gathered = count
            self.last = last
            self.lastSeq = lastSeq
            self.newestMs = newestMs
            self.isMention = isMention
            records = [record]
        }

        /// What the person is told. History may be behind the log, so at least what has gathered is unread.
        public var count: Int64 { max(gathered, unread ?? 0) }

        /// About what it takes in memory, but for its records, which are counted by themselves.
        var bytes: Int { last.count + 128 }

        mutating func add(_ newer: ChatPart) {
            gathered += newer.gathered
            records += newer.records
            isMention = isMention || newer.isMention
            newestMs = max(newestMs, newer.newestMs)
            // A replayed older record must not bring an older preview back.
            guard newer.lastSeq >= lastSeq else { return }
            last = newer.last
            lastSeq = newer.lastSeq
        }
    }

    public let user: UserID
    public internal(set) var chats: [ChatPart]

    public var records: [RecordPosition] { chats.flatMap(\.records) }
    public var count: Int64 { chats.reduce(0) { $0 + $1.count } }
    public var isMention: Bool { chats.contains(where: \.isMention) }
    var bytes: Int { chats.reduce(128) { $0 + $1.bytes } }

    /// Names the records that this notice stands for, for ever: `user/partition/first-last`. A repeat after a crash may
    /// have gathered more meanwhile; then its last offset is higher, and it is another notice, which must be shown.
    public var idempotencyKey: String {
        var bytes: [UInt8] = []
        appendIdempotencyKey(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    func appendIdempotencyKey(to bytes: inout [UInt8]) {
        // All records of a person are in one partition, unless somebody else writes to the topic too.
        var ranges: [(partition: Int32, first: Int64, last: Int64)] = []
        for part in chats {
            for record in part.records {
                if let index = ranges.firstIndex(where: { $0.partition == record.partition }) {
                    ranges[index].first = min(ranges[index].first, record.offset)
                    ranges[index].last = max(ranges[index].last, record.offset)
                } else {
                    ranges.append((record.partition, record.offset, record.offset))
                }
            }
        }
        if ranges.count > 1 { ranges.sort { $0.partition < $1.partition } }
        user.uuid.appendText(to: &bytes)
        var separator = UInt8(ascii: "/")
        for range in ranges {
            bytes.append(separator)
            bytes.appendDecimal(range.partition)
            bytes.append(UInt8(ascii: "/"))
            bytes.appendDecimal(range.first)
            bytes.append(UInt8(ascii: "-"))
            bytes.appendDecimal(range.last)
            separator = UInt8(ascii: ",")
        }
    }

    /// The notice without some of its chats, and the records of those.
    func without(_ isDropped: (ChatPart) -> Bool) -> (Notice, [RecordPosition]) {
        var kept = self
        kept.chats.removeAll(where: isDropped)
        return (kept, chats.filter(isDropped).flatMap(\.records))
    }
}
