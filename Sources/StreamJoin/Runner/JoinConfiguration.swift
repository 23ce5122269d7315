public import KafkaClient
public import Wire

public struct JoinConfiguration: Sendable {
    public var kafka: KafkaConfiguration
    /// Where to read a chat's members when the log is late. Without it a message waits for the log alone.
    public var postgres: String?
    public var names: Names
    public var limits = JoinSetup.Limits()
    /// This process's name in the group: after a restart within the session timeout it gets its partitions back at once.
    public var instance: String?
    /// As short as the brokers allow, down to `ConsumerOptions.sessionTimeoutMsWanted`, if it is not said.
    public var sessionTimeoutMs: Int?
    /// Whether a named process keeps its partitions when it is stopped, for one of its name that is started soon.
    public var keepsPartitions = false
    /// Keep the membership of the other processes' partitions too: taking one over then reads almost nothing.
    public var isStandby = false
    public var commitIntervalMs = 100
    /// Where checkpoints of the membership table are kept.
    public var stateDirectory: String?
    public var checkpointIntervalMs = 600_000
    /// How much may wait for the log's acknowledgement; beyond that the join waits, and reads no more.
    public var queueBytesMax = 256 << 20

    public init(kafka: KafkaConfiguration, names: Names = Names()) {
        self.kafka = kafka
        self.names = names
    }
}

/// Why the join cannot go on.
public struct JoinError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        /// The topics are not as they must be: `fanout topics check` says more.
        case topics
        /// A record could not be written.
        case output
        /// What was read is not in the log that is there now.
        case log
        /// The database has no such tables: `fanout db migrate` makes them.
        case schema
    }

    public let code: Code
    public let message: String

    init(_ code: Code, _ message: String) {
        (self.code, self.message) = (code, message)
    }

    public var description: String { message }
}
