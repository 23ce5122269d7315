// Records of the log on their way into one transaction.
//
// A value without a clock or a connection: records go in, and what the transaction must write comes out. Rows are encoded
// for a binary COPY as they come, so that a batch costs one buffer and not one object a message.
internal import PostgresClient
internal import Wire

struct SinkBatch {
    /// How far the sink is in one partition of one topic.
    struct Position: Equatable {
        var nextOffset: Int64
        /// The highest seq stored, for `chat.messages`.
        var lastSeq: Int64 = -1
        /// When the log took the last record.
        var lastRecordMs: Int64 = 0
        /// When the last mark was left.
        var lastMarkMs: Int64 = .min
        /// The log that the offset is of.
        var log: LogIdentity?
    }

    /// What became of a record.
    enum Outcome: Equatable {
        case taken
        /// Stored before: the join wrote it twice.
        case repeated
        case bad(String)
    }

    struct Change {
        var chat: ChatID
        var target: Int64
        var seq: Int64
        var isDelete: Bool
        /// The new text as raw JSON.
        var text: [UInt8]
        var partition: Int32
    }

    struct Activity {
        /// Of the last text message in this batch, if there is one.
        var lastSeq: Int64 = -1
        var lastTs: Int64 = 0
        var sender: UserID?
        var preview = ""
        var changedTs: Int64 = 0
    }

    struct Reading {
        var readSeq: Int64 = -1
        var deliveredSeq: Int64 = -1
        var partition: Int32
        /// Nothing above this is there, unless the chat itself has come further.
        var limitSeq: Int64 = .max
    }

    struct Reader: Hashable {
        var chat: ChatID
        var user: UserID
    }

    struct Mark: Equatable {
        var partition: Int32
        var seq: Int64
        var ts: Int64
        var atMs: Int64
    }

    /// Where a row came from, should Postgres refuse it.
    struct Source {
        var partition: Int32
        var offset: Int64
        var chat: ChatID
        /// Of `values`.
        var value: Range<Int>
    }

    static let markEveryMs: Int64 = 60_000
    static let previewCharacters = 120
    /// A message from the future is a broken clock, and would make partitions without end.
    static let futureMaxMs: Int64 = 7 * 86_400_000

    /// COPY's header, the rows, and no trailer yet.
    private(set) var rows: [UInt8] = Copy.header
    private(set) var rowStarts: [Int] = []
    /// Where each row came from.
    private(set) var sources: [Source] = []
    /// The records of the rows.
    private(set) var values: [UInt8] = []
    /// What the log took before this time is not all here: it let go of records before they were read.
    private(set) var lostBeforeMs: Int64?
    private(set) var days: Set<Int64> = []
    private(set) var changes: [Change] = []
    private(set) var activity: [ChatID: Activity] = [:]
    private(set) var readings: [Reader: Reading] = [:]
    private(set) var marks: [Mark] = []
    /// Records taken, of any kind.
    private(set) var recordCount = 0

    var isEmpty: Bool { recordCount == 0 }
    var rowCount: Int { rowStarts.count }

    mutating func removeAll() {
        rows.removeAll(keepingCapacity: true)
        rows.append(contentsOf: Copy.header)
        rowStarts.removeAll(keepingCapacity: true)
        sources.removeAll(keepingCapacity: true)
        values.removeAll(keepingCapacity: true)
        lostBeforeMs = nil
        days.removeAll(keepingCapacity: true)
        changes.removeAll()
        activity.removeAll(keepingCapacity: true)
        readings.removeAll(keepingCapacity: true)
        marks.removeAll()
        recordCount = 0
    }

    /// The record that a row was made of.
    func value(_ index: Int) -> [UInt8] { Array(values[sources[index].value]) }

    /// The bytes of one row, for storing it alone.
    func row(_ index: Int) -> Range<Int> {
        rowStarts[index]..<(index + 1 < rowStarts.count ? rowStarts[index + 1] : rows.count)
    }

    /// The rows for COPY in the order of their chats. Ids are random, so in the order of arrival each row is looked up
    /// somewhere else in the index; along the index it costs Postgres two thirds of that.
    func sortedRows() -> [UInt8] {
        let order = sources.indices.sorted { (sources[$0].chat, $0) < (sources[$1].chat, $1) }
        var sorted: [UInt8] = []
        sorted.reserveCapacity(rows.count + Copy.trailer.count)
        sorted += Copy.header
        for index in order { sorted.append(rows.span.extracting(row(index))) }
        sorted += Copy.trailer
        return sorted
    }

    // MARK: Messages

