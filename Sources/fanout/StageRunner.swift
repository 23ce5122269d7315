import KafkaClient
import Lag
import Runtime
import System

extension Invocation {
    /// Runs a stage until it ends by itself or SIGTERM or SIGINT asks it to, then until it has ended cleanly. A second
    /// signal does not wait any longer.
    ///
    /// - Parameters:
    ///   - run: the stage's own `run()`: returns when stopped, throws when it cannot go on. On a thread of its own.
    ///   - health: how it is, for `/readyz` and `/healthz`.
    ///   - reload: what SIGHUP means to it.
    ///   - stop: asks it to end; returns at once.
    func runStage(
        run: @escaping @Sendable () throws -> Void, health: Health,
        reload: @escaping @Sendable () -> Void = {},
        stop: @escaping @Sendable () -> Void
    ) throws -> ExitCode {
        // Before any thread is started, so that all of them inherit it.
        Signals.block([.terminate, .interrupt, .hangup])
        let loop = try EventLoop()
        let remote = loop.remote
        let outcome = StageOutcome()
        var isStopping = false
        let watch = try Signals.watch([.terminate, .interrupt, .hangup], on: loop) { signal in
            if signal == .hangup { return reload() }
            if isStopping { CurrentProcess.exit(ExitCode.failure.rawValue) }
            isStopping = true
            log.info("stopping", ["signal": "\(signal)"])
            stop()
        }
        defer { watch.cancel() }
        metrics.registerProcess()
        let server = try serveMetrics(on: loop, health)
        defer { server?.close() }
        // What changes is told even if nobody asks.
        func look() {
            health.look()
            loop.schedule(afterMs: 1000, look)
        }
        look()
        warnOfLosses()
        let begunNs = SystemClock().monotonicNs
        let thread = Thread.start(name: command.name) {
            do {
                try run()
                outcome.set(.success)
            } catch {
                log.error("stopped", ["error": "\(error)"])
                outcome.set((error as? any HasExitCode)?.exitCode ?? .failure)
            }
            let hasFailed = outcome.code != .success
            // What ends a process that has served for a while ends others like it: they are not to come back as one.
            let hasServed = SystemClock().monotonicNs &- begunNs > 10_000_000_000
            let afterMs = hasFailed && hasServed ? Int.random(in: 0...3000) : 0
            _ = remote.execute { loop in loop.schedule(afterMs: afterMs) { loop.stop() } }
        }
        loop.run()
        thread.join()
        return outcome.code
    }

    /// Says what the cluster may lose of what it acknowledges. On a thread of its own: the stage does not wait for it.
    private func warnOfLosses() {
        guard command.options.contains(where: { $0.name == "kafka" }) else { return }
        let (log, names) = (log, names)
        guard let kafka = try? kafka(clientID: "fanout-\(command.name)") else { return }
        _ = Thread.start(name: "durability") {
            guard let admin = try? Admin(kafka, log: { _ in }) else { return }
            for problem in (try? TopicPlan.standard.durabilityProblems(admin, names: names)) ?? [] {
                log.warning("the cluster may lose what it has acknowledged: \(problem)")
            }
            admin.close(deadlineMs: 1000)
        }
    }

    /// For commands that take `Option.metrics`, when it is given.
    private func serveMetrics(on loop: EventLoop, _ health: Health) throws -> MetricsServer? {
        guard command.options.contains(where: { $0.name == Option.metrics.name }),
            let address = options.address(Option.metrics.name)
        else { return nil }
        let server = try MetricsServer(on: loop, address: address, metrics: metrics, health: health)
        log.info("metrics are served", ["at": "http://\(address.host):\(server.port)/metrics"])
        return server
    }
}
