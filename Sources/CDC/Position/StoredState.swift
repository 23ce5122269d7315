internal import PostgresClient
internal import Wire

/// What CDC remembers in Kafka, beside the data that it is about: how far the topics hold the database's changes. It is
/// the metadata of the offset that the group `fanout.cdc.SLOT` has committed.
///
/// Written before a position is confirmed to Postgres, so a slot that is ahead of it has been moved by somebody else.
struct StoredState: Equatable {
    /// The database cluster's identity.
    var systemID: String
    /// Nil in what versions before these have stored.
    var databaseID: UInt32?
    /// The server's timeline: it begins another where it is restored from a backup, and where a standby takes over.
    var timeline: Int64?
    var slot: String
    /// Everything that committed before is in Kafka.
    var position: LSN
    /// A time of the database's clock when everything that had committed was before the position; nil until the first
    /// heartbeat.
    var atMs: Int64?
    /// The first topic, in the order of their names, whose tables still have to be read whole; nil while streaming. One
    /// name stands for all that follow it, so that this stays small however many there are.
    var unreadFrom: String?
    /// Topics that were read by a later snapshot than the position: what this already showed is skipped.
    var filters: [SnapshotFilter] = []

    /// Topics that are not written for the time being.
    var aside: [Aside] = []
    /// The marks of the topics that are known to hold what their tables held at the position; nil in what versions before
    /// these have stored.
    var marks: Set<String>?

    /// What Kafka takes as the metadata of an offset, unless told otherwise (`offset.metadata.max.bytes`).
    static let bytesMax = 4096

    enum Field: String, CaseIterable { case system, database, timeline, slot, lsn, at, unread, filters, aside, marks }
    enum AsideField: String, CaseIterable { case topic, table, lsn, why }
    enum FilterField: String, CaseIterable { case from, through, snapshot, until }
    private static let fields = JSONFields<Field>()
    private static let asideFields = JSONFields<AsideField>()
    private static let filterFields = JSONFields<FilterField>()

    var text: String {
        var json = JSONWriter()
        json.object {
            $0.field("system", systemID)
            if let databaseID { $0.field("database", Int64(databaseID)) }
            if let timeline { $0.field("timeline", timeline) }
            $0.field("slot", slot)
            $0.field("lsn", position.description)
            if let atMs { $0.field("at", atMs) }
            if let unreadFrom { $0.field("unread", unreadFrom) }
            if !filters.isEmpty {
                $0.name("filters")
                $0.array { json in
                    for filter in filters {
                        json.object {
                            $0.field("from", filter.from)
                            if let through = filter.through { $0.field("through", through) }
                            $0.field("snapshot", filter.snapshot.short)
                            $0.field("until", filter.until.description)
                        }
                    }
                }
            }
            if !aside.isEmpty {
                $0.name("aside")
                $0.array { json in
                    for aside in aside {
                        json.object {
                            $0.field("topic", aside.topic)
                            $0.field("table", aside.table)
                            $0.field("lsn", aside.since.description)
                            if !aside.reason.isEmpty { $0.field("why", aside.reason) }
                        }
                    }
                }
            }
            if let marks { $0.field("marks", marks.sorted().joined(separator: " ")) }
        }
        return String(decoding: json.bytes, as: UTF8.self)
    }

    init(
        systemID: String, slot: String, position: LSN, unreadFrom: String? = nil, filters: [SnapshotFilter] = []
    ) {
        self.systemID = systemID
        self.slot = slot
        self.position = position
        self.unreadFrom = unreadFrom
        self.filters = filters
    }

    /// Those of the topics that still have to be read.
    func unread(of topics: [String]) -> [String] {
        unreadFrom.map { first in topics.filter { $0 >= first }.sorted() } ?? []
    }

    /// Notes that topics were read by a snapshot. An earlier one of the same topics showed nothing that this does not.
    mutating func note(_ filter: SnapshotFilter) {
        filters.removeAll { $0.from == filter.from && $0.through == filter.through }
        filters.append(filter)
    }

    mutating func putAside(_ new: Aside) {
        aside.removeAll { $0.topic == new.topic }
        aside.append(new)
        // The log has told why.
        if !fits { for index in aside.indices { aside[index].reason = "" } }
    }

    /// A topic has been read whole, with the marks that all topics have now. Former ones are forgotten: a table that becomes
    /// again what it once was has missed what came between.
    mutating func takeBack(_ topic: String, _ present: [String: String]) {
        aside.removeAll { $0.topic == topic }
        marks = marks?.intersection(present.values)
        if let mark = present[topic] { marks?.insert(mark) }
    }

