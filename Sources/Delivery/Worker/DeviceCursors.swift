public import PushLink
public import Wire

public struct DeviceKey: Hashable, Sendable {
    public let user: UserID
    public let device: DeviceID

    public init(user: UserID, device: DeviceID) {
        self.user = user
        self.device = device
    }
}

/// How far each device has said it is, on its way to the database: at most one write a second and device, and what was
/// written lately is answered from here.
public struct DeviceCursors {
    public let intervalMs: Int64
    public let recentMax: Int
    /// Of so many devices the cursors wait while the database is away; those of further ones are dropped, and the devices
    /// begin at an older place, with events that they know.
    public let waitingMax: Int
    private var waiting: [DeviceKey: Cursor] = [:]
    private var recent: [DeviceKey: Cursor] = [:]
    private var older: [DeviceKey: Cursor] = [:]
    private var nextMs: Int64 = 0

    public init(intervalMs: Int64 = 1_000, recentMax: Int = 100_000, waitingMax: Int = 1_000_000) {
        self.waitingMax = waitingMax
        self.intervalMs = intervalMs
        self.recentMax = recentMax
    }

    public mutating func store(_ device: DeviceKey, _ cursor: Cursor) {
        // Only forward, but for a topic made anew, whose offsets begin again at a later time.
        if let known = recall(device), cursor.offset <= known.offset, cursor.timestamp <= known.timestamp { return }
        guard waiting.count < waitingMax || waiting[device] != nil else { return }
        waiting[device] = cursor
        remember(device, cursor)
    }

    public func recall(_ device: DeviceKey) -> Cursor? { recent[device] ?? older[device] }

    /// Keeps what a look-up in the database found.
    public mutating func remember(_ device: DeviceKey, _ cursor: Cursor) {
        recent[device] = cursor
        guard recent.count > recentMax / 2 else { return }
        // Two halves: the one not written to for longer goes.
        older = recent
        recent = [:]
    }

    /// What is to be written now: everything, once an interval.
    public mutating func take(nowMs: Int64) -> [DeviceKey: Cursor] {
        guard nowMs >= nextMs, !waiting.isEmpty else { return [:] }
        nextMs = nowMs + intervalMs
        var taken: [DeviceKey: Cursor] = [:]
        swap(&taken, &waiting)
        return taken
    }

    /// Everything that waits, at the end.
    public mutating func takeAll() -> [DeviceKey: Cursor] {
        nextMs = 0
        return take(nowMs: 0)
    }

    /// What could not be written waits again, unless the device has moved on.
    public mutating func putBack(_ cursors: [DeviceKey: Cursor]) {
        waiting.merge(cursors) { newer, _ in newer }
    }
}