    /// Takes a record of `chat.messages`: every record of its partition, in order. A step over offsets is a loss.
    ///
    /// - Parameter oldestMs: what is older is past its retention, and passed over.
    mutating func add(
        message bytes: Span<UInt8>?, partition: Int32, offset: Int64, recordMs: Int64, nowMs: Int64, oldestMs: Int64,
        position: inout Position
    ) -> Outcome {
        recordCount += 1
        if offset > position.nextOffset { lostBeforeMs = max(lostBeforeMs ?? 0, recordMs) }
        position.nextOffset = offset + 1
        position.lastRecordMs = max(position.lastRecordMs, recordMs)
        guard let bytes else { return .bad("no value") }
        let message: AcceptedMessage
        do {
            message = try AcceptedMessage(decoding: bytes)
        } catch {
            return .bad("\(error)")
        }
        guard message.seq >= 0, message.ts >= 0, message.ts <= nowMs + Self.futureMaxMs else {
            return .bad("a seq or ts out of range")
        }
        guard message.seq > position.lastSeq else { return .repeated }
        position.lastSeq = message.seq
        if recordMs >= position.lastMarkMs &+ Self.markEveryMs || position.lastMarkMs == .min {
            position.lastMarkMs = recordMs
            marks.append(Mark(partition: partition, seq: message.seq, ts: message.ts, atMs: recordMs))
        }
        guard message.ts >= oldestMs else { return .taken }
        let start = values.count
        values.append(bytes)
        sources.append(
            Source(partition: partition, offset: offset, chat: message.chat, value: start..<values.count))
        append(message, bytes)
        days.insert(Day.start(of: message.ts))
        var chat = activity[message.chat] ?? Activity()
        chat.changedTs = max(chat.changedTs, message.ts)
        if message.kind == .text {
            chat.lastSeq = message.seq
            chat.lastTs = message.ts
            chat.sender = message.from
            chat.preview = message.text.map { Self.preview($0, in: bytes) } ?? ""
        } else if let target = message.target {
            changes.append(
                Change(
                    chat: message.chat, target: target, seq: message.seq, isDelete: message.kind == .delete,
                    text: message.text.map { [UInt8](copying: bytes.extracting($0.quotedRange)) } ?? [],
                    partition: partition))
        }
        activity[message.chat] = chat
        return .taken
    }

    private mutating func append(_ message: AcceptedMessage, _ bytes: Span<UInt8>) {
        rowStarts.append(rows.count)
        rows.appendBigEndian(Int16(7))
        rows.appendField(message.chat.uuid)
        rows.appendField(message.ts)
        rows.appendField(message.seq)
        rows.appendField(message.id.uuid)
        rows.appendField(message.from.uuid)
        rows.appendField(message.kind.rawValue)
        let lengthAt = rows.count
        rows.appendBigEndian(Int32(0))
        var json = JSONWriter(reusing: rows)
        rows = []
        json.beginObject()
        if let text = message.text { json.field("text", raw: bytes.extracting(text.quotedRange)) }
        if let attachments = message.attachments { json.field("attachments", raw: bytes.extracting(attachments)) }
        if let replyTo = message.replyTo { json.field("reply_to", replyTo) }
        if let target = message.target { json.field("target", target) }
        if let clientTs = message.clientTs { json.field("client_ts", clientTs) }
        json.endObject()
        rows = json.bytes
        rows.setLength(at: lengthAt)
    }

    /// The beginning of a text, on one line and without the zero bytes that Postgres cannot store.
    static func preview(_ text: JSONString, in bytes: Span<UInt8>) -> String {
        var utf8: [UInt8] = []
        text.appendDecoded(from: bytes, to: &utf8)
        var characters = 0
        var end = 0
        while end < utf8.count {
            if utf8[end] & 0xc0 != 0x80 { characters += 1 }
            guard characters <= previewCharacters else { break }
            if utf8[end] < 0x20 { utf8[end] = UInt8(ascii: " ") }
            end += 1
        }
        return String(decoding: utf8[..<end], as: UTF8.self)
    }

    // MARK: Signals

    /// Takes a record of `chat.signals`.
    ///
    /// - Parameter reachedSeq: the highest that is stored, or in this batch, of the partition's messages.
    mutating func add(
        signal bytes: Span<UInt8>?, partition: Int32, offset: Int64, recordMs: Int64, position: inout Position,
        reachedSeq: Int64, early: inout EarlyMarks
    ) -> Outcome {
        recordCount += 1
        position.nextOffset = offset + 1
        position.lastRecordMs = max(position.lastRecordMs, recordMs)
        guard let bytes else { return .bad("no value") }
        let signal: Signal
        do {
            signal = try Signal(decoding: bytes)
        } catch {
            return .bad("\(error)")
        }
        guard signal.kind != .typing, let seq = signal.seq, seq >= 0 else { return .taken }
        let reader = Reader(chat: signal.chat, user: signal.from)
        // What was read was delivered.
        let reading = Reading(readSeq: signal.kind == .read ? seq : -1, deliveredSeq: seq, partition: partition)
        if seq > reachedSeq {
            early.hold(reader, reading, offset: offset, recordMs: recordMs)
        } else {
            add(reading, of: reader)
        }
        return .taken
    }

    mutating func add(_ reading: Reading, of reader: Reader) {
        readings[reader, default: Reading(partition: reading.partition)].add(reading)
    }
}

/// The binary format of COPY.
enum Copy {
    /// Signature, flags, no header extension.
    static let header: [UInt8] = Array("PGCOPY\n".utf8) + [0xff, 0x0d, 0x0a, 0x00] + [UInt8](repeating: 0, count: 8)
    static let trailer: [UInt8] = [0xff, 0xff]
    static let messages = """
        COPY messages (chat_id, ts, seq, message_id, sender, kind, body) FROM STDIN (FORMAT binary)
        """
}

extension [UInt8] {
    fileprivate mutating func appendField(_ uuid: UUID) {
        appendBigEndian(Int32(16))
        uuid.appendBinary(to: &self)
    }

    fileprivate mutating func appendField(_ number: Int64) {
        appendBigEndian(Int32(8))
        appendBigEndian(number)
    }

    fileprivate mutating func appendField(_ text: String) {
        appendBigEndian(Int32(text.utf8.count))
        append(contentsOf: text.utf8)
    }

    /// Sets the length that stands at an index to the number of bytes after it.
    fileprivate mutating func setLength(at index: Int) {
        let length = UInt32(count - index - 4)
        for byte in 0..<4 { self[index + byte] = UInt8(truncatingIfNeeded: length >> UInt32(24 - byte * 8)) }
    }
}
