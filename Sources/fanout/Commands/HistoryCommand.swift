import History
import Runtime
import System

extension Command {
    static let history = Command(
        name: "history",
        summary: "store messages in Postgres, for sync, pages and lists",
        operands: "[rebuild]",
        details: """
            Run as many as there is work for: they share the partitions of chat.messages among them.
            fanout history rebuild empties the message tables, fills them from the log, and ends. Stop the others before. What the
            log no longer holds is gone from the tables, too; read positions stay.
            """,
        options: Option.kafka + [
            Option.postgres,
            Option.metrics,
            Option("retention-days", .integer(1...3650), "drop messages after so many days", standard: "30"),
            Option("batch", .integer(1...1_000_000), "records in one transaction, at most", standard: "20000"),
            Option(
                "instance", .string("NAME"), "a stable name of this process: a quick restart moves no partitions"),
            .keepPartitions,
        ],
        run: { invocation in
            let options = invocation.options
            var configuration = HistoryConfiguration(
                kafka: try invocation.kafka(clientID: "fanout-history"), postgres: try invocation.postgres(),
                names: invocation.names)
            configuration.retentionDays = options.integer("retention-days") ?? configuration.retentionDays
            configuration.batchRecordsMax = options.integer("batch") ?? configuration.batchRecordsMax
            configuration.groupInstanceID = options.string("instance")
            configuration.keepsPartitions = options.flag(Option.keepPartitions.name)
            switch invocation.operands {
            case []: break
            case ["rebuild"]:
                configuration.stopsAtEnd = true
                try History.empty(configuration.postgres)
                invocation.log.info("emptied the message tables; filling them from the log")
            default: throw UsageError("expected fanout history or fanout history rebuild")
            }
            let history = History(
                configuration, log: invocation.log, metrics: invocation.metrics, clock: invocation.clock)
            return try invocation.runStage(
                run: { try history.run() }, health: history.health, stop: { history.stop() })
        })
}
