/// What `fanout broker` can be told.
public struct BrokerConfiguration: Sendable {
    /// When an acknowledgement may be given, and what a consumer may see.
    public enum Fsync: Sendable, Equatable {
        /// Every acknowledgement, also of acks=1, waits for the disk.
        case always
        /// acks=all waits for the disk, together with all that arrived in the meantime; acks=1 waits for the kernel.
        case group
        /// The disk is brought up to date every so many milliseconds; acknowledgements do not wait.
        case interval(ms: Int)
        /// The kernel writes when it likes. A crash of the process loses nothing, one of the machine may.
        case never

        public init?(_ text: String) {
            switch text {
            case "always": self = .always
            case "group": self = .group
            case "never": self = .never
            default:
                let parts = text.split(separator: ":")
                guard parts.count == 2, parts[0] == "interval", let ms = Int(parts[1]), ms > 0 else { return nil }
                self = .interval(ms: ms)
            }
        }
    }

    /// Where everything is kept; made when missing.
    public var dataDirectory: String
    public var host = "127.0.0.1"
    /// 0 lets the kernel choose.
    public var port = 9092
    /// What clients are told to connect to; the listen address unless set.
    public var advertisedHost: String?
    public var advertisedPort: Int?
    public var fsync = Fsync.group
    /// Listen beyond loopback, where anyone who can connect can read and write everything.
    public var allowsInsecureListen = false

    /// Of topics that metadata requests make by naming them, as Kafka does by default. With 0 they make none: a stage that
    /// is started before its topics would leave wrong ones behind.
    public var defaultPartitions: Int32 = 0
    var createsTopics: Bool { defaultPartitions > 0 }
    /// Of a topic that is created without saying how many.
    var unsaidPartitions: Int32 { max(1, defaultPartitions) }
    public var partitionsMax = 100_000

    /// A larger request closes its connection.
    public var requestBytesMax = 32 << 20
    /// Of one fetch, whatever it asks for.
    public var fetchBytesMax = 1 << 20
    public var connectionsMax = 10_000
    /// Of requests and answers, in all connections together.
    public var heldBytesMax = 512 << 20
    /// Log files that are open at once, but never more than half of what the process may open: the rest is for connections.
    public var openFilesMax = 8192
    /// A journal file is checkpointed and used again at this size.
    public var journalBytes = 64 << 20
    public var retentionCheckMs = 30_000
    /// How long the offsets of an empty group are kept.
    public var offsetsRetentionMs: Int64 = 7 * 86_400_000
    /// How long a producer that no longer writes is remembered.
    public var producerExpiryMs: Int64 = 86_400_000

    /// Producer ids are counted from here; nil: from anywhere, so that no two brokers of all time give the same.
    var lastProducerID: Int64?

    /// In place of the one that the clock gives (`Catalog.nextEpoch`), where answers must be the same each time.
    var leaderEpoch: Int32?

    public init(dataDirectory: String) { self.dataDirectory = dataDirectory }
}
