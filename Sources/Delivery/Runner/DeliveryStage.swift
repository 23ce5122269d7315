public import Runtime
import Synchronization
import System

/// `fanout delivery`: one worker on the thread that calls `run`.
public final class DeliveryStage: Sendable {
    private struct State {
        var remote: EventLoop.Remote?
        var isStopping = false
    }

    private let configuration: DeliveryConfiguration
    private let state = Mutex(State())
    public let health: Health

    public init(_ configuration: DeliveryConfiguration) {
        self.configuration = configuration
        health = Health(log: configuration.log, metrics: configuration.metrics, clock: configuration.clock)
    }

    /// Whether it delivers what the group has given it, which may be nothing: then it is there to take over.
    public var isReady: Bool { health.look().isReady }

    /// Delivers until `stop`. Throws when it cannot go on.
    public func run() throws(DeliveryError) {
        let loop: EventLoop
        do {
            loop = try EventLoop()
        } catch {
            throw DeliveryError(.system, "\(error)")
        }
        defer { loop.close() }
        let runner = try DeliveryRunner(configuration, on: loop, health)
        let isStopping = state.withLock { state in
            state.remote = loop.remote
            return state.isStopping
        }
        if !isStopping { try runner.run() }
        runner.close()
    }

    /// Asks `run` to return after what is under way; from any thread, any number of times.
    public func stop() {
        let remote = state.withLock { state in
            state.isStopping = true
            return state.remote
        }
        remote?.execute { $0.stop() }
    }
}
