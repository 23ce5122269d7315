public import Runtime
import KafkaClient
import Synchronization
import System
import Wire

/// The chat server: what `fanout chat` runs. It owns a thread for each loop and one for what concerns them all.
public final class ChatServer: Sendable {
    private let configuration: IngestConfiguration
    private let log: Log
    private let registry: Metrics
    private let faults: ReadFaults
    public let health: Health
    private let serving: Health.Condition
    private let verifier: TokenVerifier
    private let siblings = Siblings()
    private let directory = InstanceDirectory()
    private let revocations = Revocations()
    private let present = PresentLog()
    private let progress: ControlReader.Progress
    private let stopped = Handover<Void>()
    private let isRunning = Atomic(false)
    private let isStopping = Atomic(false)
    private let boundPorts = Mutex<(client: Int, push: [Int])>((0, []))

    public init(_ configuration: IngestConfiguration, log: Log, metrics: Metrics) throws(IngestError) {
        self.configuration = configuration
        self.log = log
        registry = metrics
        health = Health(log: log, metrics: metrics, clock: SystemClock())
        serving = health.condition("serving", failing: "starting")
        progress = ControlReader.Progress(
            health.condition("users", failing: "reading chat.users: who may not be let in is not known yet"))
        faults = ReadFaults(log, metrics, stage: "ingest")
        verifier = try TokenVerifier(configuration.tokens)
    }

    /// Serves until `stop()`; then drains and returns.
    public func run() throws {
        let epoch = UInt64(SystemClock().wallMs)
        let shared = ChatLoop.Shared(
            verifier: verifier, counts: ConnectionCounts(), directory: directory,
            metrics: IngestMetrics(registry), registry: registry, siblings: siblings,
            revocations: revocations, present: present, health: health, admits: { self.admits }, log: log)
        var threads: [LoopThread] = []
        let drained = (0..<configuration.loops).map { _ in Handover<Void>() }
        defer {
            for thread in threads { thread.stop() }
            for thread in threads { thread.join() }
            siblings.removeAll()
        }
        // The control thread first: nobody is let in before it is known who may no longer be.
        threads.append(try startControl())
        for index in 0..<configuration.loops {
            let configuration = configuration
            let port = index == 0 ? Int(configuration.listen.port) : boundPorts.withLock { $0.client }
            let bound = Handover<(Int, Int)>()
            threads.append(
                try LoopThread.start(name: "chat-\(index)") { loop in
                    let chat = try ChatLoop(
                        loop, index: index, configuration: configuration, shared: shared, epoch: epoch)
                    try chat.start(port: port)
                    bound.put((chat.port, chat.links.listener?.port ?? 0))
                    shared.siblings.add(chat)
                    return chat
                })
            let (client, push) = bound.take()
            boundPorts.withLock {
                $0.client = client
                $0.push.append(push)
            }
        }
        isRunning.store(true, ordering: .releasing)
        serving.met()
        log.info(
            "serving devices",
            ["port": .init(port), "push_ports": .init(pushPorts.map(String.init).joined(separator: ","))])
        stopped.take()
        isRunning.store(false, ordering: .releasing)
        serving.failed("draining: devices are sent elsewhere")
        log.info("draining")
        let waiting = Mutex(drained[...])
        siblings.forEach { chat in
            let done = waiting.withLock { $0.popFirst() }
            chat.drain { done?.put(()) }
        }
        for done in drained { done.take() }
        siblings.forEach { $0.writer.close() }
    }

    /// Asks `run` to end; returns at once.
    public func stop() {
        if !isStopping.exchange(true, ordering: .acquiringAndReleasing) { stopped.put(()) }
    }

    /// Reads certificates and keys again.
    public func reload() {
        do {
            try configuration.tls?.reload()
            try configuration.pushTLS?.reload()
            if try verifier.reload() { log.info("token keys read again") }
        } catch {
            log.error("reload failed; what was there stays in use", ["error": .init("\(error)")])
        }
    }

    public var isReady: Bool { health.look().isReady }

    private var admits: Bool {
        isRunning.load(ordering: .acquiring) && !isStopping.load(ordering: .acquiring)
            && progress.isCaughtUp.load(ordering: .acquiring)
    }

    /// Where it listens, once it does.
    public var port: Int { boundPorts.withLock { $0.client } }
    public var pushPorts: [Int] { boundPorts.withLock { $0.push } }

    private func startControl() throws -> LoopThread {
        let configuration = configuration
        return try LoopThread.start(name: "chat-control") {
            [siblings, directory, progress, verifier, revocations, present, log, registry, faults] loop in
            let reader = try ControlReader(
                configuration, on: loop, directory: directory, progress: progress, log: log, metrics: registry,
                faults: faults
            ) { rows in
                let hit = revocations.apply(rows)
                if !hit.isEmpty { siblings.forEach { $0.revoke(hit) } }
            }
            try reader.start()
            func watchKeys() {
                loop.schedule(afterMs: 2000) {
                    do {
                        if try verifier.reload() { log.info("token keys read again") }
                    } catch {
                        log.warning("token keys cannot be read again", ["error": .init("\(error)")])
                    }
                    watchKeys()
                }
            }
            watchKeys()
            func watchLog() {
                present.look(configuration)
                loop.schedule(afterMs: 1000) { watchLog() }
            }
            watchLog()
            return reader
        }
    }
}
