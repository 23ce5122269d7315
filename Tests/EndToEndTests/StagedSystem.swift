import Foundation
import System
import TestSupport
import Testing

/// Every stage as a process of its own, on a private broker and database: what `fanout up` runs, for a test that stops one of
/// them or calls one differently.
final class StagedSystem {
    let broker: BrokerProcess
    let postgres: PostgresCluster
    /// The next stages to be started use it.
    var database: String
    let tokenKey = "a-token-key-of-at-least-thirty-two-bytes"
    private(set) var chatPort = 0
    private let slot = "staged_\(UInt32.random(in: 0 ... .max))"
    private var stages: [String: FanoutProcess] = [:]

    /// - Parameters:
    ///   - postgres: a server of the test's own, for one that stops it.
    ///   - directory: where the broker keeps its data.
    init(postgres: PostgresCluster? = nil, brokerDirectory directory: String? = nil) throws {
        self.postgres = try postgres ?? PostgresCluster.shared()
        broker = try BrokerProcess(
            ["--metrics", "127.0.0.1:0", "--journal-size", directory == nil ? "64MiB" : "1MiB"], directory: directory)
        database = try self.postgres.freshDatabase(migrated: true)
        #expect(try fanout(["topics", "create", "--partitions", "4"]).status == 0)
        try startStages()
    }

    func startStages() throws {
        try start("cdc", ["--slot", slot])
        try start("join", ["--name", "join-1"])
        try start("delivery", ["--name", "delivery-1", "--presence-grace", "500ms", "--push-window", "200ms"])
        try start("history")
        // Nobody answers there, so every notice ends in chat.push.dead.
        try start("push", ["--webhook", "http://127.0.0.1:1/", "--window", "200ms", "--attempts-max", "1"])
        chatPort = try startChat("chat-1")
    }

    /// Starts a chat server and answers its port, once devices are welcome there.
    func startChat(_ name: String) throws -> Int {
        try start(
            "chat", ["--name", name, "--listen", "127.0.0.1:0", "--drain", "200ms", "--rate", "1000"], as: name)
        let chat = try #require(stages[name])
        #expect(chat.waitForOutput("port="), "\(chat.text)")
        let port = try #require(chat.text.firstMatch(of: /\bport=(\d+)/), "\(chat.text)")
        let answer = try #require(URL(string: "http://127.0.0.1:\(port.1)/readyz"))
        #expect(eventually { (try? String(contentsOf: answer, encoding: .utf8)) == "ready\n" }, "\(chat.text)")
        return Int(port.1) ?? 0
    }

    deinit {
        stopAll()
        broker.kill()
    }

    var environment: [String: String] {
        [
            "FANOUT_KAFKA": broker.address, "FANOUT_POSTGRES": database, "FANOUT_TOKEN_KEY": tokenKey,
            "FANOUT_LINK_SECRET": "a-link-secret-of-at-least-thirty-two-bytes",
        ]
    }

    /// Runs a command to its end.
    func fanout(_ arguments: [String]) throws -> (status: Int32?, text: String) {
        try FanoutProcess.run(arguments, environment: environment)
    }

    func start(_ stage: String, _ arguments: [String] = [], as name: String? = nil) throws {
        stages[name ?? stage] = try FanoutProcess(
            [stage, "--metrics", "127.0.0.1:0"] + arguments, environment: environment)
    }

    /// What a stage answers where its metrics are served, and `nil` while it answers nothing.
    func answer(_ path: String, of stage: String) -> (status: Int, text: String)? {
        let text = stage == "broker" ? broker.text : stages[stage]?.text ?? ""
        guard let found = text.firstMatch(of: /at=http:..127.0.0.1:(\d+).metrics/),
            let answer = try? ChildProcess.run(
                "curl", ["-s", "-m", "5", "-w", "%{http_code}", "http://127.0.0.1:\(found.1)\(path)"]),
            let status = Int(answer.output.suffix(3)), status > 0
        else { return nil }
        return (status, String(answer.output.dropLast(3)))
    }

    func signal(_ stage: String, _ number: Int32) { stages[stage]?.signal(number) }

    /// All of them, in the order in which they should end.
    func stopAll() { for stage in Self.order { stop(stage) } }

    private static let order = ["chat-2", "chat-1", "push", "history", "delivery", "join", "cdc"]

    func stop(_ stage: String) { stages.removeValue(forKey: stage)?.terminate() }

    var text: String {
        stages.sorted { $0.key < $1.key }.map { "== \($0.key)\n\($0.value.text)" }.joined(separator: "\n")
    }

    /// Starts a script of Tests/Interop with the Python that the tests have.
    func python(_ script: String, _ arguments: [String], environment more: [String: String] = [:]) throws
        -> FanoutProcess
    {
        let root = WebClientTests.root
        return try FanoutProcess(
            [root.appending(path: "Tests/Interop/\(script)").path] + arguments,
            environment: environment.merging(more) { $1 },
            program: root.appending(path: ".venv/bin/python").path)
    }
}
