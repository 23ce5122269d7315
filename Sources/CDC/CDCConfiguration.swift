public import KafkaClient

public struct CDCConfiguration: Sendable {
    /// A slot that was lost: read everything again, or stop and let somebody decide.
    public enum Resnapshot: String, Sendable, CaseIterable { case auto, never }

    /// libpq's connection string.
    public var postgres: String
    public var kafka: KafkaConfiguration
    public var routes: [TableRoute]
    public var publication = "fanout"
    public var slot = "fanout"
    /// The group whose committed metadata holds what CDC remembers.
    public var group: String
    public var resnapshot = Resnapshot.auto
    /// Whether a database that is older than what the topics hold, or another, is read all the same, and what it does not
    /// have deleted from the topics.
    public var acceptsRestoredDatabase = false
    /// Values in binary: less work for the server, for tables whose types all have a known binary form (`BinaryValue`).
    public var binary = false
    /// Whether large transactions are received while they are under way, and kept on disk until they commit.
    public var streamsLarge = true
    /// Where they are kept; a place that is not made of memory.
    public var spillDirectory = "/tmp"
    /// How often a position is confirmed while there are changes.
    public var confirmIntervalMs = 200
    /// How often the server hears from us at least.
    public var statusIntervalMs = 10_000
    /// How often a message with the database's time is written into its log, and the server asked how the slot does. So
    /// the confirmed position of a CDC that follows is never much older than this, and tells of one that does not.
    public var heartbeatMs = 5_000
    /// How much may wait for Kafka's acknowledgement.
    public var queueBytesMax = 64 << 20
    public var producer = ProducerOptions()

    public init(postgres: String, kafka: KafkaConfiguration, routes: [TableRoute], group: String = "fanout.cdc") {
        self.postgres = postgres
        self.kafka = kafka
        self.routes = routes
        self.group = group
        // Costs a change a millisecond, and lets the many of a large transaction share requests.
        producer.lingerMs = 1
    }
}
