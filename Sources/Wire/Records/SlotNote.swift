/// What CDC says of itself, for whoever looks on: the metadata of the offset that the group `fanout.cdc.SLOT` has
/// committed. It holds more, which is CDC's own.
///
///     {"slot":"fanout","lsn":"0/199CC58","at":1764534692000,"aside":[{"topic":…,"table":…,"lsn":…,"why":…}],…}
public struct SlotNote: Equatable, Sendable {
    /// A topic that CDC does not write at present, because one of its tables cannot be followed.
    public struct Aside: Equatable, Sendable {
        public var topic = ""
        /// The table on account of which, with its schema.
        public var table = ""
        /// From where on the topic lacks changes.
        public var position = ""
        public var reason = ""
    }

    public var slot: String
    /// Everything that committed before is in Kafka.
    public var position: String
    /// A time of the database's clock, in milliseconds: everything that had committed by then is in Kafka. CDC writes one
    /// every five seconds. Nil before the first.
    public var atMs: Int64?
    public var aside: [Aside] = []

    enum Field: String, CaseIterable { case slot, lsn, at, aside }
    enum AsideField: String, CaseIterable { case topic, table, lsn, why }
    private static let fields = JSONFields<Field>()
    private static let asideFields = JSONFields<AsideField>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var slot: String?
        var position: String?
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .slot: slot = try reader.readText()
            case .lsn: position = try reader.readText()
            case .at: atMs = try reader.readInt()
            case .aside:
                try reader.beginArray()
                while try reader.nextElement() { aside.append(try Self.aside(&reader, bytes)) }
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let slot, let position else { throw JSONError(.missingField, at: bytes.count) }
        (self.slot, self.position) = (slot, position)
    }

    private static func aside(_ reader: inout JSONReader, _ bytes: Span<UInt8>) throws(JSONError) -> Aside {
        var aside = Aside()
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch asideFields.find(name, in: bytes) {
            case .topic: aside.topic = try reader.readText()
            case .table: aside.table = try reader.readText()
            case .lsn: aside.position = try reader.readText()
            case .why: aside.reason = try reader.readText()
            case nil: try reader.skipValue()
            }
        }
        return aside
    }
}
