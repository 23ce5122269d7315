internal import PostgresClient

/// A topic that is not written for the time being, since a table of it cannot be followed. It is a topic and not a table
/// because the tables of a topic are one: a chat's version means nothing without the members that it counts.
struct Aside: Equatable {
    var topic: String
    /// The table on account of which, with its schema.
    var table: String
    /// The first transaction of which the topic lacks changes.
    var since: LSN
    var reason: String

    /// Beside the others' in 4 KiB.
    static let reasonBytesMax = 160

    init(topic: String, table: String, since: LSN, reason: String) {
        (self.topic, self.table, self.since) = (topic, table, since)
        self.reason = reason
        while self.reason.utf8.count > Self.reasonBytesMax { self.reason.removeLast() }
    }
}

/// What tables are, whatever is in them: which of the database's objects, by which entry of the publication, with which
/// key. When that is another than it was, rows may have come or gone without a word in the log.
struct TableIdentity: Equatable {
    var tableID: UInt32
    var text: String

    /// The mark of a topic: eight characters that stand for the topic, its tables and their identities. All topics' are
    /// remembered; a doubled one would need a hundred thousand of them.
    static func mark(_ topic: String, _ tables: [(route: TableRoute, identity: TableIdentity)]) -> String {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        func add(_ text: String) {
            for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
            hash = (hash ^ 0xff) &* 0x0000_0100_0000_01b3
        }
        add(topic)
        for (route, identity) in tables {
            add(route.name)
            for column in route.key { add(column) }
            add(identity.text)
        }
        let text = String((hash ^ hash >> 24) & 0xff_ffff_ffff, radix: 36)
        return String(repeating: "0", count: max(0, 8 - text.utf8.count)) + text
    }
}
