public import Runtime
internal import KafkaClient
internal import PostgresClient
internal import Synchronization
internal import System

/// Keeps topics true to tables: snapshot, then stream, for as long as it is not stopped.
///
/// One thread does everything: it reads the replication stream, writes records, and moves positions. A session that fails
/// for a passing reason is begun again after a growing pause; one that fails because something must be set up, or because
/// the slot is lost and may not be replaced, ends `run`.
public final class CDC: Sendable {
    private let configuration: CDCConfiguration
    private let log: Log
    private let clock: any Clock
    private let metrics: CDCMetrics
    public let health: Health
    private let conditions: CDCHealth
    private let stopped = Atomic(false)
    private let remote = Mutex<EventLoop.Remote?>(nil)

    private static let backoffMinMs = 100
    private static let backoffMaxMs = 5_000

    public init(_ configuration: CDCConfiguration, log: Log, clock: any Clock, metrics: Metrics) {
        self.configuration = configuration
        self.log = log
        self.clock = clock
        self.metrics = CDCMetrics(metrics, log)
        health = Health(log: log, metrics: metrics, clock: clock)
        conditions = CDCHealth(health)
    }

    /// Whether changes of every table are followed, or this is the standby of a process that does.
    public var isReady: Bool { health.look().isReady }

    /// Asks `run` to end; from any thread.
    public func stop() {
        stopped.store(true, ordering: .releasing)
        remote.withLock { _ = $0?.wake() }
    }

    /// Runs until stopped.
    public func run() throws(CDCError) {
        try check()
        let loop: EventLoop
        do {
            loop = try EventLoop()
        } catch {
            throw CDCError(.transient, "\(error)")
        }
        remote.withLock { $0 = loop.remote }
        defer {
            remote.withLock { $0 = nil }
            loop.close()
        }
        let probe: LogProbe
        do throws(KafkaError) {
            probe = try LogProbe(configuration.kafka, topics: configuration.routes.map(\.topic), health)
        } catch {
            throw CDCError(error, "cannot use Kafka at \(configuration.kafka.bootstrapServers)")
        }
        defer { probe.close() }
        var backoffMs = Self.backoffMinMs
        while !isStopped {
            let begunNs = clock.monotonicNs
            do throws(CDCError) {
                try runSession(loop)
            } catch {
                if error.code == .stopped { return }
                if error.isFinal { throw error }
                if isStopped { return }
                metrics.reconnects.add()
                conditions.stream.failed("changes are not streamed: \(error)")
                if clock.monotonicNs - begunNs > 10_000_000_000 { backoffMs = Self.backoffMinMs }
                log.warning("starting over", ["error": "\(error)", "after_ms": .init(backoffMs)])
                wait(loop, ms: backoffMs + Int.random(in: 0...backoffMs / 4))
                backoffMs = min(backoffMs * 2, Self.backoffMaxMs)
            }
        }
    }

    private var isStopped: Bool { stopped.load(ordering: .acquiring) }

    private func check() throws(CDCError) {
        if configuration.routes.isEmpty { throw CDCError(.configuration, "no table is given") }
        for (index, route) in configuration.routes.enumerated() {
            guard !route.key.isEmpty, Set(route.key).count == route.key.count, route.key.contains(route.partition)
            else {
                throw CDCError(
                    .configuration, "the partition column of \(route.name) must be one of its key columns")
            }
            let others = configuration.routes[..<index]
            if others.contains(where: { $0.name == route.name }) {
                throw CDCError(.configuration, "table \(route.name) is given twice")
            }
            if others.contains(where: { $0.topic == route.topic && $0.table == route.table }) {
                throw CDCError(
                    .configuration, "two tables named \(route.table) cannot share topic \(route.topic)")
            }
        }
    }

    private func wait(_ loop: EventLoop, ms: Int) {
        let end = clock.monotonicNs + UInt64(ms) * 1_000_000
        while !isStopped, clock.monotonicNs < end { loop.runOnce(timeoutMs: min(ms, 100)) }
    }

    private func runSession(_ loop: EventLoop) throws(CDCError) {
        let log = log
        var database = try Database(configuration.postgres) { log.debug("postgres", ["notice": "\($0)"]) }
        try standBy(&database, loop)
        if isStopped { return }
        let hasSlot = try database.slot(configuration.slot) != nil
        try database.check(
            publication: configuration.publication, tables: configuration.routes.map(\.name), needsSlot: !hasSlot)
        let session = try Session(
            configuration, database, log: log, clock: clock, metrics: metrics, conditions, loop: loop,
            isStopped: { [unowned self] in isStopped })
        defer { session.close() }
        try session.run()
    }

    /// Waits for the lock that the process holds which reads the slot. The lock goes with that process's connection.
    private func standBy(_ database: inout Database, _ loop: EventLoop) throws(CDCError) {
        var hasTold = false
        defer {
            metrics.standby.set(0)
        }
        while !isStopped {
            if try database.tryLock(configuration.slot) {
                if hasTold {
                    log.info("taking over")
                    conditions.stream.failed(CDCHealth.isStarting)
                }
                return
            }
            if !hasTold {
                log.info("another process reads the slot: waiting as its standby", ["slot": "\(configuration.slot)"])
                hasTold = true
                metrics.standby.set(1)
                conditions.stream.met()
            }
            wait(loop, ms: 250)
        }
    }
}
