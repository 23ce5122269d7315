import Wire

/// Who was in a chat at each of its versions, rebuilt from `chat.members` by its own rules: Postgres raises the version in
/// the transaction of the change and right behind it, and what CDC repeats after a crash brings no new version. Pure.
struct MembershipHistory {
    struct State: Equatable {
        let version: Int64
        let members: Set<UserID>
    }

    private(set) var states: [State] = []
    /// Why it cannot be relied on.
    private(set) var problem: String?
    private var pending: [(user: UserID, isMember: Bool)] = []

    mutating func change(_ user: UserID, isMember: Bool) { pending.append((user, isMember)) }

    mutating func reach(_ version: Int64) {
        defer { pending = [] }
        let last = states.last
        guard version > last?.version ?? -1 else { return }
        if let last, version != last.version + 1 {
            problem = problem ?? "the log goes from version \(last.version) to \(version)"
        }
        var members = last?.members ?? []
        for (user, isMember) in pending {
            if isMember { members.insert(user) } else { members.remove(user) }
        }
        states.append(State(version: version, members: members))
    }

    /// A row of a snapshot comes: it says how things are, not how they came to be so. As the beginning of a chat that was made
    /// while CDC took its first one, that is as good as any; later, what happened in between is not known.
    mutating func noteSnapshot() {
        guard !states.isEmpty else { return }
        problem = problem ?? "CDC took a snapshot while the storm was on"
    }
}
