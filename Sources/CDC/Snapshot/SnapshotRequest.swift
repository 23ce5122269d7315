internal import PostgresClient
public import Runtime
internal import System

/// `fanout cdc snapshot`: asks for one table through the log itself, so that the one process that writes the topics reads
/// it, at a known place in the stream. That process answers with a notification, before the slot's confirmed position
/// passes the request: a position that has passed without an answer means that nobody has read the table.
public struct SnapshotRequest: Sendable {
    static let prefix = "fanout.snapshot"

    private let postgres: String
    private let slot: String
    private let publication: String
    private let table: String

    public init(postgres: String, slot: String, publication: String, table: String) {
        self.postgres = postgres
        self.slot = slot
        self.publication = publication
        self.table = table
    }

    public func run(log: Log) throws(CDCError) {
        var database = try Database(postgres) { _ in }
        guard let facts = try database.slot(slot) else {
            throw CDCError(.setup, "there is no slot \(slot): nothing reads changes yet", hint: "fanout cdc")
        }
        if let owner = facts.owner(otherThan: database.name) { throw CDCError(foreignSlot: slot, owner) }
        let parts = table.split(separator: ".", maxSplits: 1).map(String.init)
        let (schema, name) = parts.count == 2 ? (parts[0], parts[1]) : ("public", table)
        try database.check(publication: publication, tables: ["\(schema).\(name)"], needsSlot: false)
        try database.check(TableRoute(schema: schema, table: name, topic: "", key: []), publication: publication)
        let order = SnapshotOrder(
            slot: slot, token: String(UInt64.random(in: 0 ... .max), radix: 36), table: "\(schema).\(name)")
        _ = try database.ask("listen for the answer", "LISTEN \(SQL.identifier(SnapshotOrder.channel))")
        let asked = try database.ask(
            "ask for the snapshot", "SELECT pg_logical_emit_message(false, $1, $2)::text",
            [.text(Self.prefix), .text(order.text)])
        guard let position = asked.text(0, 0).flatMap({ LSN($0) }) else { return }
        log.info("asked for a snapshot", ["table": "\(order.table)", "at": "\(position)"])
        switch try wait(for: order, at: position, &database, log) {
        case .done: log.info("the snapshot is in the topic", ["table": "\(order.table)"])
        case .noTopic:
            throw CDCError(
                .setup, "the running fanout cdc has no topic for \(order.table)",
                hint: "fanout cdc --table \(table)=TOPIC:KEY in its place")
        case .busy:
            throw CDCError(
                .transient,
                "the table is locked, or too many transactions are under way to remember a snapshot of this moment; ask again later"
            )
        case .failed:
            throw CDCError(.setup, "\(order.table) cannot be read at present: the log of fanout cdc says why")
        }
    }

    private func wait(
        for order: SnapshotOrder, at position: LSN, _ database: inout Database, _ log: Log
    ) throws(CDCError) -> SnapshotOrder.Outcome {
        let clock = SystemClock()
        let loop: EventLoop
        do { loop = try EventLoop() } catch { throw CDCError(.transient, "\(error)") }
        defer { loop.close() }
        var toldNs = clock.monotonicNs
        while true {
            loop.runOnce(timeoutMs: 100)
            // Asked first: what had been answered before this position was confirmed comes with it at the latest.
            let facts = try database.slot(slot)
            _ = try database.ask("look for the answer", "SELECT 1")
            while let notification = database.connection.nextNotification() {
                if let outcome = order.outcome(in: notification.payload) { return outcome }
            }
            guard let facts else {
                throw CDCError(
                    .slotLost, "slot \(slot) has gone before the table was read",
                    hint: "fanout cdc, which reads all tables again")
            }
            if facts.confirmed >= position {
                throw CDCError(.setup, "the process that reads slot \(slot) does not know of snapshots")
            }
            if clock.monotonicNs - toldNs > 10_000_000_000 {
                toldNs = clock.monotonicNs
                log.info(
                    facts.isActive ? "waiting for the snapshot" : "waiting: no fanout cdc reads the slot at present")
            }
        }
    }
}

/// What travels through the log from the one who asks to the one who reads, and the answer back.
struct SnapshotOrder: Equatable {
    /// The channel of the answers.
    static let channel = "fanout.cdc"

    enum Outcome: String { case done, busy, failed, noTopic = "no_topic" }

    /// Whose reader is asked: all slots of the database see the request. Nil when it is every reader's.
    var slot: String?
    /// Names the request in its answer, the slot included; nil when nobody waits for one.
    var token: String?
    var table: String

    init(slot: String, token: String, table: String) {
        (self.slot, self.token, self.table) = (slot, "\(slot)/\(token)", table)
    }

    /// The slot, a slash and the token; a blank; the table. Each but the table may be missing.
    init(text: String) {
        guard let blank = text.firstIndex(of: " ") else {
            table = text
            return
        }
        let token = text[..<blank]
        self.token = String(token)
        slot = token.firstIndex(of: "/").map { String(token[..<$0]) }
        table = String(text[text.index(after: blank)...])
    }

    var text: String { token.map { "\($0) \(table)" } ?? table }

    func isFor(slot reader: String) -> Bool { slot == nil || slot == reader }

    func outcome(in answer: String) -> Outcome? {
        let parts = answer.split(separator: " ")
        guard parts.count == 2, let token, parts[0] == token else { return nil }
        return Outcome(rawValue: String(parts[1]))
    }
}
