public import Runtime
internal import Synchronization
internal import System

/// A running broker: `start` returns when it answers, `run` serves until `stop`. Any thread may stop it.
public final class BrokerServer: Sendable {
    /// The port it listens on, also when the kernel chose it.
    public let boundPort: Int
    /// How it is: ready while its data directory can be written to.
    public let health: Health
    let thread: LoopThread
    let core: LoopBound<BrokerCore>
    private let isStopped = Mutex(false)

    /// Opens the data directory, recovers it, and listens.
    public init(
        _ configuration: BrokerConfiguration, log: Log = .none, metrics: Metrics = Metrics()
    ) throws(BrokerError) {
        try Self.checkAddress(configuration)
        let health = Health(log: log, metrics: metrics, clock: SystemClock())
        self.health = health
        let handover = Handover<(Int, LoopBound<BrokerCore>)>()
        do {
            thread = try LoopThread.start(name: "broker") { (loop: EventLoop) throws(BrokerError) in
                let core = try BrokerCore(configuration, log: log, metrics: BrokerMetrics(metrics), health, loop: loop)
                do throws(SystemError) {
                    let listener = try Listener(on: loop, host: configuration.host, port: configuration.port) {
                        [unowned core] in core.accept($0)
                    }
                    listener.onPause = { log.warning("no room for more connections", ["reason": .string("\($0)")]) }
                    core.listener = listener
                    core.port = listener.port
                } catch {
                    throw BrokerError(
                        .listen, "cannot listen on \(configuration.host):\(configuration.port)", cause: error)
                }
                handover.put((core.port, LoopBound(core, on: loop)))
                return core
            }
        } catch let error as BrokerError {
            throw error
        } catch {
            throw BrokerError(.listen, "cannot start the broker", cause: error)
        }
        (boundPort, core) = handover.take()
    }

    /// Serves until `stop` is called.
    public func run() { thread.join() }

    /// Brings everything to disk and ends. Returns at once; `run` returns when it is done.
    public func stop() {
        let isFirst = isStopped.withLock { stopped in
            defer { stopped = true }
            return !stopped
        }
        guard isFirst else { return }
        let core = core
        thread.remote.execute { loop in
            let core = core.value(on: loop)
            core.listener?.close()
            core.stop { loop.stop() }
        }
    }

    /// There is no authentication: whoever reaches the port reads and writes everything.
    private static func checkAddress(_ configuration: BrokerConfiguration) throws(BrokerError) {
        guard !configuration.allowsInsecureListen else { return }
        let host = configuration.host
        let isLoopback = host == "localhost" || host == "::1" || host == "[::1]" || host.hasPrefix("127.")
        guard isLoopback else {
            throw BrokerError(
                .listen,
                "\(host) is not a loopback address, and the broker has no authentication: listen on 127.0.0.1, or give "
                    + "--insecure-listen if the network is trusted")
        }
    }
}
