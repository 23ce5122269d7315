import Runtime
import StreamJoin
import System

extension Command {
    static let join = Command(
        name: "join",
        summary: "join messages with the members of their chats",
        details: """
            Reads chat.incoming, chat.signals and chat.members; writes chat.messages, chat.deliveries and chat.rejected.
            Run as many processes as there is work for: they share the partitions. Give each a --name of its own that it
            keeps across restarts, and a restart moves no partition. With --standby a process also keeps the membership of
            the others' partitions, so that it can take them over without reading the log again.
            """,
        options: Option.kafka + [
            Option.postgres, Option.metrics,
            Option("name", .string("NAME"), "this process among all that join, the same at every start"),
            Option("state", .string("DIR"), "keep checkpoints of the membership table here"),
            Option("standby", .flag, "keep the membership of all partitions, for taking them over at once"),
            // The recipients of one partition, at 39 bytes each, must fit a record together with the message.
            Option("large-chat", .integer(1...10_000), "chats with more members are not listed", standard: "256"),
            Option(
                "dedupe-window", .integer(1...10_000_000), "messages of a partition in which repeats are recognised",
                standard: "65536"),
            Option("hold-limit", .duration, "refuse a message whose membership is not known by then", standard: "30s"),
            .sessionTimeout, .keepPartitions,
        ],
        run: { invocation in
            let options = invocation.options
            var configuration = JoinConfiguration(
                kafka: try invocation.kafka(clientID: "fanout-join"), names: invocation.names)
            configuration.postgres = options.string("postgres")
            configuration.instance = options.string("name")
            configuration.stateDirectory = options.string("state")
            configuration.isStandby = options.flag("standby")
            configuration.limits.largeChat = options.integer("large-chat") ?? configuration.limits.largeChat
            configuration.limits.recentMessages =
                options.integer("dedupe-window") ?? configuration.limits.recentMessages
            configuration.limits.holdMaxMs = options.durationMs("hold-limit") ?? configuration.limits.holdMaxMs
            configuration.sessionTimeoutMs = options.durationMs(Option.sessionTimeout.name)
            configuration.keepsPartitions = options.flag(Option.keepPartitions.name)
            let runner = JoinRunner(
                configuration, log: invocation.log, metrics: invocation.metrics, clock: invocation.clock)
            return try invocation.runStage(
                run: { try runner.run() }, health: runner.health, stop: { runner.stop() })
        })
}
