/// How large a system must be for a load: cores, memory, partitions and the log's bandwidth (`fanout plan`).
///
/// What a message costs each stage is a line through two measured loads, messages to 2 people and messages to 100
/// (`fanout bench load`, docs/measurements/pipeline.md): so much for a message and so much for each of its recipients.
public struct Sizing: Sendable {
    /// The load, at its peak.
    public struct Load: Sendable {
        /// Messages sent a second.
        public var messages: Double = 1000
        /// Members of the chat that an average message goes to, its sender included.
        public var members: Double = 5
        public var users: Double = 100_000
        /// Devices connected at once.
        public var sessions: Double = 50_000
        public var chatsPerUser: Double = 50
        public var textBytes: Double = 200
        public var replication: Double = 3
        /// How busy a core may be.
        public var busy = 0.5

        public init() {}

        var sessionsPerMember: Double { sessions / max(users, 1) }
        /// Frames to devices a second.
        var deliveries: Double { messages * members * sessionsPerMember }
        var memberships: Double { users * chatsPerUser }
    }

    /// CPU time in microseconds.
    struct Cost {
        var message: Double
        /// Each recipient; of the chat server, each frame to a device.
        var recipient: Double
    }

    static let chat = Cost(message: 60, recipient: 10)
    static let join = Cost(message: 15, recipient: 0.3)
    static let delivery = Cost(message: 6, recipient: 0.2)
    static let history = Cost(message: 10, recipient: 0)
    static let historyDatabase = Cost(message: 10, recipient: 0)

    static let sessionBytes = (chat: 1536.0, delivery: 120.0)
    static let membershipBytes = 16.0
    static let hotWindowBytes = 64.0 * 1024 * 1024
    /// What one partition carries well.
    static let partitionBytesPerSecond = 10e6
    static let partitionRecordsPerSecond = 5000.0
    /// What the bytes around a message's text come to in the JSON of its topic.
    static let envelopeBytes = (incoming: 260.0, messages: 300.0, deliveries: 420.0, recipient: 39.0)
    /// Sessions that one process can hold with the usual limit of descriptors raised to a million.
    static let processSessions = 500_000.0
    /// Messages a second that one Postgres stores beside all else it does: a quarter of what it can.
    static let databaseMessages = 25_000.0

    public struct Stage: Sendable, Equatable {
        public var name: String
        public var cores: Double
        public var memoryBytes: Double
        public var processes: Double
        /// What the processes are limited by, or what must be known of them.
        public var note: String
    }

    public struct Topic: Sendable, Equatable {
        public var name: String
        public var recordsPerSecond: Double
        public var bytesPerSecond: Double
        /// How many stages read it.
        public var readers: Double
    }

    public let load: Load
    public let stages: [Stage]
    public let topics: [Topic]
    /// Partitions of the topics by chat, and by user.
    public let partitions: (chat: Double, user: Double)

    public init(_ load: Load) {
        self.load = load
        let perMessage = load.messages
        let incoming = Topic(
            name: "chat.incoming", recordsPerSecond: perMessage,
            bytesPerSecond: perMessage * (Self.envelopeBytes.incoming + load.textBytes), readers: 1)
        let messages = Topic(
            name: "chat.messages", recordsPerSecond: perMessage,
            bytesPerSecond: perMessage * (Self.envelopeBytes.messages + load.textBytes), readers: 1)

        // A message is one record in each delivery partition that has some of its recipients: the more partitions, the more
        // often its text is written. So the number of partitions, and the bytes that it is chosen for, are found together.
        func deliveries(_ partitions: Double) -> Topic {
            let hit = partitions * (1 - Self.power(1 - 1 / partitions, Int(load.members)))
            return Topic(
                name: "chat.deliveries", recordsPerSecond: perMessage * hit,
                bytesPerSecond: perMessage
                    * (hit * (Self.envelopeBytes.deliveries + load.textBytes) + load.members
                        * Self.envelopeBytes.recipient),
                readers: 1)
        }
        let chat = Self.partitions(messages)
        var user = 1.0
        for _ in 0..<8 { user = Self.partitions(deliveries(user)) }
        partitions = (chat, user)
        topics = [incoming, messages, deliveries(user)]

        func cores(_ cost: Cost, _ recipients: Double) -> Double {
            (cost.message * perMessage + cost.recipient * recipients) / 1e6 / load.busy
        }
        let recipients = perMessage * load.members
        func atLeast(_ cores: Double, _ bound: Double) -> Double { max(1, max(cores, bound).rounded(.up)) }
        let chatCores = cores(Self.chat, load.deliveries)
        let joinCores = cores(Self.join, recipients)
        let deliveryCores = cores(Self.delivery, recipients)
        let historyCores = cores(Self.history, 0)
        let databases = atLeast(perMessage / Self.databaseMessages, 1)
        let deliveryProcesses = atLeast(deliveryCores, 1)
        stages = [
            Stage(
                name: "chat", cores: chatCores, memoryBytes: load.sessions * Self.sessionBytes.chat,
                processes: atLeast(chatCores / 2, load.sessions / Self.processSessions),
                note: "a loop a core; sessions and frames"),
            Stage(
                name: "join", cores: joinCores, memoryBytes: load.memberships * Self.membershipBytes,
                processes: atLeast(joinCores, 1), note: "memberships in memory; a standby needs the same"),
            Stage(
                name: "delivery", cores: deliveryCores,
                memoryBytes: load.sessions * Self.sessionBytes.delivery + deliveryProcesses * Self.hotWindowBytes,
                processes: deliveryProcesses, note: "64 MiB of hot window each"),
            Stage(
                name: "history", cores: historyCores, memoryBytes: atLeast(historyCores, 1) * 100e6,
                processes: atLeast(historyCores, databases), note: "one or more for each database"),
            Stage(
                name: "postgres", cores: cores(Self.historyDatabase, 0), memoryBytes: databases * 16e9,
                processes: databases,
                note: databases > 1 ? "more than one: see limits in docs/operations.md" : "memberships and history"),
        ]
    }

    private static func partitions(_ topic: Topic) -> Double {
        max(
            1,
            max(topic.bytesPerSecond / partitionBytesPerSecond, topic.recordsPerSecond / partitionRecordsPerSecond)
                .rounded(.up))
    }

    private static func power(_ base: Double, _ exponent: Int) -> Double {
        var (result, square, left) = (1.0, base, exponent)
        while left > 0 {
            if left & 1 == 1 { result *= square }
            square *= square
            left >>= 1
        }
        return result
    }

    public var cores: Double { stages.map(\.cores).reduce(0, +) }
    /// Bytes a second that producers write, that brokers write with all replicas, and that consumers read.
    public var logBytes: (produced: Double, written: Double, read: Double) {
        let produced = topics.map(\.bytesPerSecond).reduce(0, +)
        return (produced, produced * load.replication, topics.map { $0.bytesPerSecond * $0.readers }.reduce(0, +))
    }
}
