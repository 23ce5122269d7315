import Wire

/// The records that a task writes, one behind the other in one buffer that is used again and again.
///
/// An event is written once (`event`); each record of `chat.deliveries` is its recipients and a copy of those bytes.
public struct JoinOutput: Sendable {
    public enum Target: UInt8, Sendable { case messages, deliveries, rejected, members }

    public struct Record: Sendable {
        public let target: Target
        public let partition: Int32
        /// Where the key stands; empty for records without one.
        public let key: Range<Int>
        /// `nil`: a tombstone.
        public let value: Range<Int>?
        /// Where the value of header `src` stands: the same for all records of one source record.
        public let source: Range<Int>

        fileprivate func shifted(by count: Int) -> Record {
            func shifted(_ range: Range<Int>) -> Range<Int> { range.lowerBound + count..<range.upperBound + count }
            return Record(
                target: target, partition: partition, key: key.isEmpty ? key : shifted(key), value: value.map(shifted),
                source: shifted(source))
        }
    }

    public private(set) var records: [Record] = []
    var json = JSONWriter()
    /// The event that is being sent, complete before its records begin.
    var event = JSONWriter()
    private var place: (topic: [UInt8], partition: Int32, offset: Int64) = ([], 0, 0)
    private var source = 0..<0
    private var key = 0..<0
    private var start = 0

    public init() {}

    public var bytes: [UInt8] { json.bytes }

    public mutating func removeAll() {
        json.removeAll()
        records.removeAll(keepingCapacity: true)
    }

    /// Where the output ends, so that what follows can be taken back.
    struct Mark {
        fileprivate let records: Int
        fileprivate let bytes: Int
    }

    var mark: Mark { Mark(records: records.count, bytes: json.bytes.count) }

    /// The size of the largest record since then, with its key.
    func largest(since mark: Mark) -> Int {
        records[mark.records...].reduce(0) { max($0, $1.key.count + ($1.value?.count ?? 0)) }
    }

    mutating func takeBack(to mark: Mark) {
        records.removeSubrange(mark.records...)
        json.bytes.removeSubrange(mark.bytes...)
    }

    /// Where the first records end, each source record's all among them or none.
    private func end(ofFirst count: Int) -> Int {
        count < records.count ? records[count].source.lowerBound : json.bytes.count
    }

    mutating func append(first count: Int, of other: borrowing JoinOutput) {
        let shift = json.bytes.count
        json.bytes.append(other.json.bytes.span.extracting(0..<other.end(ofFirst: count)))
        for record in other.records.prefix(count) { records.append(record.shifted(by: shift)) }
    }

    mutating func removeFirst(_ count: Int) {
        guard count < records.count else { return removeAll() }
        let end = end(ofFirst: count)
        json.bytes.removeFirst(end)
        records.removeFirst(count)
        for index in records.indices { records[index] = records[index].shifted(by: -end) }
    }

    /// Everything that follows comes from this record.
    mutating func begin(_ name: SourceName, partition: Int32, offset: Int64) {
        place = (name.topic, partition, offset)
        let start = json.bytes.count
        json.bytes.append(name.tagged.span)
        json.bytes.append(UInt8(ascii: "/"))
        json.bytes.appendDecimal(partition)
        json.bytes.append(UInt8(ascii: "/"))
        json.bytes.appendDecimal(offset)
        source = start..<json.bytes.count
        key = 0..<0
    }

    /// The key of the chat-side records that follow.
    mutating func setKey(_ chat: ChatID) {
        let start = json.bytes.count
        chat.uuid.appendText(to: &json.bytes)
        key = start..<json.bytes.count
    }

    mutating func beginRecord() {
        start = json.bytes.count
        json.beginValue()
    }

    mutating func endRecord(_ target: Target, partition: Int32) {
        records.append(
            Record(
                target: target, partition: partition, key: target == .deliveries ? 0..<0 : key,
                value: start..<json.bytes.count, source: source))
    }

    // MARK: Memberships

    /// A chat's membership as read from Postgres, for this task itself and its successors.
    mutating func write(_ membership: ChatMembership, partition: Int32) {
        setMembershipKey(membership.chat)
        beginRecord()
        membership.write(to: &json)
        endRecord(.members, partition: partition)
    }

    /// The tombstone of such a record.
    mutating func forgetMembership(of chat: ChatID, partition: Int32) {
        setMembershipKey(chat)
        records.append(Record(target: .members, partition: partition, key: key, value: nil, source: source))
    }

    private mutating func setMembershipKey(_ chat: ChatID) {
        let start = json.bytes.count
        json.beginValue()
        ChatMembership.writeKey(of: chat, to: &json)
        key = start..<json.bytes.count
    }

    // MARK: Deliveries

