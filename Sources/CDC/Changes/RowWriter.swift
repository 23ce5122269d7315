internal import Wire

/// Where records go.
protocol ChangeSink: AnyObject {
    func write(topic: Int, partition: Int32, key: Span<UInt8>, value: Span<UInt8>?) throws(CDCError)
}

/// Turns rows into records: the change envelope as value, the key's columns as key, a tombstone after each delete. Works
/// from the bytes of the stream straight into two buffers that it keeps, so a row costs no allocation.
struct RowWriter {
    private var key: [UInt8] = []
    private var value: [UInt8] = []
    private var new: [ColumnSlot] = []
    private var old: [ColumnSlot] = []
    private var oldKey: [UInt8] = []
    /// A record larger than this would be refused by the broker, so it goes with its key only, marked as cut.
    var valueBytesMax = 900_000
    private(set) var cutCount = 0

    private static let openCreate = [UInt8](#"{"op":"c","before":null,"after":"#.utf8)
    private static let openRead = [UInt8](#"{"op":"r","before":null,"after":"#.utf8)
    private static let openUpdate = [UInt8](#"{"op":"u","before":"#.utf8)
    private static let openDelete = [UInt8](#"{"op":"d","before":"#.utf8)
    private static let after = [UInt8](#","after":"#.utf8)
    private static let afterNull = [UInt8](#","after":null"#.utf8)
    private static let truncated = [UInt8](#","truncated":true"#.utf8)

    // MARK: Changes

    mutating func insert(
        _ table: TableEncoder, _ tuple: Tuple, in bytes: Span<UInt8>, _ context: ChangeContext,
        to sink: some ChangeSink
    ) throws(CDCError) {
        try Self.slots(of: tuple, in: bytes, table, &new)
        try create(table, bytes, context, Self.openCreate, to: sink)
    }

    mutating func update(
        _ table: TableEncoder, _ oldTuple: OldTuple?, _ tuple: Tuple, in bytes: Span<UInt8>, _ context: ChangeContext,
        to sink: some ChangeSink
    ) throws(CDCError) {
        try Self.slots(of: tuple, in: bytes, table, &new)
        guard let oldTuple else {
            value.removeAll(keepingCapacity: true)
            value.append(contentsOf: Self.openUpdate)
            value.append(contentsOf: ValueWriter.null)
            value.append(contentsOf: Self.after)
            try row(table, new, bytes)
            try Self.write(keyOf: table, new, bytes, to: &key)
            try finish(table, new, bytes, context, to: sink)
            return
        }
        try Self.slots(of: oldTuple.tuple, in: bytes, table, &old)
        // A large value that the update did not touch stands in the old row, when that is whole.
        for index in new.indices where new[index].kind == .unchanged && old[index].hasValue { new[index] = old[index] }
        try Self.write(keyOf: table, old, bytes, to: &oldKey)
        try Self.write(keyOf: table, new, bytes, to: &key)
        guard key == oldKey else {
            // Another key is another row to whoever follows the topic.
            try delete(table, bytes, isKeyOnly: oldTuple.isKeyOnly, context, to: sink)
            try Self.write(keyOf: table, new, bytes, to: &key)
            return try create(table, bytes, context, Self.openCreate, to: sink)
        }
        value.removeAll(keepingCapacity: true)
        value.append(contentsOf: Self.openUpdate)
        if oldTuple.isKeyOnly { try keyRow(table, old, bytes) } else { try row(table, old, bytes) }
        value.append(contentsOf: Self.after)
        try row(table, new, bytes)
        try finish(table, new, bytes, context, to: sink)
    }

    mutating func delete(
        _ table: TableEncoder, _ oldTuple: OldTuple, in bytes: Span<UInt8>, _ context: ChangeContext,
        to sink: some ChangeSink
    ) throws(CDCError) {
        try Self.slots(of: oldTuple.tuple, in: bytes, table, &old)
        try delete(table, bytes, isKeyOnly: oldTuple.isKeyOnly, context, to: sink)
    }

    /// A row that a snapshot has read, as COPY's text format gives it.
    mutating func read(
        _ table: TableEncoder, _ row: borrowing CopyRow, _ context: ChangeContext, to sink: some ChangeSink
    ) throws(CDCError) {
        guard row.slots.count == table.columns.count else {
            throw CDCError(.protocol, "COPY of \(table.route.name) gave \(row.slots.count) columns")
        }
        new.removeAll(keepingCapacity: true)
        new.append(contentsOf: row.slots)
        try create(table, row.bytes.span, context, Self.openRead, to: sink)
    }

    /// A delete of which nothing is known but the key, written as it stands in the topic.
    mutating func delete(
        _ table: TableEncoder, key: Span<UInt8>, partition: Int32, _ context: ChangeContext,
        to sink: some ChangeSink
    ) throws(CDCError) {
        value.removeAll(keepingCapacity: true)
        value.append(contentsOf: Self.openDelete)
        value.append(key)
        value.append(contentsOf: Self.afterNull)
        value.append(contentsOf: table.tail(context))
        try sink.write(topic: table.topic, partition: partition, key: key, value: value.span)
        try sink.write(topic: table.topic, partition: partition, key: key, value: nil)
    }

    // MARK: Pieces

    private mutating func create(
        _ table: TableEncoder, _ bytes: Span<UInt8>, _ context: ChangeContext, _ open: [UInt8],
        to sink: some ChangeSink
    ) throws(CDCError) {
        value.removeAll(keepingCapacity: true)
        value.append(contentsOf: open)
        try row(table, new, bytes)
        try Self.write(keyOf: table, new, bytes, to: &key)
        try finish(table, new, bytes, context, to: sink)
    }

    private mutating func delete(
        _ table: TableEncoder, _ bytes: Span<UInt8>, isKeyOnly: Bool, _ context: ChangeContext,
        to sink: some ChangeSink
    ) throws(CDCError) {
        try Self.write(keyOf: table, old, bytes, to: &key)
        value.removeAll(keepingCapacity: true)
        value.append(contentsOf: Self.openDelete)
        if isKeyOnly { try keyRow(table, old, bytes) } else { try row(table, old, bytes) }
        value.append(contentsOf: Self.afterNull)
        let partition = try finish(table, old, bytes, context, to: sink)
        try sink.write(topic: table.topic, partition: partition, key: key.span, value: nil)
    }

    @discardableResult
    private mutating func finish(
        _ table: TableEncoder, _ slots: [ColumnSlot], _ bytes: Span<UInt8>, _ context: ChangeContext,
        to sink: some ChangeSink
    ) throws(CDCError) -> Int32 {
        value.append(contentsOf: table.tail(context))
        if value.count > valueBytesMax { try cut(table, context) }
        let slot = slots[table.partitionColumn]
        let partition: Int32
        if slot.kind == .text {
            partition = Wire.partition(forKey: bytes.extracting(slot.range), count: table.partitions)
        } else {
            partition = try binaryPartition(table, slot, bytes)
        }
        try sink.write(topic: table.topic, partition: partition, key: key.span, value: value.span)
        return partition
    }

    private mutating func cut(_ table: TableEncoder, _ context: ChangeContext) throws(CDCError) {
        cutCount += 1
        let operation = value[7]
        value.removeAll(keepingCapacity: true)
        let isDelete = operation == UInt8(ascii: "d")
        value.append(contentsOf: isDelete ? Self.openDelete : Self.openCreate)
        value[7] = operation
        value.append(contentsOf: key)
        if isDelete { value.append(contentsOf: Self.afterNull) }
        value.append(contentsOf: Self.truncated)
        value.append(contentsOf: table.tail(context))
    }

    private func binaryPartition(
        _ table: TableEncoder, _ slot: ColumnSlot, _ bytes: Span<UInt8>
    ) throws(CDCError) -> Int32 {
        let column = table.columns[table.partitionColumn]
        var text: [UInt8] = []
        if slot.kind != .binary {
            // Nothing to choose by, but always the same.
            try Self.write(slot, column, bytes, isKey: true, to: &text)
        } else if !BinaryValue.appendText(bytes.extracting(slot.range), type: column.type, to: &text) {
            throw CDCError(.protocol, "the binary form of column \(column.name) (type \(column.type)) is not known")
        }
        return Wire.partition(forKey: text.span, count: table.partitions)
    }

    private mutating func row(
        _ table: TableEncoder, _ slots: [ColumnSlot], _ bytes: Span<UInt8>
    ) throws(CDCError) {
        if slots.isEmpty { value.append(UInt8(ascii: "{")) }
        for index in slots.indices {
            value.append(contentsOf: table.columns[index].prefix)
            try Self.write(slots[index], table.columns[index], bytes, isKey: false, to: &value)
        }
        value.append(UInt8(ascii: "}"))
    }

    /// Only what the replica identity tells of an old row.
    private mutating func keyRow(
        _ table: TableEncoder, _ slots: [ColumnSlot], _ bytes: Span<UInt8>
    ) throws(CDCError) {
        var isFirst = true
        for index in slots.indices where table.relation.columns[index].isKey {
            value.append(UInt8(ascii: isFirst ? "{" : ","))
            value.append(contentsOf: table.columns[index].prefix.dropFirst())
            try Self.write(slots[index], table.columns[index], bytes, isKey: false, to: &value)
            isFirst = false
        }
        if isFirst { value.append(UInt8(ascii: "{")) }
        value.append(UInt8(ascii: "}"))
    }

    private static func write(
        keyOf table: TableEncoder, _ slots: [ColumnSlot], _ bytes: Span<UInt8>, to key: inout [UInt8]
    ) throws(CDCError) {
        key.removeAll(keepingCapacity: true)
        for (place, index) in table.keyColumns.enumerated() {
            key.append(contentsOf: table.keyPrefixes[place])
            try write(slots[index], table.columns[index], bytes, isKey: true, to: &key)
        }
        key.append(UInt8(ascii: "}"))
    }

    @inline(__always)
    private static func write(
        _ slot: ColumnSlot, _ column: TableEncoder.Column, _ bytes: Span<UInt8>, isKey: Bool, to output: inout [UInt8]
    ) throws(CDCError) {
        switch slot.kind {
        case .text:
            // A key keeps what milliseconds would lose.
            let kind = isKey && column.kind == .timestamp ? .plain : column.kind
            ValueWriter.append(text: bytes.extracting(slot.range), as: kind, to: &output)
        case .null: output.append(contentsOf: ValueWriter.null)
        case .unchanged: output.append(contentsOf: ValueWriter.unavailable)
        case .binary:
            guard BinaryValue.append(bytes.extracting(slot.range), type: column.type, to: &output) else {
                throw CDCError(.protocol, "the binary form of column \(column.name) (type \(column.type)) is not known")
            }
        }
    }

    /// Finds a row's columns in bytes that the decoder has checked.
    private static func slots(
        of tuple: Tuple, in bytes: Span<UInt8>, _ table: TableEncoder, _ slots: inout [ColumnSlot]
    ) throws(CDCError) {
        guard tuple.columns == table.columns.count else {
            throw CDCError(.protocol, "a row of \(table.route.name) has \(tuple.columns) columns")
        }
        slots.removeAll(keepingCapacity: true)
        var offset = tuple.bytes.lowerBound
        for _ in 0..<tuple.columns {
            let kind = bytes[offset]
            offset &+= 1
            switch kind {
            case UInt8(ascii: "n"): slots.append(ColumnSlot(kind: .null, start: 0, end: 0))
            case UInt8(ascii: "u"): slots.append(ColumnSlot(kind: .unchanged, start: 0, end: 0))
            default:
                let length =
                    Int(bytes[offset]) << 24 | Int(bytes[offset &+ 1]) << 16 | Int(bytes[offset &+ 2]) << 8
                    | Int(bytes[offset &+ 3])
                offset &+= 4
                slots.append(
                    ColumnSlot(
                        kind: kind == UInt8(ascii: "t") ? .text : .binary, start: offset, end: offset &+ length))
                offset &+= length
            }
        }
    }
}
