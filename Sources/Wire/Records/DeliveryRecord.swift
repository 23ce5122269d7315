/// A value of `chat.deliveries`: one event for all its recipients in one delivery partition.
///
///     {"to":["user",…],"event":{…}}                  the recipients, listed
///     {"chat":"id","event":{…}}                      a large chat: whoever of its members is online
///     {"to":["user"],"device":"id","event":{…}}      an answer, for this device alone
///     {"to":["user",…],"enter":"id","event":{…}}     and from here on these users take the records of this large chat
///     {"to":["user",…],"leave":"id","event":{…}}     and from here on they no longer do
///
/// Who is in a large chat is declared by chat servers when they register a session. `enter` and `leave` keep that true
/// while the session lives: they stand on the event that tells a user of being added to a large chat or removed from
/// it, and, for all members, on the event with which a chat grows over the limit or shrinks below it.
///
/// The event's bytes are those that devices receive, but for the cursor: Delivery adds `,"cursor":"…"` before the
/// closing brace, the same for all recipients of the record, so a frame is still made once.
public struct DeliveryRecord: Equatable, Sendable {
    public enum Recipients: Equatable, Sendable {
        /// Where the raw JSON array of user ids stands.
        case users(Range<Int>)
        case largeChat(ChatID)
    }

    public var recipients: Recipients
    /// The only device of the recipient that the event is for.
    public var device: DeviceID?
    /// The large chat whose records the recipients take from here on.
    public var enters: ChatID?
    /// The large chat whose records the recipients no longer take.
    public var leaves: ChatID?
    /// Where the raw JSON object stands.
    public var event: Range<Int>

    enum Field: String, CaseIterable { case to, chat, event, device, enter, leave }
    private static let fields = JSONFields<Field>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var recipients: Recipients?
        var event: Range<Int>?
        (device, enters, leaves) = (nil, nil, nil)
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .to:
                guard try reader.peek() == .array else { throw JSONError(.wrongType, at: reader.offset) }
                recipients = .users(try reader.skipValue())
            case .chat: recipients = .largeChat(try reader.readID())
            case .device: device = try reader.readID()
            case .enter: enters = try reader.readID()
            case .leave: leaves = try reader.readID()
            case .event:
                guard try reader.peek() == .object else { throw JSONError(.wrongType, at: reader.offset) }
                event = try reader.skipValue()
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let recipients, let event else { throw JSONError(.missingField, at: bytes.count) }
        (self.recipients, self.event) = (recipients, event)
    }

    /// Calls the body with each listed recipient, in the record's order.
    @inlinable
    public static func forEachUser(
        in array: Range<Int>, of bytes: Span<UInt8>, _ body: (UserID) -> Void
    ) throws(JSONError) {
        var reader = JSONReader(bytes.extracting(array))
        try reader.beginArray()
        while try reader.nextElement() { body(try reader.readID()) }
    }
}
