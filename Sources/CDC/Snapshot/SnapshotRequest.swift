internal import PostgresClient
public import Runtime
internal import System

/// `fanout cdc snapshot`: asks for one table through the log itself, so that the one process that writes the topics reads
/// it, at a known place in the stream. It is done when the slot's confirmed position has passed the request.
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
        guard try database.slot(slot) != nil else {
            throw CDCError(.setup, "there is no slot \(slot): nothing reads changes yet", hint: "fanout cdc")
        }
        let parts = table.split(separator: ".", maxSplits: 1).map(String.init)
        let (schema, name) = parts.count == 2 ? (parts[0], parts[1]) : ("public", table)
        try database.check(
            publication: publication, routes: [TableRoute(schema: schema, table: name, topic: "", key: [])],
            needsSlot: false)
        let asked = try database.ask(
            "ask for the snapshot", "SELECT pg_logical_emit_message(false, $1, $2)::text",
            [.text(Self.prefix), .text("\(schema).\(name)")])
        guard let position = asked.text(0, 0).flatMap({ LSN($0) }) else { return }
        log.info("asked for a snapshot", ["table": "\(schema).\(name)", "at": "\(position)"])
        let clock = SystemClock()
        var toldNs = clock.monotonicNs
        do {
            let loop = try EventLoop()
            while let facts = try database.slot(slot), facts.confirmed < position {
                loop.runOnce(timeoutMs: 100)
                if clock.monotonicNs - toldNs > 10_000_000_000 {
                    toldNs = clock.monotonicNs
                    log.info(
                        facts.isActive
                            ? "waiting for the snapshot" : "waiting: no fanout cdc reads the slot at present")
                }
            }
        } catch let error as CDCError {
            throw error
        } catch {
            throw CDCError(.transient, "\(error)")
        }
        log.info("the snapshot is in the topic", ["table": "\(schema).\(name)"])
    }
}
