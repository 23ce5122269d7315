public import Wire

/// One end of a link as the other sees it. The epoch changes with every start of the process: sessions named by an
/// earlier life are gone.
public struct LinkIdentity: Hashable, Sendable {
    public let name: String
    public let epoch: UInt64

    public init(name: String, epoch: UInt64) {
        self.name = name
        self.epoch = epoch
    }
}

/// A worker's claim on a delivery partition. The term rises by one with every owner (it is kept in the metadata of the
/// committed offset, which Kafka fences), so an instance can tell the present owner from one that slept through a
/// rebalance.
public struct PartitionClaim: Hashable, Sendable {
    public let partition: Int32
    public let term: UInt64

    public init(partition: Int32, term: UInt64) {
        self.partition = partition
        self.term = term
    }
}

/// What a worker must know of a session.
public struct SessionRegistration: Hashable, Sendable {
    public let number: SessionNumber
    public let user: UserID
    public let device: DeviceID
    /// When the session began, in microseconds since the epoch by its instance's clock: of a device's sessions on several
    /// instances the last one stays.
    public let openedUs: Int64
    /// The last place the session is known to have seen; `nil` for a new device, which starts live.
    public let after: Cursor?
    /// The user's large chats, for records that name no recipients.
    public let largeChats: [ChatID]

    public init(
        number: SessionNumber, user: UserID, device: DeviceID, openedUs: Int64 = 0, after: Cursor?,
        largeChats: [ChatID] = []
    ) {
        self.number = number
        self.user = user
        self.device = device
        self.openedUs = openedUs
        self.after = after
        self.largeChats = largeChats
    }
}

/// What an event is, as far as the two ends treat it differently without reading its JSON.
public enum EventKind: UInt8, Sendable {
    case other = 0
    case message = 1
    case receipt = 2
    case typing = 3
    case member = 4
    case error = 5

    /// May be dropped when a queue is full: typing goes before messages.
    public var isDroppable: Bool { self == .typing }
}

/// One event for many sessions, as it lies in the receiving link's buffer.
public struct Batch: Hashable, Sendable {
    public let partition: Int32
    public let cursor: Cursor
    public let kind: EventKind
    /// Where the session numbers and the event's bytes are; `InstanceLink` reads them.
    let sessions: Range<Int>
    let payload: Range<Int>

    public var sessionCount: Int { sessions.count / 4 }
}

public struct PartitionProgress: Hashable, Sendable {
    public let partition: Int32
    /// Everything up to here has been routed, and whatever of it concerned the instance has been sent before this.
    public let routed: Cursor

    public init(partition: Int32, routed: Cursor) {
        self.partition = partition
        self.routed = routed
    }
}

/// An instance's request for what a session missed: events after `after`, up to and including `through`.
public struct FillRequest: Hashable, Sendable {
    /// The number of no request: of what a worker says by itself.
    public static let unasked: UInt32 = 0

    public let request: UInt32
    public let partition: Int32
    public let session: SessionNumber
    public let after: Cursor
    public let through: Int64
    /// The answer stops at the first event that passes this; the instance asks on from the page's `upTo`.
    public let bytesMax: UInt32

    public init(
        request: UInt32, partition: Int32, session: SessionNumber, after: Cursor, through: Int64, bytesMax: UInt32
    ) {
        self.request = request
        self.partition = partition
        self.session = session
        self.after = after
        self.through = through
        self.bytesMax = bytesMax
    }
}

public struct FillPage: Hashable, Sendable {
    public struct Event: Hashable, Sendable {
        public let offset: Int64
        public let kind: EventKind
        let payload: Range<Int>
    }

    public let request: UInt32
    public let session: SessionNumber
    /// Everything for this session up to here is in this page or an earlier one.
    public let upTo: Cursor
    /// Whether `upTo` has reached what was asked for.
    public let isLast: Bool
    public let events: [Event]
}

/// Why a fill cannot be served from the hot window.
public enum FillRefusal: UInt8, Sendable {
    /// The cursor lies before the window: History serves up to the window's start, a fill the rest.
    case older = 1
    /// The cursor is of another life of the topic: as `older`, and its offset means nothing. Also said unasked, right
    /// behind `registered`, of a session whose cursor lies beyond the log's end.
    case foreign = 2
    /// The worker does not know the session, or no longer owns its partition: register again where it is owned.
    case unknownSession = 3
}

public enum PresenceStatus: UInt8, Sendable {
    case offline = 0
    case online = 1
}

public struct PresenceNotice: Hashable, Sendable {
    public let user: UserID
    public let status: PresenceStatus
    /// Milliseconds since the epoch; zero when the user has never been seen.
    public let lastSeen: Int64

    public init(user: UserID, status: PresenceStatus, lastSeen: Int64) {
        self.user = user
        self.status = status
        self.lastSeen = lastSeen
    }
}

public struct DeviceCursor: Hashable, Sendable {
    public let user: UserID
    public let device: DeviceID
    public let cursor: Cursor

    public init(user: UserID, device: DeviceID, cursor: Cursor) {
        self.user = user
        self.device = device
        self.cursor = cursor
    }
}

/// The answer to a look-up of a device's stored cursor.
public enum StoredCursor: Hashable, Sendable {
    case found(Cursor)
    /// The device never stored one: it starts live.
    case none
    /// The store cannot be asked now: the device is to try again.
    case unavailable
}
