public import Runtime
import System
import Wire

/// Takes every figure of the table in turn, each by a `fanout bench …` of its own, against a `fanout up` in a fresh
/// directory: so each can be taken again by hand.
public struct TableRun {
    /// What the benchmarks are told of a running system, as environment.
    public typealias Environment = [String: String]

    private let executable: String
    private let directory: String
    private let log: Log
    private let clock: any Clock
    /// Reads where a `fanout up` is from its directory; nil as long as it is not ready.
    private let locate: (_ directory: String) -> Environment?
    /// Makes an empty database with the schema beside the one named by the environment.
    private let emptyDatabase: (Environment) throws -> Environment

    public init(
        executable: String, directory: String, log: Log, clock: any Clock,
        locate: @escaping (_ directory: String) -> Environment?,
        emptyDatabase: @escaping (Environment) throws -> Environment
    ) {
        (self.executable, self.directory, self.log, self.clock) = (executable, directory, log, clock)
        (self.locate, self.emptyDatabase) = (locate, emptyDatabase)
    }

    public func run(durationMs: Int) throws -> BenchTable {
        var table = BenchTable(machine: Machine.description)
        let duration = ["--duration", "\(durationMs)ms"]
        try withSystem(&table) { environment, table in
            for name in ["saturation", "fan-out", "pairs"] {
                take(name, ["load", "--scenario", name] + duration, environment, &table)
            }
            take("storm", ["storm"], environment, &table)
            take("cdc", ["cdc"], environment, &table)
            take("history", ["history"], try emptyDatabase(environment), &table)
            take("push", ["push"], environment, &table)
        }
        try withBroker(&table) { environment, table in
            take("kafka", ["kafka"], environment, &table)
        }
        for name in ["join", "delivery", "sockets", "lag"] { take(name, [name], [:], &table) }
        return table
    }

    private func take(
        _ run: String, _ arguments: [String], _ environment: Environment, _ table: inout BenchTable,
        adding more: [String: Double] = [:]
    ) {
        log.info("measuring", ["what": "\(run)"])
        do {
            let outcome = try ChildProcess.run(
                executable, ["bench"] + arguments + ["--json", "--log-level", "warning"],
                options: options(environment))
            guard !outcome.output.isEmpty else {
                return table.fail(run, outcome.error.split(separator: "\n").last.map(String.init) ?? "\(outcome.exit)")
            }
            var figures = try Figures(json: Array(outcome.output.utf8))
            for (path, value) in more { figures[path] = value }
            table.take(figures, of: run)
            if !outcome.exit.isSuccess { table.fail(run, "events were lost, repeated or out of order") }
        } catch {
            table.fail(run, "\(error)")
        }
    }

    private func options(_ environment: Environment, output: String? = nil) -> ChildProcess.Options {
        var options = ChildProcess.Options()
        options.environment = System.Environment.all.filter { !$0.key.hasPrefix("FANOUT_") }
            .merging(environment) { $1 }
        options.ownGroup = true
        options.dieWithParent = .terminate
        if let output { (options.output, options.error) = (.file(output), .file(output)) }
        return options
    }

    // MARK: What is measured

    /// The second start is the one that counts: the first makes the database.
    private func withSystem(
        _ table: inout BenchTable, _ body: (Environment, inout BenchTable) throws -> Void
    ) throws {
        try withUp { _, _ in }
        try withUp { environment, readyMs in
            table.take(Figures(["ready_ms": readyMs]), of: "up")
            try body(environment, &table)
        }
    }

    private func withUp(_ body: (Environment, _ readyMs: Double) throws -> Void) throws {
        let data = directory + "/up"
        let start = clock.monotonicNs
        let up = try ChildProcess(
            executable, ["up", "--dir", data, "--port", "0", "--kafka-port", "0", "--postgres-port", "0"],
            options: options([:], output: directory + "/up.log"))
        defer { _ = up.stop(.interrupt, graceMs: 30_000) }
        while true {
            if let environment = locate(data) {
                let readyMs = Double(clock.monotonicNs - start) / 1e6
                return try body(environment.merging(["FANOUT_UP": "\(up.id)"]) { $1 }, readyMs)
            }
            guard up.wait(timeoutMs: 20) == nil, clock.monotonicNs - start < 90_000_000_000 else {
                throw BenchError("fanout up did not become ready; \(directory)/up.log says why")
            }
        }
    }

    private func withBroker(
        _ table: inout BenchTable, _ body: (Environment, inout BenchTable) throws -> Void
    ) throws {
        let loop = try EventLoop()
        defer { loop.close() }
        let free = try Listener(on: loop, host: "127.0.0.1", port: 0) { _ in }
        let port = free.port
        free.close()
        let start = clock.monotonicNs
        let broker = try ChildProcess(
            executable, ["broker", "--data", directory + "/broker", "--listen", "127.0.0.1:\(port)"],
            options: options([:], output: directory + "/broker.log"))
        defer { _ = broker.stop() }
        let probe = Probe()
        while !probe.isConnected {
            guard clock.monotonicNs - start < 10_000_000_000 else { throw BenchError("the broker does not answer") }
            if !probe.isTrying { probe.connect(port: port, on: loop) }
            loop.runOnce(timeoutMs: 1)
        }
        let readyMs = Double(clock.monotonicNs - start) / 1e6
        let environment = ["FANOUT_KAFKA": "127.0.0.1:\(port)", "FANOUT_PROCESS": "broker=\(broker.id)"]
        take("broker", ["broker"], environment, &table, adding: ["ready_ms": readyMs])
        try body(environment, &table)
    }
}

/// Tries to connect until somebody listens.
private final class Probe: StreamDelegate {
    private(set) var isConnected = false
    private(set) var isTrying = false
    private var stream: Stream?

    func connect(port: Int, on loop: EventLoop) {
        isTrying = true
        stream = Stream.connect(host: "127.0.0.1", port: port, on: loop, delegate: self)
    }

    func streamConnected(_ stream: Stream) {
        isConnected = true
        stream.close()
    }
    func stream(_ stream: Stream, received bytes: Span<UInt8>) {}
    func streamClosed(_ stream: Stream, reason: CloseReason) { isTrying = false }
}

/// The machine that figures are taken on.
enum Machine {
    static var description: String {
        let lines = ((try? File.text(of: "/proc/cpuinfo")) ?? "").split(separator: "\n")
        let model = lines.first { $0.hasPrefix("model name") }?.split(separator: ":").last.map(String.init) ?? "?"
        let cores = lines.count { $0.hasPrefix("processor") }
        let memory = ((try? File.text(of: "/proc/meminfo")) ?? "").split(separator: "\n").first ?? ""
        let kiB = Int(memory.filter(\.isNumber)) ?? 0
        let kernel = (try? File.text(of: "/proc/sys/kernel/osrelease")) ?? ""
        return "\(cores) cores of \(model.trimmingBlanks), \(kiB >> 20) GiB, Linux \(kernel.trimmingBlanks)"
    }
}

extension String {
    fileprivate var trimmingBlanks: String {
        String(drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
    }
}
