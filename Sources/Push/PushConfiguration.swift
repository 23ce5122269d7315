public import KafkaClient
public import System
public import Wire

/// What `fanout push` needs to know.
public struct PushConfiguration: Sendable {
    public var kafka: KafkaConfiguration
    public var names = Names()
    /// Mutes, quiet hours, unread counts and devices are looked up here; without it everybody is told.
    public var postgres: String?
    /// Where notices are POSTed.
    public var webhook: String?
    /// Signs what is sent (HMAC-SHA256).
    public var secret: String?
    /// Trusted instead of the system's certificates.
    public var certificateAuthorities: String?
    /// Tells browsers directly.
    public var webPush: WebPushOptions?
    public var coalescing = Coalescer.Options()
    public var retry = RetryPolicy()
    public var breaker = CircuitBreaker()
    public var showsPreview = true
    public var concurrency = 64
    public var timeoutMs = 15_000
    /// Notices a request; 1 sends a single object, more an array.
    public var batchMax = 1
    public var memory = MemoryLimits()
    /// Prints what would be sent and sends nothing. Reads beside the group, and commits nothing.
    public var dryRun = false

    public init(kafka: KafkaConfiguration) {
        self.kafka = kafka
    }
}

/// How much of the backlog may be in memory. At any of these limits reading stops, and the log holds the rest.
public struct MemoryLimits: Sendable {
    /// People whose notice waits or is under way.
    public var people = 200_000
    /// Records that are not settled: many of them may be of few people.
    public var records = 1_000_000
    /// Offsets of one partition that wait behind a record which is not settled.
    public var offsets = 4_000_000
    /// Texts and dead letters.
    public var bytes = 256 << 20

    public init() {}
}

/// How browsers are told (RFC 8030, 8291, 8292).
public struct WebPushOptions: Sendable {
    /// Signs requests; browsers were shown its public half when they subscribed.
    public var key: PrivateKey
    /// How push services reach whoever runs this: `mailto:…` or `https://…`.
    public var subject: String
    /// How long a push service keeps a message for a browser that is away: as long as the log keeps it for us.
    public var ttlSeconds = 86_400
    /// A push service that takes a message for so long not is given up for it.
    public var giveUpMs: Int64 = 120_000
    /// For tests, whose push services are on this machine.
    public var allowsPrivateAddresses = false

    public init(key: PrivateKey, subject: String) {
        self.key = key
        self.subject = subject
    }
}
