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
    private let ready = Atomic(false)

    public init(_ configuration: DeliveryConfiguration) { self.configuration = configuration }

    /// Whether it owns partitions and delivers.
    public var isReady: Bool { ready.load(ordering: .relaxed) }

    /// Delivers until `stop`. Throws when it cannot go on.
    public func run() throws(DeliveryError) {
        let loop: EventLoop
        do {
            loop = try EventLoop()
        } catch {
            throw DeliveryError(.system, "\(error)")
        }
        defer { loop.close() }
        let runner = try DeliveryRunner(configuration, on: loop) { [self] in ready.store($0, ordering: .relaxed) }
        let isStopping = state.withLock { state in
            state.remote = loop.remote
            return state.isStopping
        }
        if !isStopping { try runner.run() }
        ready.store(false, ordering: .relaxed)
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
