import Runtime
import System

/// Which processes make up the pipeline on one machine, and how each is called.
///
/// Secrets go by environment, never by argument: other users of the machine can read the arguments of every process.
struct Pipeline {
    static let metricNames = ["broker", "cdc", "join", "delivery", "history", "push", "lag"]

    let configuration: OneMachineConfiguration
    let ports: Ports
    let secrets: DataDirectory.Secrets
    let directory: String
    let postgresURL: String

    var kafka: String { configuration.kafka ?? "127.0.0.1:\(ports.broker)" }
    var demoUsersFile: String { directory + "/demo-users.json" }
    var adminTokenFile: String { directory + "/admin-token" }
    private var settingsFile: String { directory + "/stages.conf" }

    /// Nobody asked for strangers in a database that is not ours.
    var hasDemoPeople: Bool {
        configuration.postgres == nil || configuration.makesDemoPeople || configuration.hasDemoTraffic
    }

    var broker: Service {
        service(
            "broker", ["--data", directory + "/broker", "--listen", "127.0.0.1:\(ports.broker)"], graceMs: 10_000)
    }

    /// Beside the stages themselves, so that devices come and go.
    private var demoTraffic: Service {
        service("demo-traffic", ["--target", "127.0.0.1:\(ports.chat)", "--demo-users", demoUsersFile])
    }

    /// In the order in which they are started; they are stopped in the reverse order, devices first.
    var stages: [Service] {
        var chat = ["--listen", "127.0.0.1:\(ports.chat)", "--link-listen", "127.0.0.1:\(ports.link)"]
        chat += ["--name", "chat-1", "--drain", "200ms"]
        if hasDemoPeople { chat += ["--demo-users", demoUsersFile] }
        if let web = configuration.web { chat += ["--web", web] }
        for (name, port) in ports.metrics.merging(["ingest": ports.chat], uniquingKeysWith: { $1 })
        where name != "broker" {
            chat += ["--stage", "\(name)=127.0.0.1:\(port)"]
        }
        var delivery = ["--name", "delivery-1"]
        if let grace = configuration.presenceGraceMs { delivery += ["--presence-grace", "\(grace)ms"] }
        return [
            service("cdc", []),
            service("history", []),
            service("join", ["--name", "join-1", "--state", directory + "/join"]),
            service("delivery", delivery),
            service("push", configuration.webhook.map { ["--webhook", $0] } ?? []),
            service("lag", ["--interval", "2s"]),
            service("chat", chat),
        ] + (configuration.hasDemoTraffic ? [demoTraffic] : [])
    }

    /// What every process is told beside its own options. In a file, since a property's value may hold a comma, which
    /// the environment cannot, and a secret, which an argument must not.
    func writeSettings() throws {
        let lines = configuration.kafkaProperties.map { "kafka-property = \($0)\n" }
        try File.replaceAtomically(settingsFile, with: lines.joined(), permissions: 0o600)
    }

    /// The schema and the topics: idempotent, so at every start.
    ///
    /// - Parameter pause: called meanwhile; says whether to go on.
    func prepare(pause: @escaping () -> Bool) throws {
        try runToEnd(["db", "migrate"], pause: pause)
        try runToEnd(["topics", "create", "--partitions", "\(configuration.partitions)"], pause: pause)
    }

    @discardableResult
    func runToEnd(_ arguments: [String], pause: (() -> Bool)? = nil) throws -> String {
        let outcome = try ChildProcess.run(configuration.executable, arguments, options: options(), pause: pause)
        guard outcome.exit.isSuccess else {
            let said = outcome.error.split(separator: "\n").last.map(String.init) ?? "\(outcome.exit)"
            throw OneMachineError(.failed, said)
        }
        return outcome.output
    }

    private func service(_ name: String, _ arguments: [String], graceMs: Int = 5000) -> Service {
        var arguments = [name] + arguments
        if let port = ports.metrics[name] {
            arguments += [name == "lag" ? "--prometheus" : "--metrics", "127.0.0.1:\(port)"]
        }
        let (executable, options) = (configuration.executable, options())
        return Service(
            name: name,
            start: { [arguments] in try ChildProcess(executable, arguments, options: options) }, graceMs: graceMs)
    }

    private func options() -> ChildProcess.Options {
        var options = ChildProcess.Options()
        options.environment = Environment.all.filter { !$0.key.hasPrefix("FANOUT_") }.merging([
            "FANOUT_KAFKA": kafka,
            "FANOUT_POSTGRES": postgresURL,
            "FANOUT_TOKEN_KEY": secrets.tokenKey,
            "FANOUT_LINK_SECRET": secrets.linkSecret,
            "FANOUT_LOG_LEVEL": configuration.logLevel,
            "FANOUT_CONFIG": settingsFile,
        ]) { $1 }
        options.environment?["FANOUT_TOPIC_PREFIX"] = configuration.topicPrefix
        options.environment?["FANOUT_WEBHOOK_SECRET"] = configuration.webhookSecret
        // A terminal's Ctrl-C is for the supervisor, which stops the others in order.
        options.ownGroup = true
        options.dieWithParent = .terminate
        return options
    }
}
