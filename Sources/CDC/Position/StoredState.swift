internal import PostgresClient
internal import Wire

/// What CDC remembers in Kafka, beside the data that it is about: how far the topics hold the database's changes. It is
/// the metadata of the offset that the group `fanout.cdc.SLOT` has committed.
///
/// Written before a position is confirmed to Postgres, so a slot that is ahead of it has been moved by somebody else.
struct StoredState: Equatable {
    /// The database cluster's identity.
    var systemID: String
    var slot: String
    /// Everything that committed before is in Kafka.
    var position: LSN
    /// Tables that still have to be read whole; empty while streaming. `@gone` stands for the search for deleted rows.
    var unread: [String] = []
    /// Tables that were read by a later snapshot than the position: what this already showed is skipped.
    var filters: [SnapshotFilter] = []

    /// For rows that are in the topics and not in the database.
    static let gone = "@gone"

    enum Field: String, CaseIterable { case system, slot, lsn, unread, filters }
    enum FilterField: String, CaseIterable { case table, snapshot, until }
    private static let fields = JSONFields<Field>()
    private static let filterFields = JSONFields<FilterField>()

    var text: String {
        var json = JSONWriter()
        json.object {
            $0.field("system", systemID)
            $0.field("slot", slot)
            $0.field("lsn", position.description)
            if !unread.isEmpty {
                $0.name("unread")
                $0.array { json in for table in unread { json.value(table) } }
            }
            if !filters.isEmpty {
                $0.name("filters")
                $0.array { json in
                    for filter in filters {
                        json.object {
                            $0.field("table", filter.table)
                            $0.field("snapshot", filter.snapshot.text)
                            $0.field("until", filter.until.description)
                        }
                    }
                }
            }
        }
        return String(decoding: json.bytes, as: UTF8.self)
    }

    init(
        systemID: String, slot: String, position: LSN, unread: [String] = [], filters: [SnapshotFilter] = []
    ) {
        self.systemID = systemID
        self.slot = slot
        self.position = position
        self.unread = unread
        self.filters = filters
    }

    init?(text: String) {
        let bytes = [UInt8](text.utf8)
        guard let state = try? Self(decoding: bytes.span) else { return nil }
        self = state
    }

    private init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var reader = JSONReader(bytes)
        var system: String?
        var slot: String?
        var position: LSN?
        var unread: [String] = []
        var filters: [SnapshotFilter] = []
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .system: system = try reader.readText()
            case .slot: slot = try reader.readText()
            case .lsn: position = LSN(try reader.readText())
            case .unread:
                try reader.beginArray()
                while try reader.nextElement() { unread.append(try reader.readText()) }
            case .filters:
                try reader.beginArray()
                while try reader.nextElement() {
                    var filter = SnapshotFilter(table: "", snapshot: TransactionSnapshot(), until: .zero)
                    try reader.beginObject()
                    while let name = try reader.nextField() {
                        switch Self.filterFields.find(name, in: bytes) {
                        case .table: filter.table = try reader.readText()
                        case .snapshot: filter.snapshot = TransactionSnapshot(try reader.readText()) ?? filter.snapshot
                        case .until: filter.until = LSN(try reader.readText()) ?? .zero
                        case nil: try reader.skipValue()
                        }
                    }
                    filters.append(filter)
                }
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let system, let slot, let position else { throw JSONError(.missingField, at: bytes.count) }
        self.init(systemID: system, slot: slot, position: position, unread: unread, filters: filters)
    }
}

/// A table that was read with another snapshot than the slot's.
struct SnapshotFilter: Equatable {
    var table: String
    var snapshot: TransactionSnapshot
    /// Every transaction that the snapshot shows committed before this.
    var until: LSN
}

/// Which transactions a snapshot shows: Postgres' `xmin:xmax:xip,…`.
struct TransactionSnapshot: Equatable {
    var xmin: UInt64 = 0
    var xmax: UInt64 = 0
    var inProgress: [UInt64] = []

    init() {}

    init?(_ text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 3, let xmin = UInt64(parts[0]), let xmax = UInt64(parts[1]), xmin <= xmax else {
            return nil
        }
        let inProgress = parts[2].split(separator: ",").map { UInt64($0) }
        guard !inProgress.contains(nil) else { return nil }
        self.xmin = xmin
        self.xmax = xmax
        self.inProgress = inProgress.compactMap { $0 }
    }

    var text: String { "\(xmin):\(xmax):\(inProgress.map(String.init).joined(separator: ","))" }

    /// Whether a committed transaction is in it. The stream tells only the lower half of a transaction's number; the
    /// upper is that which puts it nearest.
    func shows(_ xid: UInt32) -> Bool {
        let distance = Int32(bitPattern: xid &- UInt32(truncatingIfNeeded: xmax))
        let full = UInt64(bitPattern: Int64(bitPattern: xmax) + Int64(distance))
        return full < xmin || full < xmax && !inProgress.contains(full)
    }
}
