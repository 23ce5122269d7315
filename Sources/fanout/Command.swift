import KafkaClient
import Runtime
import System
import Wire

/// One subcommand: what it is called, what it takes, and what it does.
///
/// A command holds no logic of its own: it turns options into a stage's configuration, runs the stage until it is told to
/// stop, and turns the outcome into an exit code.
struct Command: Sendable {
    let name: String
    /// One line for `fanout --help`.
    let summary: String
    /// What follows the options in the usage line, e.g. `TOPIC` or `create|check|describe`.
    var operands = ""
    /// A paragraph or an example for `fanout NAME --help`.
    var details = ""
    let options: [Option]
    /// Whether, called like this, it answers a monitoring system: whatever keeps it from answering, wrong usage included, is
    /// then `unknown` and stands on standard output.
    var cannotTell: @Sendable (_ arguments: [String]) -> Bool = { _ in false }
    let run: @Sendable (Invocation) throws -> ExitCode

    /// Also what every command takes.
    var allOptions: [Option] { options + Option.common }
}

/// Exit codes are part of the interface: scripts and service managers act on them.
enum ExitCode: Int32 {
    case success = 0
    /// It was called rightly and failed.
    case failure = 1
    /// It was called wrongly: unknown option, wrong value.
    case usage = 2
    /// `lag --check`: cannot tell.
    case unknown = 3
    /// CDC stopped because its slot was lost and `--resnapshot never` forbids to start over, or because the database is
    /// older than what the topics hold.
    case slotLost = 4
    /// A stage stopped because another process has joined its group under the same name.
    case nameTaken = 6
}

/// A command as it was called.
struct Invocation: Sendable {
    let command: Command
    let options: Options
    let log: Log
    let metrics: Metrics
    let clock: any Clock

    var operands: [String] { options.operands }
    var names: Names { Names(prefix: options.string("topic-prefix") ?? "") }

    /// For commands that take `Option.kafka`.
    func kafka(clientID: String) throws -> KafkaConfiguration {
        var configuration = KafkaConfiguration(bootstrapServers: try options.require("kafka"), clientID: clientID)
        for (key, value) in options.keyValues("kafka-property") { try configuration.set(key, to: value) }
        return configuration
    }

    /// For commands that take `Option.postgres`.
    func postgres() throws -> String { try options.require("postgres") }
}

extension Option {
    static let common: [Option] = [
        Option("config", .string("FILE"), "read settings from a file of name = value lines"),
        Option("log-level", .choice(Log.Level.allCases.map(\.name)), "what is worth a line", standard: "info"),
        Option("log-format", .choice(["text", "json"]), "for people or for machines", standard: "text"),
        Option("help", .flag, "show this"),
    ]

    static let kafka: [Option] = [
        Option("kafka", .string("HOST:PORT,…"), "the brokers: Apache Kafka's or fanout broker's"),
        Option("kafka-property", .keyValue, "any librdkafka property, e.g. security.protocol=SASL_SSL", isSecret: true),
        Option("topic-prefix", .string("PREFIX"), "put before every topic and group, to share a cluster"),
    ]

    static let postgres = Option(
        "postgres", .string("URL"), "the database, e.g. postgres://user@host/fanout", isSecret: true)

    static let sessionTimeout = Option(
        "session-timeout", .duration,
        "others take over when this process is silent for so long; without it 3s, or what the brokers allow at least")

    static let keepPartitions = Option(
        "keep-partitions", .flag,
        "when stopped, keep the partitions for a process of the same name that is started within the session timeout")

    static let metrics = Option("metrics", .address, "serve /metrics, /healthz and /readyz here")
}
