import OneMachine
import Runtime
import System

extension Command {
    static let up = Command(
        name: "up",
        summary: "run the whole system on this machine",
        details: """
            Starts a private Postgres and a private broker, applies schema and topics, runs every stage and keeps it
            running, and makes demo people, once. The data stays in one directory; the next start finds it.
            Ctrl-C stops everything in order, a second one at once.
            """,
        options: [
            Option("dir", .string("DIR"), "where everything is kept", standard: standardDirectory),
            Option(
                "port", .integer(0...65535), "the chat server: WebSockets, HTTP and the demo page", standard: "8080"),
            Option("kafka", .string("HOST:PORT,…"), "use this Kafka instead of a private broker"),
            Option(
                "kafka-property", .keyValue,
                "any librdkafka property, for every stage, e.g. security.protocol=SASL_SSL",
                isSecret: true),
            Option("topic-prefix", .string("PREFIX"), "put before every topic and group, to share a cluster"),
            Option("kafka-port", .integer(0...65535), "the private broker's port", standard: "9092"),
            Option("postgres", .string("URL"), "use this database instead of a private one", isSecret: true),
            Option("postgres-port", .integer(0...65535), "the private database's port", standard: "5433"),
            Option("partitions", .integer(1...10_000), "partitions of each topic, when they are made", standard: "1"),
            Option(
                "presence-grace", .duration, "how long a user may be away and count as online", standard: "25s"),
            Option("demo-people", .flag, "make demo people in the database of --postgres, too"),
            Option("demo-traffic", .flag, "let the demo people but the first talk, read and type by themselves"),
            .webhook,
            .webhookSecret,
            Option("web", .string("DIR"), "the demo page's files, when they are not found beside the program"),
            Option(
                "stage-log-level", .choice(["debug", "info", "warning", "error"]), "what the stages say",
                standard: "warning"),
        ],
        run: { invocation in
            let options = invocation.options
            guard let executable = CurrentProcess.executablePath else {
                throw UsageError("cannot find this program's own file, which runs the stages")
            }
            var configuration = OneMachineConfiguration(
                directory: absolute(options.string("dir") ?? standardDirectory), executable: executable)
            configuration.port = UInt16(options.integer("port") ?? 0)
            configuration.brokerPort = UInt16(options.integer("kafka-port") ?? 0)
            configuration.postgresPort = UInt16(options.integer("postgres-port") ?? 0)
            configuration.kafka = options.string("kafka")
            configuration.postgres = options.string("postgres")
            configuration.kafkaProperties = options.strings("kafka-property")
            configuration.presenceGraceMs = options.durationMs("presence-grace")
            configuration.topicPrefix = options.string("topic-prefix")
            configuration.makesDemoPeople = options.flag("demo-people")
            configuration.hasDemoTraffic = options.flag("demo-traffic")
            configuration.partitions = options.integer("partitions") ?? 1
            configuration.webhook = try invocation.webhook()
            configuration.webhookSecret = options.string("webhook-secret")
            configuration.web = options.string("web").map(absolute) ?? webBeside(executable)
            configuration.logLevel = options.string("stage-log-level") ?? "warning"
            try OneMachine(configuration, log: invocation.log, clock: invocation.clock).run()
            return .success
        })

    /// Root's home is closed to the user that Postgres runs as, so root's data is where services keep theirs.
    private static var standardDirectory: String {
        CurrentProcess.isRoot ? "/var/lib/fanout" : (Environment["HOME"] ?? ".") + "/.local/share/fanout"
    }

    private static func absolute(_ path: String) -> String {
        path.hasPrefix("/") ? path : CurrentProcess.workingDirectory + "/" + path
    }

    /// An installed program has its files in ../share/fanout; one that was just built, in the sources above it.
    private static func webBeside(_ executable: String) -> String? {
        var directory = Directory.parent(of: executable)
        if Directory.isDirectory(directory + "/../share/fanout/web") { return directory + "/../share/fanout/web" }
        for _ in 0..<5 {
            if File.exists(directory + "/web/index.html") { return directory + "/web" }
            directory = Directory.parent(of: directory)
        }
        return nil
    }
}
