public import PushLink

/// What a worker is told at start. Every queue and wait that it has is bounded by something here.
public struct DeliverySettings: Sendable {
    public var identity: LinkIdentity
    public var secret: LinkSecret
    /// Of `chat.deliveries`, and so of all user-side topics.
    public var partitionCount: Int32
    /// The hot windows of all owned partitions together.
    public var windowBytesMax = 64 << 20
    public var windowAgeMs: Int64 = 15 * 60_000
    /// How long a new partition waits for instances that should tell their sessions and do not.
    public var hearingMs: Int64 = 3_000
    /// Bytes sent on a link and not acknowledged, above which nothing more is read for it.
    public var linkBytesMax = 4 << 20
    /// How long a full link may keep others that have room waiting; then it is left behind, and fills its gaps later.
    public var patienceMs: Int64 = 100
    /// A full link on which nothing is acknowledged for this long is given up; its instance connects anew.
    public var stuckMs: Int64 = 2_000
    /// An instance without a link that is not heard of in `chat.instances` either is forgotten after this long.
    public var silentMs: Int64 = 5_000
    /// The same for one that still announces itself but cannot be reached from here.
    public var unreachableMs: Int64 = 30_000
    public var presenceGraceMs: Int64 = 25_000
    public var pushWindowMs: Int64 = 1_000
    /// Users without a session are told of by `chat.push`.
    public var makesPushes = true

    public init(identity: LinkIdentity, secret: LinkSecret, partitionCount: Int32) {
        self.identity = identity
        self.secret = secret
        self.partitionCount = partitionCount
    }
}

/// What a worker wants done that it cannot do itself.
public enum DeliveryAction: Equatable, Sendable {
    /// Connect to this instance; then `linkConnected` or `linkEnded`.
    case connect(instance: Int, address: String)
    /// Write these last bytes and close the connection. The worker hears no more of it.
    case disconnect(instance: Int, farewell: [UInt8])
    /// The partition is ready: records that were answered `.notYet` are wanted now.
    case resume(partition: Int32)
    /// An instance has seen a higher term. Commit with this one; if the group lets us, call `raiseTerm`.
    case raiseTerm(partition: Int32, term: UInt64)
    /// Ask where the partition's log ends now, and tell by `logEnds`.
    case askEnd(partition: Int32)
    /// A device asks for its stored cursor; answer with `answerLookUp`.
    case lookUp(CursorLookUp)
}

public struct CursorLookUp: Equatable, Sendable {
    public let instance: Int
    /// Tells an answer for an earlier life of the link apart.
    public let generation: UInt8
    public let request: UInt32
    public let device: DeviceKey
}

/// A record that is not what it should be, on its way to `chat.rejected`.
public struct RejectedDelivery: Equatable, Sendable {
    public let partition: Int32
    public let offset: Int64
    public let reason: String
    public let record: [UInt8]
}

public struct DeliveryCounts: Equatable, Sendable {
    public var records = 0
    public var deliveries = 0
    public var batches = 0
    public var duplicates = 0
    public var rejected = 0
    public var droppedTyping = 0
    public var fillsServed = 0
    public var fillsRefused = 0
    public var leftBehind = 0
    public var stuckLinks = 0
    public var droppedInstances = 0
    public var presenceChanges = 0
    public var pushes = 0

    public init() {}
}
