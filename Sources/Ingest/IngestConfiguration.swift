public import KafkaClient
public import Runtime
public import System
public import Wire

/// Everything that a chat server is told at its start.
public struct IngestConfiguration: Sendable {
    /// Its name among all instances; several loops get `name.0`, `name.1`, …
    public var instance: String
    public var listen: Address
    /// Where clients reach it; what `GET /v1/endpoint` answers for it.
    public var publicURL: String?
    public var tls: TLSContext?

    /// Where Delivery workers connect.
    public var pushListen: Address
    /// The host that workers are told to connect to.
    public var pushHost: String
    public var pushSecret: [UInt8]
    public var pushTLS: TLSContext?

    public var kafka: KafkaConfiguration
    public var names = Names()
    public var postgres: String?
    public var postgresConnections = 4

    public var tokens: TokenConfiguration
    /// Sites whose pages may open a WebSocket; empty allows all, since a token is needed anyway.
    public var origins: [String] = []
    /// A directory of static files, for the demo client and the operations page.
    public var webRoot: String?
    /// A file that `GET /demo/users` answers: people to try the demo as, with a token each. Never where real people are.
    public var demoUsersFile: String?
    public var media: MediaStore?
    /// What browsers subscribe to Web Push with: the public half of `fanout push`'s key.
    public var vapidPublicKey: String?
    /// Takes Web Push endpoints on this machine and network, and without TLS; for tests.
    public var allowsPrivateEndpoints = false
    /// Where other stages serve `/metrics`, for the operations page.
    public var stages: [(name: String, address: Address)] = []

    /// Each loop is an instance of its own: its sockets, its log writer, its links share nothing with the others'.
    public var loops = 1
    public var limits = IngestLimits()

    /// Without a `pushHost` workers are told the host that is listened at.
    public init(
        instance: String, listen: Address, pushListen: Address, pushHost: String?, pushSecret: [UInt8],
        kafka: KafkaConfiguration, tokens: TokenConfiguration
    ) {
        self.instance = instance
        self.listen = listen
        self.pushListen = pushListen
        self.pushHost = pushHost ?? pushListen.reachableHost
        self.pushSecret = pushSecret
        self.kafka = kafka
        self.tokens = tokens
    }
}

extension Address {
    /// What others may reach it by: an address that stands for all of this machine's names none to anybody else.
    var reachableHost: String { ["0.0.0.0", "::", "*"].contains(host) ? CurrentProcess.hostName : host }
}

/// What anyone may make the server do or keep, and the consequence of wanting more.
public struct IngestLimits: Sendable {
    /// A request's head or a `hello` not here by then closes the connection.
    public var handshakeMs = 10_000
    /// A connection between two requests is kept this long.
    public var keepAliveMs = 60_000
    /// The server pings a client not heard of for half of this, and gives it up after all of it.
    public var silenceMs = 25_000
    /// Told to clients in `hello`.
    public var heartbeatMs = 20_000
    public var messageBytesMax = 64 << 10
    /// What one HTTP answer may take until its client has read it: more than the longest, a page of 200 messages as long as
    /// frames may be. Over it, or not read within `keepAliveMs`, the connection is closed.
    public var answerBytesMax = 16 << 20
    /// Whether permessage-deflate is agreed to.
    public var deflates = true
    /// What may wait for one slow device before it is closed with 4008.
    public var sessionQueueBytes = 1 << 20
    public var sessionQueueFragments = 4096
    /// What may wait while a session's gap is filled; what is more is filled in its turn. It goes into the queue at once when
    /// the gap is closed, where up to two pages may stand before it.
    public var heldBytesMax = 256 << 10
    /// A page of what was missed, and how full the queue may be when the next is asked for.
    public var fillBytes = 256 << 10
    /// How long a session waits for what it missed when History is behind or Postgres does not answer; then it is closed
    /// with 1013, and comes back with its cursor.
    public var historyWaitMs = 30_000
    /// What may wait for the log; a message beyond it gets `overloaded`.
    public var logQueueRecords = 50_000
    public var logQueueBytes = 64 << 20
    /// Messages a user may send: so many in such a time, and per loop.
    public var messages = 10
    public var messagesPerMs = 10_000
    /// Typing and receipts, which are dropped silently above it.
    public var signals = 60
    public var signalsPerMs = 10_000
    /// People whom a session may watch, and how many it may begin to watch in `signalsPerMs`.
    public var watchesMax = 256
    public var connectionsPerUser = 32
    public var connectionsPerAddress = 50_000
    /// New sessions a second and loop; beyond it a client is told when to come again.
    public var connectsPerSecond = 20_000
    /// A drain closes its sessions over this time and waits no longer than its double for them to end.
    public var drainMs = 5_000
    /// A chat with more members than this is a large one.
    public var largeChat = 256

    public init() {}
}
