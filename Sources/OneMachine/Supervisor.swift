import Runtime
import System

/// A service that is kept running: a program, its arguments, and how to start it again.
struct Service {
    let name: String
    let start: () throws -> ChildProcess
    /// What makes it end cleanly, within the grace.
    var stopSignal = ProcessSignal.terminate
    var graceMs = 5000
    /// What ends it when nobody wants to wait: it finds its data all the same, but has more to do at the next start.
    var hurrySignal = ProcessSignal.kill
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

    func supervise(_ service: Service) throws {
        let entry = Running(service)
        running.append(entry)
        try adopt(entry, try service.start())
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

    /// Stops everything, last started first: whoever writes stops before what it writes to. Returns when all have ended.
    ///
    /// - Parameter isHurried: asked again and again, as the loop goes on meanwhile and hears of signals.
    func stopAll(isHurried: () -> Bool) {
        isStopping = true
        for entry in running.reversed() {
            guard let process = entry.process else { continue }
            process.kill(entry.service.stopSignal)
            let deadlineMs = loop.monotonicMs + UInt64(entry.service.graceMs)
            var wasHurried = false
            while entry.process != nil {
                if !wasHurried, isHurried() {
                    wasHurried = true
                    process.kill(entry.service.hurrySignal)
                } else if loop.monotonicMs >= deadlineMs {
                    process.kill(.kill)
                }
                loop.runOnce(timeoutMs: 20)
            }
        }
        running = []
    }
}
