public import KafkaClient
public import Wire

/// What one look at the cluster found. Committed offsets are read before the ends, so an end is never older than the
/// commit that it is compared with.
public struct LagSample: Sendable {
    /// One partition as one group sees it.
    public struct Position: Sendable, Equatable {
        public let group: String
        public let partition: TopicPartition
        /// `nil` when the group has never committed here: then everything in the log is before it.
        public let committed: Int64?
        public let low: Int64
        public let end: Int64
        /// The timestamp of the first record not yet consumed; `nil` when there is none, or it could not be read in time.
        public var firstWaitingMs: Int64?
        /// When the commit was made; `nil` when that was too long ago to be found, or may not be read.
        public var committedMs: Int64?
        /// What the push stage said of itself with its commit.
        public var pushNote: PushNote?
        /// Nothing that a consumer could get lies between the commit and the end, only markers of transactions.
        public var hasOnlyMarkers = false
        /// The group has a position of a log that was there under the topic's name before this one.
        public var isOfAnotherLog = false

        public init(
            group: String, partition: TopicPartition, committed: Int64?, low: Int64, end: Int64,
            firstWaitingMs: Int64? = nil, committedMs: Int64? = nil
        ) {
            self.group = group
            self.partition = partition
            self.committed = committed
            self.low = low
            self.end = end
            self.firstWaitingMs = firstWaitingMs
            self.committedMs = committedMs
        }

        /// Where the group goes on. A commit that lies outside of the log is moved to its nearer edge.
        public var next: Int64 { min(max(committed ?? low, low), end) }
        public var messages: Int64 { hasOnlyMarkers ? 0 : end - next }
        /// The commit was outside of the log: beyond its end, or already deleted.
        public var isClamped: Bool { committed.map { $0 != next } ?? false }
    }

    public struct Group: Sendable, Equatable {
        public let id: String
        /// `nil` when the coordinator did not answer.
        public let members: Int?
        /// Whom the group has given each partition that it subscribes to.
        public let owners: [TopicPartition: Owner]

        public init(id: String, members: Int?, owners: [TopicPartition: Owner] = [:]) {
            self.id = id
            self.members = members
            self.owners = owners
        }
    }

    /// A member of a group.
    public struct Owner: Sendable, Equatable {
        /// Given by the coordinator; another one after each start.
        public let member: String
        /// Its stable name where it has one, else its client id.
        public let name: String
        public let host: String

        public init(member: String, name: String, host: String) {
            self.member = member
            self.name = name
            self.host = host
        }
    }

    public struct Slot: Sendable, Equatable {
        public var name: String
        public var isActive: Bool
        public var confirmed: String
        /// WAL that Postgres keeps for the slot.
        public var retainedBytes: Int64
        /// What may still be written before the slot is lost; `nil` where there is no limit.
        public var safeBytes: Int64?
        public var walStatus: String
        /// How late the reader's confirmations come, as Postgres reckons; `nil` where nobody reads.
        public var behindSeconds: Double?
        /// How old the confirmed position is, by the database's clock: when the newest heartbeat was written that CDC has
        /// confirmed. At most some five seconds where CDC follows; `nil` where no CDC has said.
        public var confirmedAgeSeconds: Double?
        /// What CDC has said of itself.
        public var note: SlotNote?

        public init(
            name: String, isActive: Bool, confirmed: String, retainedBytes: Int64, safeBytes: Int64?, walStatus: String,
            behindSeconds: Double?
        ) {
            self.name = name
            self.isActive = isActive
            self.confirmed = confirmed
            self.retainedBytes = retainedBytes
            self.safeBytes = safeBytes
            self.walStatus = walStatus
            self.behindSeconds = behindSeconds
        }
    }

    public struct Instance: Sendable, Equatable {
        public let name: String
        public let connections: Int64
        public let isDraining: Bool
        public let heartbeatAgeMs: Int64

        public init(name: String, connections: Int64, isDraining: Bool, heartbeatAgeMs: Int64) {
            self.name = name
            self.connections = connections
            self.isDraining = isDraining
            self.heartbeatAgeMs = heartbeatAgeMs
        }
    }

    public var takenMs: Int64
    /// Why there are no positions at all: the cluster does not answer, or does not let us in.
    public var clusterError: String?
    public var positions: [Position] = []
    public var groups: [Group] = []
    public var slots: [Slot] = []
    public var instances: [Instance] = []
    /// What could not be learned in time, one line each.
    public var missing: [String] = []

    public init(takenMs: Int64) { self.takenMs = takenMs }
}
