// `fanout history`: what was said, kept in Postgres.
//
//     History.swift            configuration, start and stop
//     HistorySink.swift        the one thread: log → batches → transactions, and what it does when either side is away
//     DatabaseGuard.swift      whether the database is complete, and the one that it was
//     LogExtent.swift          what a stored position means in the log that there is
//     RejectLog.swift          what cannot be stored, to chat.rejected
//     PartitionHolders.swift   whom a rebuild waits for
//     SinkBatch.swift          records on their way into one transaction (a value)
//     EarlyMarks.swift         marks of readers that are ahead of the messages (a value)
//     SinkWriter.swift         the transaction
//     Days.swift               the partitions of `messages`
public import KafkaClient
internal import PostgresClient
public import Runtime
internal import Store
internal import Synchronization
public import Wire

public struct HistoryConfiguration: Sendable {
    public var kafka: KafkaConfiguration
    public var postgres: String
    public var names: Names
    public var retentionDays = 30
    /// A transaction takes at most so many records.
    public var batchRecordsMax = 20_000
    /// A record waits at most so long for others to share its transaction with, when they keep coming.
    public var lingerMs = 20
    public var groupInstanceID: String?
    /// Whether a named process keeps its partitions when it is stopped, for one of its name that is started soon.
    public var keepsPartitions = false
    /// Stop when all that was there at the start is stored (`fanout history rebuild`).
    public var stopsAtEnd = false

    public init(kafka: KafkaConfiguration, postgres: String, names: Names = Names()) {
        self.kafka = kafka
        self.postgres = postgres
        self.names = names
    }
}

public struct HistoryError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        /// The database has no such tables: `fanout db migrate` makes them.
        case schemaMissing
        /// The log refuses this client for good.
        case kafka
        /// Another process has joined the group under this one's name.
        case nameTaken
        /// Postgres refuses this client for good.
        case postgres
    }

    public let code: Code
    public let description: String

    init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}

public final class History: Sendable {
    let configuration: HistoryConfiguration
    let log: Log
    let clock: any Clock
    let counts: Counts
    public let health: Health
    let postgres: Health.Condition
    private let isStopping = Atomic<Bool>(false)

    /// What there is to see of it from outside.
    struct Counts: Sendable {
        let stored: Counter
        let repeated: Counter
        let rejected: Counter
        let batches: Histogram
        let postgresUp: Gauge
        let reachedMs: Gauge
        /// Of messages, and of signals.
        let logChanged: [Bool: Counter]

        let faults: ReadFaults

        init(_ metrics: Metrics, _ log: Log) {
            faults = ReadFaults(log, metrics, stage: "history")
            stored = metrics.counter("fanout_history_stored_total", "Messages stored")
            repeated = metrics.counter("fanout_history_repeated_total", "Messages that were stored before")
            rejected = metrics.counter("fanout_history_rejected_total", "Records that could not be stored")
            batches = metrics.histogram("fanout_history_batch_seconds", "Time to store a batch")
            postgresUp = metrics.gauge("fanout_history_postgres_up", "Whether Postgres answers")
            logChanged = Dictionary(
                uniqueKeysWithValues: [Topic.messages, .signals].map { topic in
                    let help = "Partitions that were begun anew because the topic was made again or had lost its end"
                    let labels: Metrics.Labels = ["topic": topic.rawValue]
                    return (topic == .messages, metrics.counter("fanout_log_changed_total", help, labels))
                })
            let reachedMs = Gauge()
            self.reachedMs = reachedMs
            metrics.gauge(
                "fanout_history_reached_timestamp_seconds", "Everything that the log took before this time is stored"
            ) { Double(reachedMs.value) / 1000 }
        }
    }

    public init(_ configuration: HistoryConfiguration, log: Log, metrics: Metrics, clock: any Clock) {
        self.configuration = configuration
        self.log = log
        self.clock = clock
        counts = Counts(metrics, log)
        health = Health(log: log, metrics: metrics, clock: clock)
        postgres = health.condition("postgres", failing: "nothing has been stored or read there yet")
    }

    /// Stores until `stop`, and outlives failures of the log and of Postgres. Throws what only a person can mend.
    public func run() throws {
        let sink = try HistorySink(self)
        try sink.run()
    }

    /// Forgets what was stored of the messages, so that the next run fills the tables from the log's beginning. What the log
    /// cannot give back stays: read positions, whose signals it keeps for a day only, and before when messages are gone.
    public static func empty(_ postgres: String) throws {
        var store = try StoreConnection(postgres)
        try store.postgres.execute(
            "TRUNCATE messages, chat_activity, sink_marks; DELETE FROM sink_progress WHERE topic <> ''")
    }

    /// Asks `run` to return; at once, from any thread.
    public func stop() { isStopping.store(true, ordering: .relaxed) }

    /// Whether Postgres took what there was lately.
    public var isReady: Bool { health.look().isReady }

    var mustStop: Bool { isStopping.load(ordering: .relaxed) }
}
