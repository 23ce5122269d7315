public import Runtime
import Synchronization
import System

/// The stage: `run()` joins until `stop()`.
public final class JoinRunner: Sendable {
    private struct State {
        var remote: EventLoop.Remote?
        var isStopping = false
    }

    private let configuration: JoinConfiguration
    private let log: Log
    private let clock: any Clock
    let metrics: JoinMetrics
    public let health: Health
    private let state = Mutex(State())

    public init(_ configuration: JoinConfiguration, log: Log, metrics: Metrics, clock: any Clock) {
        self.configuration = configuration
        self.log = log
        self.clock = clock
        self.metrics = JoinMetrics(metrics, log)
        health = Health(log: log, metrics: metrics, clock: clock)
    }

    /// Whether it does what the group has given it to do, which may be nothing: then it is there to take over.
    public var isReady: Bool { health.look().isReady }

    /// Joins on this thread until stopped; throws when it cannot go on. Starting again is always safe.
    public func run() throws {
        let loop = try EventLoop()
        defer { loop.close() }
        let isStopping = state.withLock { state in
            state.remote = loop.remote
            return state.isStopping
        }
        if isStopping { return }
        let worker = try JoinWorker(configuration, loop: loop, log: log, metrics: metrics, health, clock: clock) {
            [unowned self] in state.withLock { $0.isStopping }
        }
        defer { worker.close() }
        try worker.start()
        loop.run()
        try worker.finish()
    }

    public func stop() {
        let remote = state.withLock { state in
            state.isStopping = true
            return state.remote
        }
        remote?.execute { $0.stop() }
    }
}
