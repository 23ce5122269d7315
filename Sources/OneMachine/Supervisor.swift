import Runtime
import System

/// A service that is kept running: a program, its arguments, and how to start it again.
struct Service {
    let name: String
    let start: () throws -> ChildProcess
    /// What it takes to end cleanly before it is killed.
    var stopSignal = ProcessSignal.terminate
    var graceMs = 5000
}

/// Keeps services running on one event loop: starts them again with growing delays when they end, and stops them in the
/// order that loses nothing. On the loop's thread only.
final class Supervisor {
    private final class Running {
        let service: Service
        var process: ChildProcess?
        var watch: Registration?
        var startedAtMs: UInt64 = 0
        var policy = RestartPolicy()

        init(_ service: Service) { self.service = service }
    }

    private let loop: EventLoop
    private let log: Log
    private var running: [Running] = []
    private var isStopping = false

    init(loop: EventLoop, log: Log) {
        self.loop = loop
        self.log = log
    }

    /// Starts a service, or takes over one that has been started already.
    func supervise(_ service: Service, started: ChildProcess? = nil) throws {
        let entry = Running(service)
        running.append(entry)
        try adopt(entry, try started ?? service.start())
    }

    func processID(of name: String) -> Int32? { running.first { $0.service.name == name }?.process?.id }

    private func adopt(_ entry: Running, _ process: ChildProcess) throws {
        entry.process = process
        entry.startedAtMs = loop.monotonicMs
        entry.watch = try process.watchExit(on: loop) { [unowned self] exit in ended(entry, exit) }
    }

    private func ended(_ entry: Running, _ exit: ChildProcess.Exit) {
        entry.watch?.cancel()
        entry.watch = nil
        entry.process = nil
        guard !isStopping else { return }
        let delayMs = entry.policy.ended(afterMs: Int(loop.monotonicMs - entry.startedAtMs))
        log.warning(
            "\(entry.service.name) ended; it is started again",
            ["exit": "\(exit)", "after_ms": .init(delayMs), "restarts": .init(entry.policy.restarts)])
        loop.schedule(afterMs: delayMs) { [unowned self] in restart(entry) }
    }

    private func restart(_ entry: Running) {
        guard !isStopping else { return }
        do {
            try adopt(entry, try entry.service.start())
        } catch {
            let delayMs = entry.policy.ended(afterMs: 0)
            log.error("\(entry.service.name) cannot be started", ["error": "\(error)", "again_in_ms": .init(delayMs)])
            loop.schedule(afterMs: delayMs) { [unowned self] in restart(entry) }
        }
    }

    /// Stops everything, last started first: whoever writes stops before what it writes to. Blocks until all have ended.
    func stopAll() {
        isStopping = true
        for entry in running.reversed() {
            entry.watch?.cancel()
            guard let process = entry.process else { continue }
            let exit = process.stop(entry.service.stopSignal, graceMs: entry.service.graceMs)
            log.debug("\(entry.service.name) stopped", ["exit": "\(exit)"])
        }
        running = []
    }
}
