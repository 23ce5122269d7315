internal import PostgresClient
internal import Wire

/// Finds the keys of a topic whose rows are gone, looking keys up in batches as the topic goes by. Memory follows the
/// number of rows that are gone, not the number of rows.
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

    private static let batchMax = 2_000

    private let tables: [Table]
    private var pending: [[Entry: [String]]]
    private var found: [Set<Entry>]

    init(tables: [Table]) {
        self.tables = tables
        pending = tables.map { _ in [:] }
        found = tables.map { _ in [] }
    }

    init(routes: [TableRoute], _ session: Session) throws(CDCError) {
        var tables: [Table] = []
        for route in routes {
            let table = try session.database.table(route, publication: session.configuration.publication)
            guard let encoder = try session.encoder(for: table.relation) else { continue }
            tables.append(
                Table(
                    encoder: encoder, types: encoder.keyColumns.map { table.typeNames[$0] }, rowFilter: table.rowFilter)
            )
        }
        self.init(tables: tables)
    }

    var gone: [(table: TableEncoder, keys: Set<Entry>)] { zip(tables, found).map { ($0.encoder, $1) } }

    mutating func see(
        _ topic: String, _ partition: Int32, _ key: Span<UInt8>, _ value: Span<UInt8>?, _ lookup: Lookup
    ) throws(CDCError) {
        let entry = Entry(partition: partition, key: [UInt8](copying: key))
        guard let value else {
            for index in tables.indices where tables[index].encoder.route.topic == topic {
                pending[index][entry] = nil
                found[index].remove(entry)
            }
            return
        }
        // What is no envelope of ours is left alone.
        guard let envelope = try? ChangeEnvelope(decoding: value),
            let index = tables.firstIndex(where: {
                $0.encoder.route.topic == topic && envelope.table.equals($0.encoder.route.table, in: value)
            }), let columns = Self.columns(of: key, tables[index].encoder.route.key)
        else { return }
        pending[index][entry] = columns
        if pending[index].count >= Self.batchMax { try settle(index, lookup) }
    }

    mutating func finish(_ lookup: Lookup) throws(CDCError) {
        for index in tables.indices { try settle(index, lookup) }
    }

    private mutating func settle(_ index: Int, _ lookup: Lookup) throws(CDCError) {
        if pending[index].isEmpty { return }
        let batch = Array(pending[index])
        pending[index].removeAll(keepingCapacity: true)
        for place in try lookup(batch.map(\.value), tables[index]) { found[index].insert(batch[place].key) }
    }

    /// The key's values as text; nil when it is not a key of these columns.
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
