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

    /// Looks, if it is time.
    /// - Parameter isIdle: everything that was read is in Kafka, so that the slot may be pushed on when only other tables
    ///   or databases are busy.
    func look(_ now: UInt64, isIdle: Bool) throws(CDCError) {
        guard lastNs == 0 || now - lastNs > UInt64(configuration.statusIntervalMs) * 1_000_000 else { return }
        lastNs = now
        let health: Database.SlotHealth?
        do throws(CDCError) {
            health = try ask(isIdle: isIdle)
        } catch {
            database = nil
            return log.warning("cannot see how the slot does", ["error": "\(error)"])
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
    }

    private func ask(isIdle: Bool) throws(CDCError) -> Database.SlotHealth? {
        if database == nil {
            var made = try Database(configuration.postgres) { _ in }
            made.connection.answerTimeoutMs = Self.timeoutMs
            database = consume made
        }
        guard var connected = database.take() else { return nil }
        let health = try connected.health(of: configuration.slot)
        if let health, isIdle, health.behindBytes > configuration.heartbeatBytes {
            _ = try connected.ask(
                "push the slot on", "SELECT pg_logical_emit_message(false, 'fanout.heartbeat', '')")
        }
        database = consume connected
        return health
    }
}