    var fits: Bool { text.utf8.count <= Self.bytesMax }

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
        var databaseID: UInt32?
        var timeline: Int64?
        var atMs: Int64?
        var unreadFrom: String?
        var filters: [SnapshotFilter] = []
        var aside: [Aside] = []
        var marks: Set<String>?
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .system: system = try reader.readText()
            case .database: databaseID = UInt32(truncatingIfNeeded: try reader.readInt())
            case .timeline: timeline = try reader.readInt()
            case .slot: slot = try reader.readText()
            case .lsn: position = LSN(try reader.readText())
            case .at: atMs = try reader.readInt()
            case .unread: unreadFrom = try reader.readText()
            case .filters:
                try reader.beginArray()
                while try reader.nextElement() {
                    var filter = SnapshotFilter(from: "", snapshot: TransactionSnapshot(), until: .zero)
                    try reader.beginObject()
                    while let name = try reader.nextField() {
                        switch Self.filterFields.find(name, in: bytes) {
                        case .from: filter.from = try reader.readText()
                        case .through: filter.through = try reader.readText()
                        case .snapshot:
                            // Without it the filter would show too little, and what it hides be written twice.
                            guard let snapshot = TransactionSnapshot(short: try reader.readText()) else {
                                throw JSONError(.badValue, at: 0)
                            }
                            filter.snapshot = snapshot
                        case .until: filter.until = LSN(try reader.readText()) ?? .zero
                        case nil: try reader.skipValue()
                        }
                    }
                    filters.append(filter)
                }
            case .aside:
                try reader.beginArray()
                while try reader.nextElement() { aside.append(try Self.aside(&reader, bytes)) }
            case .marks: marks = Set(try reader.readText().split(separator: " ").map(String.init))
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let system, let slot, let position else { throw JSONError(.missingField, at: bytes.count) }
        self.init(systemID: system, slot: slot, position: position, unreadFrom: unreadFrom, filters: filters)
        (self.databaseID, self.timeline, self.atMs) = (databaseID, timeline, atMs)
        (self.aside, self.marks) = (aside, marks)
    }
}

extension StoredState {
    private static func aside(_ reader: inout JSONReader, _ bytes: Span<UInt8>) throws(JSONError) -> Aside {
        var aside = Aside(topic: "", table: "", since: .zero, reason: "")
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch asideFields.find(name, in: bytes) {
            case .topic: aside.topic = try reader.readText()
            case .table: aside.table = try reader.readText()
            case .lsn: aside.since = LSN(try reader.readText()) ?? .zero
            case .why: aside.reason = try reader.readText()
            case nil: try reader.skipValue()
            }
        }
        return aside
    }
}

/// Topics whose tables were read with another snapshot than the slot's.
struct SnapshotFilter: Equatable {
    var from: String
    /// The last of them in the order of their names; nil: all from `from` on.
    var through: String?
    var snapshot: TransactionSnapshot
    /// Every transaction that the snapshot shows committed before this.
    var until: LSN

    func covers(_ topic: String) -> Bool { topic >= from && through.map { topic <= $0 } ?? true }
}

/// Which transactions a snapshot shows: Postgres' `xmin:xmax:xip,…`. Kept in a shorter form, `xmin:xmax+…`, where each
/// number under way is told as its distance from the one before it, in base 36: mostly two characters each, so that a
/// thousand of them fit beside an offset.
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
        self.inProgress = inProgress.compactMap { $0 }.sorted()
    }

    init?(short text: String) {
        let parts = text.split(separator: "+", omittingEmptySubsequences: false)
        let ends = parts.first?.split(separator: ":").map { UInt64($0) } ?? []
        guard ends.count == 2, let xmin = ends[0], let xmax = ends[1], xmin <= xmax else { return nil }
        self.xmin = xmin
        self.xmax = xmax
        var last = xmin
        for part in parts.dropFirst() {
            guard let distance = UInt64(part, radix: 36), distance <= xmax - last else { return nil }
            last += distance
            inProgress.append(last)
        }
    }

    var short: String {
        var text = "\(xmin):\(xmax)"
        var last = xmin
        for xid in inProgress {
            text += "+" + String(xid - last, radix: 36)
            last = xid
        }
        return text
    }

    /// Whether a committed transaction is in it. The stream tells only the lower half of a transaction's number; the
    /// upper is that which puts it nearest.
    func shows(_ xid: UInt32) -> Bool {
        let distance = Int32(bitPattern: xid &- UInt32(truncatingIfNeeded: xmax))
        let full = UInt64(bitPattern: Int64(bitPattern: xmax) + Int64(distance))
        return full < xmin || full < xmax && !inProgress.contains(full)
    }
}