    mutating func beginEvent() { event.removeAll() }

    mutating func beginRecipients() {
        beginRecord()
        json.bytes.append(#"{"to":["#)
    }

    @inline(__always)
    mutating func recipient(_ user: UserID, isFirst: Bool) {
        guard isFirst else { return user.uuid.appendListed(to: &json.bytes) }
        json.bytes.append(UInt8(ascii: "\""))
        user.uuid.appendText(to: &json.bytes)
        json.bytes.append(UInt8(ascii: "\""))
    }

    mutating func endRecipients(partition: Int32) {
        json.bytes.append(#"],"event":"#)
        endDelivery(partition: partition)
    }

    /// The recipients come into a large chat's audience, or go out of it, with this event.
    mutating func endRecipients(partition: Int32, _ move: AudienceMove, _ chat: ChatID) {
        json.bytes.append(move == .enter ? #"],"enter":""# : #"],"leave":""#)
        chat.uuid.appendText(to: &json.bytes)
        json.bytes.append(#"","event":"#)
        endDelivery(partition: partition)
    }

    /// The event goes to one device alone.
    mutating func endRecipients(partition: Int32, device: DeviceID) {
        json.bytes.append(#"],"device":""#)
        device.uuid.appendText(to: &json.bytes)
        json.bytes.append(#"","event":"#)
        endDelivery(partition: partition)
    }

    mutating func largeChat(_ chat: ChatID, partition: Int32) {
        beginRecord()
        json.bytes.append(#"{"chat":""#)
        chat.uuid.appendText(to: &json.bytes)
        json.bytes.append(#"","event":"#)
        endDelivery(partition: partition)
    }

    private mutating func endDelivery(partition: Int32) {
        Self.append(event, to: &json)
        json.bytes.append(UInt8(ascii: "}"))
        endRecord(.deliveries, partition: partition)
    }

    /// A function of its own because the compiler takes a span of `event` for one of all of `self`.
    @inline(__always)
    private static func append(_ event: borrowing JSONWriter, to json: inout JSONWriter) {
        json.bytes.append(event.bytes.span)
    }

    // MARK: Rejections

    /// Longer records are cut: a rejection is for people to read.
    static let rejectedBytesMax = 64 << 10

    mutating func reject(_ reason: Rejection, _ detail: String, partition: Int32, record: Span<UInt8>?) {
        beginRecord()
        let place = self.place
        json.object { json in
            json.field("reason", reason.rawValue)
            if !detail.isEmpty { json.field("detail", detail) }
            json.name("source")
            json.object { json in
                json.field("topic", utf8: place.topic.span)
                json.field("partition", place.partition)
                json.field("offset", place.offset)
            }
            guard let record else { return json.nullField("record") }
            if record.count <= Self.rejectedBytesMax, Self.isJSON(record) {
                json.field("record", raw: record)
            } else {
                let text = String(showing: record.extracting(0..<min(record.count, Self.rejectedBytesMax)))
                json.field("record", text)
            }
        }
        endRecord(.rejected, partition: partition)
    }

    private static func isJSON(_ bytes: Span<UInt8>) -> Bool {
        var reader = JSONReader(bytes)
        do throws(JSONError) {
            try reader.skipValue()
            try reader.finish()
            return true
        } catch {
            return false
        }
    }
}

/// Why a record is refused: the `reason` in `chat.rejected`, and the `code` of the sender's error event.
public enum Rejection: String, Sendable, CaseIterable {
    /// Not the JSON that the topic holds.
    case malformed
    /// The chat's key does not hash to the partition that the record is in.
    case wrongPartition = "wrong_partition"
    /// The sender is not in the chat, or there is no such chat: nobody is told which.
    case notMember = "not_member"
    /// Only the sender may edit a message; only the sender or an admin may delete it.
    case notAllowed = "not_allowed"
    /// What is to be edited or deleted is not a message of this chat, or no longer kept.
    case unknownMessage = "unknown_message"
    /// What would be made of it is larger than a record may be.
    case tooLarge = "too_large"
    /// What the message must be checked against (the membership that its sender has seen, or the message that it
    /// changes) could not be had in time.
    case unavailable

    var message: String {
        switch self {
        case .malformed: "the message cannot be read"
        case .wrongPartition: "the message is in the wrong place"
        case .notMember: "you are not a member of this chat"
        case .notAllowed: "you may not change this message"
        case .unknownMessage: "there is no such message"
        case .tooLarge: "the message is too large"
        case .unavailable: "the message cannot be checked at the moment; send it again"
        }
    }
}

enum AudienceMove: Sendable { case enter, leave }

extension [UInt8] {
    @inline(__always)
    mutating func append(_ text: String) {
        append(contentsOf: text.utf8)
    }
}
