internal import PostgresClient
internal import Runtime

/// Watches what the slot costs the server, whatever else CDC does: it is while a snapshot is read and while Kafka takes
/// nothing that the server's log grows. It has a connection of its own, because the session's may be in the middle of a
/// COPY.
final class SlotWatch {
    private let configuration: CDCConfiguration
    private let log: Log
    private let metrics: CDCMetrics
    private var database: Database?
    private var lastNs: UInt64 = 0

    /// A server that does not answer must not hold up what this looks after.
    private static let timeoutMs = 5_000

    init(_ configuration: CDCConfiguration, log: Log, metrics: CDCMetrics) {
        self.configuration = configuration
        self.log = log
        self.metrics = metrics
    }

    /// Looks, if it is time. Each look writes a heartbeat, which also moves the slot on when only other tables or databases
    /// are busy.
    /// - Returns: whether Postgres has answered now.
    func look(_ now: UInt64) throws(CDCError) -> Bool {
        guard lastNs == 0 || now - lastNs > UInt64(configuration.heartbeatMs) * 1_000_000 else { return false }
        lastNs = now
        let health: Database.SlotHealth?
        do throws(CDCError) {
            health = try ask()
        } catch {
            database = nil
            log.warning("cannot see how the slot does", ["error": "\(error)"])
            return false
        }
        guard let health else { throw CDCError(.transient, "the replication slot has gone") }
        metrics.retainedBytes.set(Int(health.retainedBytes))
        metrics.safeBytes.set(Int(health.safeBytes ?? -1))
        metrics.behindBytes.set(Int(health.behindBytes))
        let isInDanger = health.walStatus == "unreserved" || health.walStatus == "lost"
        metrics.slotInDanger.set(isInDanger ? 1 : 0)
        if isInDanger {
            log.error(
                "the slot is about to be lost",
                ["wal_status": "\(health.walStatus)", "retained_bytes": .init(health.retainedBytes)])
        }
        return true
    }

    private func ask() throws(CDCError) -> Database.SlotHealth? {
        if database == nil {
            var made = try Database(configuration.postgres) { _ in }
            made.connection.answerTimeoutMs = Self.timeoutMs
            database = consume made
        }
        guard var connected = database.take() else { return nil }
        let health = try connected.health(of: configuration.slot)
        try connected.beat()
        database = consume connected
        return health
    }
}
