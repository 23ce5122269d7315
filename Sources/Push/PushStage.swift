public import Runtime
import KafkaClient
import PostgresClient
import Synchronization
import System
import Wire

/// `fanout push`: from `chat.push` to the webhook and to browsers' push services.
///
/// One thread, one event loop: the consumer's and the producer's descriptors, the receivers' sockets and the timers all
/// wake it. Offsets are committed only behind settled notices, so a crash repeats at most what was under way, under the
/// same idempotency key.
public final class PushStage: Sendable {
    private let configuration: PushConfiguration
    private let log: Log
    let metrics: PushMetrics
    public let health: Health
    private let clock: any Clock
    private let remote = Mutex<EventLoop.Remote?>(nil)
    private let stopped = Atomic<Bool>(false)

    public init(_ configuration: PushConfiguration, log: Log, metrics: Metrics, clock: any Clock) {
        self.configuration = configuration
        self.log = log
        self.metrics = PushMetrics(metrics, log)
        self.clock = clock
        health = Health(log: log, metrics: metrics, clock: clock)
    }

    /// Runs until stopped.
    public func run() throws {
        let loop = try EventLoop()
        remote.withLock { $0 = loop.remote }
        defer { remote.withLock { $0 = nil } }
        let worker = try PushWorker(configuration, on: loop, log: log, metrics: metrics, health, clock: clock)
        try worker.start()
        if !stopped.load(ordering: .acquiring) { loop.run() }
        worker.stop()
        if let failure = worker.failure { throw failure }
    }

    public func stop() {
        stopped.store(true, ordering: .releasing)
        remote.withLock { _ = $0?.execute { $0.stop() } }
    }
}
