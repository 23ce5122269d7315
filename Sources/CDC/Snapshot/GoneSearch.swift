internal import PostgresClient
internal import Wire

/// Finds the keys of a topic whose rows are gone, looking keys up in batches as the topic goes by, and hands each out as
/// it is found. Memory is bounded whatever the topic holds: what is remembered of those handed out only saves repeats,
/// which change nothing for whoever folds the topic.
struct GoneSearch {
    struct Table {
        var encoder: TableEncoder
        /// The SQL types of the key's columns.
        var types: [String]
        var rowFilter: String?
    }

    struct Entry: Hashable {
        var partition: Int32
        var key: [UInt8]
    }

    /// Answers which of the keys' rows are gone.
    typealias Lookup = (_ keys: [[String]], _ table: Table) throws(CDCError) -> [Int]
    /// Takes one that is.
    typealias Found = (_ entry: Entry, _ table: Table) throws(CDCError) -> Void

    private static let batchMax = 2_000
    private static let rememberedMax = 100_000

    private let tables: [Table]
    private let lookup: Lookup
    private let found: Found
    private var pending: [[Entry: [String]]]
    private var handedOut: Set<Entry> = []

    init(tables: [Table], lookup: @escaping Lookup, found: @escaping Found) {
        self.tables = tables
        self.lookup = lookup
        self.found = found
        pending = tables.map { _ in [:] }
    }

    mutating func see(
        _ topic: String, _ partition: Int32, _ key: Span<UInt8>, _ value: Span<UInt8>?
    ) throws(CDCError) {
        // A tombstone is no reason not to delete again: it may be of a transaction that CDC died in the middle of, and which
        // its readers wait for as a whole. It will not come again, since what comes now is a snapshot.
        guard let value else { return }
        let entry = Entry(partition: partition, key: [UInt8](copying: key))
        // What is no envelope of ours is left alone.
        guard let envelope = try? ChangeEnvelope(decoding: value),
            let index = tables.firstIndex(where: {
                $0.encoder.route.topic == topic && envelope.table.equals($0.encoder.route.table, in: value)
            }), let columns = Self.columns(of: key, tables[index].encoder.route.key)
        else { return }
        pending[index][entry] = columns
        if pending[index].count >= Self.batchMax { try settle(index) }
    }

    mutating func finish() throws(CDCError) {
        for index in tables.indices { try settle(index) }
    }

    private mutating func settle(_ index: Int) throws(CDCError) {
        if pending[index].isEmpty { return }
        let batch = Array(pending[index])
        pending[index].removeAll(keepingCapacity: true)
        for place in try lookup(batch.map(\.value), tables[index]) {
            guard handedOut.insert(batch[place].key).inserted else { continue }
            try found(batch[place].key, tables[index])
            if handedOut.count >= Self.rememberedMax { handedOut.removeAll(keepingCapacity: true) }
        }
    }

    /// The key's values as text; nil when it is not a key of these columns, or has a null in it.
    static func columns(of key: Span<UInt8>, _ names: [String]) -> [String]? {
        var values = [String?](repeating: nil, count: names.count)
        do throws(JSONError) {
            var reader = JSONReader(key)
            try reader.beginObject()
            while let field = try reader.nextField() {
                let place = names.firstIndex { field.equals($0, in: key) }
                switch try reader.peek() {
                case .string:
                    let text = try reader.readText()
                    if let place { values[place] = text }
                case .null: _ = try reader.skipValue()
                default:
                    let range = try reader.skipValue()
                    if let place { values[place] = String(showing: key.extracting(range)) }
                }
            }
            try reader.finish()
        } catch {
            return nil
        }
        return values.contains(nil) ? nil : values.compactMap { $0 }
    }
}
