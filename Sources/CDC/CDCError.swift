internal import KafkaClient
internal import PostgresClient

/// Why CDC stopped, or could not start, and what to do about it.
public struct CDCError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// The database is not set up for it; somebody must run what `hint` says.
        case setup
        /// The configuration contradicts itself or the database.
        case configuration
        /// The slot was lost or is another one, and starting over is forbidden.
        case slotLost
        /// The database is older than what the topics hold, or another; going on would delete from the topics.
        case restoredDatabase
        /// Postgres or Kafka went away: try again.
        case transient
        /// The stream is not as the protocol says.
        case `protocol`
        case stopped
    }

    public var code: Code
    public var message: String
    /// What to run.
    public var hint: String?

    public init(_ code: Code, _ message: String, hint: String? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
    }

    /// Trying again does not help.
    var isFinal: Bool { ![.transient, .protocol, .stopped].contains(code) }

    public var description: String { hint.map { "\(message); run: \($0)" } ?? message }

    init(_ error: PostgresError, _ doing: String) {
        self.init(error.isTransient ? .transient : .setup, "\(doing): \(error)")
    }

    init(_ error: KafkaError, _ doing: String) {
        let isOurs = [.configuration, .authentication, .authorization, .unknownTopicOrPartition, .invalidArgument]
            .contains(error.code)
        self.init(isOurs ? .configuration : .transient, "\(doing): \(error)")
    }

    /// The replication slot is another database's or another program's.
    init(foreignSlot slot: String, _ reason: String) {
        self.init(.setup, "replication slot \(slot) \(reason)", hint: "fanout cdc --slot with a name of its own")
    }

    init(_ error: PgOutputError) { self.init(.protocol, "\(error)") }
}
