import Wire

/// Holds what watchers were last told of users, and what the log last says of them, against who is there. Pure.
struct PresenceReckoning {
    /// What the devices themselves know: whether one of the user's is connected, and when the user can have been seen last.
    struct Truth: Equatable {
        let isHere: Bool
        let lastSeenMs: ClosedRange<Int64>
    }

    private(set) var violations: [String] = []
    /// Facts that were looked at: what one watcher was told of one user, and each user's last record.
    private(set) var told = 0
    private(set) var logged = 0
    private let truth: [UserID: Truth]

    init(_ truth: [UserID: Truth]) { self.truth = truth }

    mutating func check(toldTo watcher: UserID, watching: Set<UserID>, _ said: [UserID: PresenceRecord]) {
        for user in watching {
            told += 1
            check(said[user], of: user, by: "a device of \(watcher)")
        }
    }

    /// - Parameter last: of each user's records in `chat.presence`. Whoever was there once has one.
    mutating func check(log last: [UserID: PresenceRecord]) {
        for user in truth.keys {
            logged += 1
            check(last[user], of: user, by: "chat.presence")
        }
    }

    private mutating func check(_ said: PresenceRecord?, of user: UserID, by witness: String) {
        guard let truth = truth[user] else { return }
        guard let said else { return violations.append("\(witness) says nothing of \(user)") }
        if (said.status == .online) != truth.isHere {
            violations.append("\(witness) says that \(user) is \(said.status), which is wrong")
        } else if !truth.lastSeenMs.contains(said.lastSeen) {
            violations.append(
                "\(witness) says that \(user) (\(said.status)) was last seen at \(said.lastSeen), not within \(truth.lastSeenMs)"
            )
        }
    }
}
