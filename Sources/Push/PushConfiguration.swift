public import KafkaClient
public import Wire

/// What `fanout push` needs to know.
public struct PushConfiguration: Sendable {
    public var kafka: KafkaConfiguration
    public var names = Names()
    /// Mutes and quiet hours are looked up here; without it everybody is told.
    public var postgres: String?
    /// Where notices are POSTed; `nil` settles them untold, which only `dryRun` makes sense of.
    public var webhook: String?
    /// Signs what is sent (HMAC-SHA256).
    public var secret: String?
    /// Trusted instead of the system's certificates.
    public var certificateAuthorities: String?
    public var coalescing = Coalescer.Options()
    public var retry = RetryPolicy()
    public var showsPreview = true
    public var concurrency = 64
    public var timeoutMs = 15_000
    /// Notices a request; 1 sends a single object, more an array.
    public var batchMax = 1
    /// People waiting or under way in memory. At the limit reading stops, and the log holds the backlog.
    public var peopleMax = 200_000
    /// Prints what would be sent and sends nothing.
    public var dryRun = false

    public init(kafka: KafkaConfiguration) {
        self.kafka = kafka
    }
}

public struct PushError: Error, CustomStringConvertible {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}
