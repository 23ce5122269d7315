/// What the push stage says of itself, for whoever looks on: the metadata of the offsets that it commits. A record of
/// `chat.push` waits on purpose, until its notice is due; so how late the stage is does not follow from the record's age.
///
///     {"at":1764534692000,"due":1764534690000}
public struct PushNote: Equatable, Sendable {
    /// When it was said, in milliseconds. While records wait it is said every five seconds.
    public var atMs: Int64
    /// Since when the oldest notice that is not on its way has been due; nil when none is.
    public var dueMs: Int64?

    private enum Field: String, CaseIterable { case at, due }
    private static let fields = JSONFields<Field>()

    public init(atMs: Int64, dueMs: Int64?) {
        self.atMs = atMs
        self.dueMs = dueMs
    }

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var at: Int64?
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .at: at = try reader.readInt()
            case .due: dueMs = try reader.readInt()
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let at else { throw JSONError(.missingField, at: bytes.count) }
        atMs = at
    }

    public var text: String {
        var json = JSONWriter()
        json.object {
            $0.field("at", atMs)
            if let dueMs { $0.field("due", dueMs) }
        }
        return String(decoding: json.bytes, as: UTF8.self)
    }
}
