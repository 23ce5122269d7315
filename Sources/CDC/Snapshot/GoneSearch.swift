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
            })
        else { return }
        let encoder = tables[index].encoder
        switch Self.read(key, encoder.route.key, encoder.keyColumns.map { encoder.columns[$0].kind }) {
        case .columns(let columns):
            pending[index][entry] = columns
            if pending[index].count >= Self.batchMax { try settle(index) }
        case .former: try hand(entry, tables[index])
        case .unknown: break
        }
    }

    mutating func finish() throws(CDCError) {
        for index in tables.indices { try settle(index) }
    }

    private mutating func settle(_ index: Int) throws(CDCError) {
        if pending[index].isEmpty { return }
        let batch = Array(pending[index])
        pending[index].removeAll(keepingCapacity: true)
        for place in try lookup(batch.map(\.value), tables[index]) { try hand(batch[place].key, tables[index]) }
    }

    private mutating func hand(_ entry: Entry, _ table: Table) throws(CDCError) {
        guard handedOut.insert(entry).inserted else { return }
        try found(entry, table)
        if handedOut.count >= Self.rememberedMax { handedOut.removeAll(keepingCapacity: true) }
    }

    enum Key: Equatable {
        /// Its values, as text.
        case columns([String])
        /// Of other columns, or of another type, than the table's key is now: no row will be written under it again.
        case former
        /// With a null in it, or no JSON object.
        case unknown
    }

    static func read(_ key: Span<UInt8>, _ names: [String], _ kinds: [ColumnKind]) -> Key {
        var values = [String?](repeating: nil, count: names.count)
        var isFormer = false
        var hasNull = false
        do throws(JSONError) {
            var reader = JSONReader(key)
            try reader.beginObject()
            while let field = try reader.nextField() {
                let kind = try reader.peek()
                guard let place = names.firstIndex(where: { field.equals($0, in: key) }) else {
                    isFormer = true
                    _ = try reader.skipValue()
                    continue
                }
                switch kind {
                case .string:
                    values[place] = try reader.readText()
                    if kinds[place] == .integer || kinds[place] == .bool { isFormer = true }
                case .null:
                    hasNull = true
                    _ = try reader.skipValue()
                default:
                    values[place] = String(showing: key.extracting(try reader.skipValue()))
                    if kind != (kinds[place] == .bool ? .bool : .number) || kinds[place].isTextInKey { isFormer = true }
                }
            }
            try reader.finish()
        } catch {
            return .unknown
        }
        if hasNull { return .unknown }
        let known = values.compactMap { $0 }
        return isFormer || known.count < names.count ? .former : .columns(known)
    }
}
