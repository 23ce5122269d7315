public import Wire

/// The next offset to read of each topic of a partition, and what goes with them: all that a task has used and the log
/// below these offsets does not tell.
public struct Positions: Equatable, Sendable {
    public var incoming: Int64
    /// Below it all changes have been applied and told.
    public var members: Int64
    public var signals: Int64
    /// Up to where changes have been applied: at `members` or beyond, since they are told only when this is committed.
    /// Messages are joined with the table as of here.
    public var applied: Int64
    /// How far the whole memberships in `chat.members` have been taken: at `applied` or beyond, since changes wait for the
    /// end of their transaction and these do not.
    public var memberships: Int64
    /// What has been decided about the message at `incoming`.
    public var decision: JoinDecision?
    /// Which logs the offsets are of.
    public var runs: LogRuns

    public init(
        incoming: Int64 = 0, members: Int64 = 0, signals: Int64 = 0, applied: Int64? = nil, memberships: Int64? = nil,
        decision: JoinDecision? = nil, runs: LogRuns = LogRuns()
    ) {
        self.runs = runs
        (self.incoming, self.members, self.signals) = (incoming, members, signals)
        self.applied = applied ?? members
        (self.memberships, self.decision) = (memberships ?? self.applied, decision)
    }

    /// Whether the table is as of one position. Else it has memberships from beyond changes that still wait.
    var isOne: Bool { memberships == applied }
}

/// The runs of the three topics in one partition.
public struct LogRuns: Equatable, Sendable {
    public var incoming: LogRun
    public var members: LogRun
    public var signals: LogRun

    public init(incoming: LogRun = LogRun(), members: LogRun = LogRun(), signals: LogRun = LogRun()) {
        (self.incoming, self.members, self.signals) = (incoming, members, signals)
    }
}

/// A topic as sources name it: by its name, and in header `src` with the tag of its run behind it.
struct SourceName: Sendable {
    let topic: [UInt8]
    let tagged: [UInt8]

    init(_ topic: String, _ run: LogRun) {
        self.topic = Array(topic.utf8)
        tagged = Array(SourcePosition.name(of: topic, run.tag).utf8)
    }
}

/// What all tasks of a process have in common.
public struct JoinSetup: Sendable {
    public struct Limits: Sendable {
        /// Chats with more members than this are large: their recipients are not listed.
        public var largeChat = 256
        /// A statement that changes more members of a chat than this is told as one change.
        public var bulkMin = 100
        /// So many changes of membership are applied at once, at most: a millisecond.
        public var sliceMax = 512
        /// How many accepted messages of a partition are remembered, for repeats and edits.
        public var recentMessages = 65_536
        /// When a message has waited this long for its membership, Postgres is asked.
        public var membersReadAfterMs = 250
        /// When a message has waited this long, it is refused.
        public var holdMaxMs = 30_000
        /// The largest record, key included, that the log takes.
        public var recordBytesMax = 990_000
        /// How many messages a task may be ahead of its commit.
        public var uncommittedMax = 4096

        public init() {}
    }

    public var chatPartitions: Int32
    public var deliveryPartitions: Int32
    public var limits: Limits
    let names: Names

    public init(chatPartitions: Int32, deliveryPartitions: Int32, limits: Limits = Limits(), names: Names = Names()) {
        self.chatPartitions = chatPartitions
        self.deliveryPartitions = deliveryPartitions
        self.limits = limits
        self.names = names
    }
}

/// What a task has done so far.
public struct JoinCounts: Sendable {
    public internal(set) var accepted = 0
    /// Repeats of an accepted message, answered with its seq.
    public internal(set) var already = 0
    public internal(set) var rejected = 0
    /// Recipients listed, and one for each record of a large chat.
    public internal(set) var recipients = 0
    public internal(set) var signals = 0
    public internal(set) var signalsDropped = 0
    public internal(set) var changes = 0
    public internal(set) var changesRepeated = 0
    public internal(set) var changesWithoutEffect = 0
    public internal(set) var memberEvents = 0
    /// Statements told as one change.
    public internal(set) var bulkChanges = 0
    /// Messages that waited for their membership, and for how long.
    public internal(set) var heldMessages = 0
    public internal(set) var heldNs: UInt64 = 0
    /// Messages that waited until a change of their chat was committed.
    public internal(set) var commitWaits = 0
    public internal(set) var commitWaitNs: UInt64 = 0
    public internal(set) var originalReads = 0

    mutating func waited(_ ns: UInt64, for reason: JoinWait) {
        switch reason {
        case .commit: (commitWaits, commitWaitNs) = (commitWaits + 1, commitWaitNs + ns)
        case .membership: (heldMessages, heldNs) = (heldMessages + 1, heldNs + ns)
        case .original: originalReads += 1
        }
    }
}
