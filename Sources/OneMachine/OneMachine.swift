import HTTPClient
public import Runtime
import System

/// What `fanout up` was asked to run.
public struct OneMachineConfiguration: Sendable {
    public var directory: String
    /// The chat server's port: WebSockets, HTTP API and the demo page.
    public var port: UInt16 = 8080
    /// Ports of the private servers; 0 lets the system choose.
    public var brokerPort: UInt16 = 9092
    public var postgresPort: UInt16 = 5433
    /// Use these instead of private servers.
    public var kafka: String?
    public var postgres: String?
    /// Settings of librdkafka, `name=value`, and what stands before each topic's name: for a cluster that needs them.
    public var kafkaProperties: [String] = []
    public var topicPrefix: String?
    /// How long a user may be away and count as online, if not as long as Delivery finds right.
    public var presenceGraceMs: Int?
    /// Makes the demo people in a database that is not ours, too.
    public var makesDemoPeople = false
    /// Lets some of them talk.
    public var hasDemoTraffic = false
    /// Where notices to people who are offline are POSTed, and what signs them.
    public var webhook: String?
    public var webhookSecret: String?
    /// The demo page's files; `nil` serves none.
    public var web: String?
    public var partitions = 1
    /// What the stages log, beside warnings and errors.
    public var logLevel = "warning"
    /// This program, to run the stages with.
    public var executable: String

    public init(directory: String, executable: String) {
        self.directory = directory
        self.executable = executable
    }
}

/// The whole system on one machine: private Postgres and broker, schema and topics, every stage as a child process that
/// is started again when it ends, demo people, and one screen that says where everything is.
public final class OneMachine {
    /// What signals have asked for: the first to stop in order, the next not to wait for that.
    private enum StopWish {
        case none, inOrder, atOnce
    }

    private let configuration: OneMachineConfiguration
    private let log: Log
    private let clock: any Clock
    private let loop: EventLoop
    private let supervisor: Supervisor
    private var stopWish = StopWish.none

    public init(_ configuration: OneMachineConfiguration, log: Log, clock: any Clock) throws {
        self.configuration = configuration
        self.log = log
        self.clock = clock
        // Before anything is started, so that a signal finds somebody who stops what runs by then.
        Signals.block([.terminate, .interrupt])
        loop = try EventLoop()
        supervisor = Supervisor(loop: loop, log: log)
    }

    /// Starts everything, shows the screen, and runs until a signal ends it. What was started has ended when this
    /// returns or throws.
    public func run() throws {
        let startedNs = clock.monotonicNs
        let watch = try Signals.watch([.terminate, .interrupt], on: loop) { [unowned self] _ in
            stopWish = stopWish == .none ? .inOrder : .atOnce
            loop.stop()
        }
        defer { watch.cancel() }
        let directory = try DataDirectory.open(configuration.directory)
        let ports = try Ports(configuration)
        defer { supervisor.stopAll(isHurried: { stopWish == .atOnce }) }
        // Left behind by one that was killed.
        RunningSystem.remove(from: directory.path)
        defer { RunningSystem.remove(from: directory.path) }
        do {
            let screen = try start(directory, ports)
            _ = Output.standard(screen.text(tookMs: Int((clock.monotonicNs - startedNs) / 1_000_000)))
            loop.run()
        } catch {
            // What fails once it was asked to stop fails for that reason.
            guard stopWish != .none else { throw error }
        }
        _ = Output.standard("\nstopping…\n")
    }

    private func start(_ directory: borrowing DataDirectory, _ ports: Ports) throws -> StatusScreen {
        let postgres = try startPostgres(directory, ports)
        let pipeline = Pipeline(
            configuration: configuration, ports: ports, secrets: directory.secrets, directory: directory.path,
            postgresURL: configuration.postgres ?? postgres?.url ?? "")
        try pipeline.writeSettings()
        if configuration.kafka == nil { try supervisor.supervise(pipeline.broker) }
        try waitForServers(postgres, ports)
        try pipeline.prepare(pause: goesOn)
        if pipeline.hasDemoPeople { try DemoPeople.make(in: pipeline.postgresURL) }
        let passes = Passes(pipeline)
        let adminToken = try passes.write()
        passes.renew(on: loop, log: log)
        for service in pipeline.stages { try supervisor.supervise(service) }
        try waitUntilReady(ports, token: adminToken)
        try RunningSystem.write(
            to: directory.path, port: ports.chat, kafka: pipeline.kafka,
            postgresPort: postgres == nil ? nil : ports.postgres)
        return StatusScreen(pipeline: pipeline, postgres: postgres?.shownURL)
    }

    private func startPostgres(_ directory: borrowing DataDirectory, _ ports: Ports) throws -> PrivatePostgres? {
        guard configuration.postgres == nil else { return nil }
        let postgres = try PrivatePostgres(
            data: directory.postgres, port: ports.postgres, password: directory.secrets.postgresPassword,
            logs: directory.logs)
        try postgres.prepare(pause: goesOn)
        try supervisor.supervise(
            Service(
                name: "postgres", start: { try postgres.start() }, stopSignal: .interrupt, graceMs: 20_000,
                hurrySignal: .quit))
        return postgres
    }

    private func waitForServers(_ postgres: PrivatePostgres?, _ ports: Ports) throws {
        try postgres?.waitUntilReady(clock: clock, timeoutMs: 30_000) {
            try pause(timeoutMs: 10)
            return supervisor.processID(of: "postgres") != nil
        }
        guard configuration.kafka == nil else { return }
        let deadline = clock.monotonicNs + 10_000_000_000
        var probe = PortProbe(port: ports.broker, on: loop)
        while probe.answered != true {
            guard clock.monotonicNs < deadline else {
                throw OneMachineError(.notReady, "the broker does not answer on port \(ports.broker)")
            }
            try pause(timeoutMs: 5)
            if probe.answered == false { probe = PortProbe(port: ports.broker, on: loop) }
        }
    }

    /// Asks the chat server until it says that it can carry messages.
    private func waitUntilReady(_ ports: Ports, token: String) throws {
        let client = try HTTPClient(loop: loop)
        defer { client.close() }
        let probe = ReadinessProbe(chatPort: ports.chat, token: token, client: client)
        let deadline = clock.monotonicNs + 60_000_000_000
        var nextQuestionNs: UInt64 = 0
        while !probe.isReady {
            guard clock.monotonicNs < deadline else {
                throw OneMachineError(.notReady, "the chat server is not ready after 60 s; its log lines above say why")
            }
            // A connection that is refused is refused at once: without a rest this would be thousands a second, one of which
            // finds the port it looks for as its own end, and keeps the chat server from it.
            if clock.monotonicNs >= nextQuestionNs {
                probe.ask()
                nextQuestionNs = clock.monotonicNs + 20_000_000
            }
            try pause(timeoutMs: 20)
        }
    }

    // MARK: Waiting, with an ear for signals

    private func pause(timeoutMs: Int) throws {
        loop.runOnce(timeoutMs: timeoutMs)
        if stopWish != .none { throw OneMachineError(.stopped, "it was asked to stop") }
    }

    private func goesOn() -> Bool {
        loop.runOnce(timeoutMs: 0)
        return stopWish == .none
    }
}
