public import PushLink
import Runtime

/// Who of one partition's users is online.
///
/// A user is online with the first session, at once, and offline when the last has been gone for the grace period, so
/// that a quick reconnect is not seen. Changes are taken out in slices: 100,000 users leaving at once fill a queue, not
/// the time that messages need.
public struct Presence {
    private struct Status {
        var lastSeen: Int64 = 0
        /// Counts the times the grace period began or was broken off: tells which queue entry is the present one.
        var generation: UInt32 = 0
        var state = State.offline
        /// Waits in `changed`.
        var isChanged = false
    }

    private enum State: UInt8 {
        case offline
        case online
        /// Online as far as others know; no session is left.
        case leaving
    }

    public struct Change: Equatable, Sendable {
        public let user: Int
        public let status: PresenceStatus
        public let lastSeen: Int64

        public init(user: Int, status: PresenceStatus, lastSeen: Int64) {
            self.user = user
            self.status = status
            self.lastSeen = lastSeen
        }
    }

    public let graceMs: Int64
    private var statuses: [Status] = []
    /// All wait equally long, so the queue is in the order of its deadlines.
    private var leaving = Ring<(user: UInt32, generation: UInt32, deadline: Int64)>()
    /// Users whose change has yet to be taken out, from `firstChanged` on: four bytes each, and none when all are.
    private var changed: [UInt32] = []
    private var firstChanged = 0

    public init(graceMs: Int64 = 25_000) { self.graceMs = graceMs }

    // MARK: - What happens to users

    /// What `chat.presence` tells of a user when a partition is taken over. Whoever was online and has not come back by
    /// the end of a grace period is offline.
    public mutating func restore(user: Int, status: PresenceStatus, lastSeen: Int64, nowMs: Int64) {
        grow(to: user)
        statuses[user].lastSeen = lastSeen
        switch (status, statuses[user].state) {
        case (.online, .offline): leave(user, nowMs)
        case (.offline, .leaving):
            statuses[user].state = .offline
            statuses[user].generation &+= 1
        default: break
        }
    }

    public mutating func firstSessionOpened(user: Int, nowMs: Int64) {
        grow(to: user)
        let wasOffline = statuses[user].state == .offline
        statuses[user].state = .online
        statuses[user].generation &+= 1
        statuses[user].lastSeen = nowMs
        if wasOffline { change(user) }
    }

    /// - Parameter seenMs: when it was there for certain, if that is earlier than now.
    public mutating func lastSessionClosed(user: Int, seenMs: Int64? = nil, nowMs: Int64) {
        grow(to: user)
        guard statuses[user].state == .online else { return }
        statuses[user].lastSeen = max(statuses[user].lastSeen, seenMs ?? nowMs)
        leave(user, nowMs)
    }

    private mutating func leave(_ user: Int, _ nowMs: Int64) {
        statuses[user].state = .leaving
        statuses[user].generation &+= 1
        leaving.append((UInt32(user), statuses[user].generation, nowMs + graceMs))
    }

    /// Ends grace periods that have run out, then takes up to `limit` changes.
    public mutating func takeChanges(nowMs: Int64, limit: Int) -> [Change] {
        var looked = 0
        while looked < limit * 4, !leaving.isEmpty, leaving[leaving.start].deadline <= nowMs {
            looked += 1
            let entry = leaving.removeFirst()
            let user = Int(entry.user)
            guard statuses[user].state == .leaving, statuses[user].generation == entry.generation else { continue }
            statuses[user].state = .offline
            change(user)
        }
        var changes: [Change] = []
        while changes.count < limit, firstChanged < changed.count {
            let user = Int(changed[firstChanged])
            firstChanged += 1
            statuses[user].isChanged = false
            changes.append(status(of: user))
        }
        if firstChanged * 2 > changed.count {
            changed = Array(changed[firstChanged...])
            firstChanged = 0
        }
        return changes
    }

    /// Several changes before they are taken out are one: watchers get the latest.
    private mutating func change(_ user: Int) {
        guard !statuses[user].isChanged else { return }
        statuses[user].isChanged = true
        changed.append(UInt32(user))
    }

    public func status(of user: Int) -> Change {
        guard user < statuses.count else { return Change(user: user, status: .offline, lastSeen: 0) }
        let status = statuses[user]
        return Change(
            user: user, status: status.state == .offline ? .offline : .online, lastSeen: status.lastSeen)
    }

    private mutating func grow(to user: Int) {
        guard user >= statuses.count else { return }
        statuses += [Status](repeating: Status(), count: max(user + 1, statuses.count * 2) - statuses.count)
    }
}
