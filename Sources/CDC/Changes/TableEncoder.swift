internal import PostgresClient
internal import Wire

/// A table as the stream presents it now, with all that can be said about its rows beforehand: the JSON between values,
/// which columns make the key and which the partition.
final class TableEncoder {
    struct Column {
        /// `{"chat_id":` or `,"user_id":`.
        var prefix: [UInt8]
        var name: String
        var type: UInt32
        var kind: ColumnKind
    }

    let route: TableRoute
    let topic: Int
    let partitions: Int32
    let relation: Relation
    let columns: [Column]
    let keyColumns: [Int]
    let keyPrefixes: [[UInt8]]
    let partitionColumn: Int
    private let sourceHead: [UInt8]
    private var tail: [UInt8] = []
    private var tailFor: UInt64 = 0

    init(
        _ relation: Relation, route: TableRoute, topic: Int, partitions: Int32, database: String, binary: Bool = false
    ) throws(CDCError) {
        self.route = route
        self.topic = topic
        self.partitions = partitions
        self.relation = relation
        columns = relation.columns.enumerated().map { index, column in
            Column(
                prefix: Self.prefix(column.name, isFirst: index == 0), name: column.name, type: column.type,
                kind: ColumnKind(type: column.type))
        }
        var keyColumns: [Int] = []
        for name in route.key {
            guard let index = relation.columns.firstIndex(where: { $0.name == name }) else {
                throw CDCError(
                    .configuration,
                    "table \(route.name) has no column \(name), which is to be in the key of its records")
            }
            guard relation.identity == .full || relation.columns[index].isKey else {
                throw CDCError(
                    .configuration,
                    "column \(name) of \(route.name) is not in the replica identity, so a deleted row would not tell its key",
                    hint: "ALTER TABLE \(route.name) REPLICA IDENTITY FULL")
            }
            keyColumns.append(index)
        }
        self.keyColumns = keyColumns
        if binary { try Self.checkBinary(relation, route) }
        keyPrefixes = route.key.enumerated().map { Self.prefix($0.element, isFirst: $0.offset == 0) }
        partitionColumn = keyColumns[route.key.firstIndex(of: route.partition) ?? 0]
        var json = JSONWriter()
        json.beginObject()
        json.field("db", database)
        json.field("schema", relation.schema)
        json.field("table", relation.name)
        sourceHead = [UInt8](#","source":"#.utf8) + json.bytes + [UInt8](#","lsn":"#.utf8)
    }

    /// What cannot be written is told before the first row of it comes.
    private static func checkBinary(_ relation: Relation, _ route: TableRoute) throws(CDCError) {
        for column in relation.columns {
            let isKey = route.key.contains(column.name)
            // Bytes choose a partition by their text.
            let isBytesPartition = column.name == route.partition && column.type == PostgresType.bytea
            if isBytesPartition || !(isKey ? BinaryValue.isKnownInKey(column.type) : BinaryValue.isKnown(column.type)) {
                throw CDCError(
                    .configuration,
                    "column \(column.name) of \(route.name) has a type (\(column.type)) that cannot be read in binary"
                        + (isKey ? " as part of a key" : ""), hint: "fanout cdc without --binary")
            }
        }
    }

    private static func prefix(_ name: String, isFirst: Bool) -> [UInt8] {
        var json = JSONWriter()
        json.value(name)
        return [UInt8(ascii: isFirst ? "{" : ",")] + json.bytes + [UInt8(ascii: ":")]
    }

    /// What follows the rows in an envelope: the same for all changes of a table in one transaction.
    func tail(_ context: ChangeContext) -> [UInt8] {
        if tailFor == context.id { return tail }
        tail.removeAll(keepingCapacity: true)
        tail.append(contentsOf: sourceHead)
        tail.appendDecimal(context.lsn.value)
        tail.append(contentsOf: #","txId":"#.utf8)
        if let xid = context.xid { tail.appendDecimal(xid) } else { tail.append(contentsOf: ValueWriter.null) }
        tail.append(contentsOf: #","ts_ms":"#.utf8)
        tail.appendDecimal(context.commitMs)
        tail.append(contentsOf: #","snapshot":"#.utf8)
        tail.append(contentsOf: context.snapshot == .none ? ValueWriter.no : ValueWriter.yes)
        if context.snapshot == .again { tail.append(contentsOf: #","again":true"#.utf8) }
        tail.append(contentsOf: #"},"ts_ms":"#.utf8)
        tail.appendDecimal(context.nowMs)
        tail.append(UInt8(ascii: "}"))
        tailFor = context.id
        return tail
    }
}

/// What all changes of one transaction have in common.
struct ChangeContext {
    enum Snapshot {
        case none
        /// The topic was empty: nobody can have missed anything.
        case first
        /// The topic had records, so whoever follows it may find changes here that came no other way.
        case again
    }

    /// Another for each transaction and each moment.
    var id: UInt64
    /// Where the transaction committed: the same for all its changes, and growing from one to the next.
    var lsn: LSN
    var xid: UInt32?
    var commitMs: Int64
    var snapshot: Snapshot
    var nowMs: Int64
}
