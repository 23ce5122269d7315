/// One consumer group of the classic protocol.
///
///     empty ──join──► preparing ──all joined──► completing ──leader's sync──► stable
///       ▲                 ▲                         │                           │
///       └──last one left──┴──── join, leave, timeout ───────────────────────────┘
///
/// A rebalance gathers everyone (*preparing*), gives them a new generation and elects a leader, waits for the
/// leader's assignment (*completing*), and hands it out. A request of an older generation is refused, so a member
/// that slept through a rebalance can commit nothing. Eager and cooperative clients differ only in what they write
/// into their metadata and assignments, which are opaque here.
struct Group {
    enum State: String {
        case empty = "Empty"
        case preparing = "PreparingRebalance"
        case completing = "CompletingRebalance"
        case stable = "Stable"
    }

    struct Member {
        let id: String
        var instance: String?
        var clientID: String
        var clientHost: String
        var sessionTimeoutMs: Int
        var rebalanceTimeoutMs: Int
        var protocols: [GroupProtocol]
        var assignment: [UInt8] = []
        /// When it is taken for dead unless it is heard from; it cannot be heard from while it waits for an answer.
        var deadlineMs: Int64
        var waitingJoin: Ticket?
        var waitingSync: Ticket?

        func metadata(for name: String?) -> [UInt8] {
            protocols.first { $0.name == name }?.metadata ?? []
        }
    }

    let id: String
    var state = State.empty
    var generation: Int32 = 0
    var protocolType: String?
    var protocolName: String?
    var leader: String?
    /// In the order of joining, so that elections and assignments are reproducible.
    var members: [Member] = []
    /// Ids handed out with "member id required", until when they are kept.
    var promised: [String: Int64] = [:]
    /// When a rebalance goes on without those that are missing, or the generation's sync is given up.
    var rebalanceDeadlineMs = Int64.max
    /// Since when nobody is in the group; its offsets expire some time after that.
    var emptySinceMs: Int64

    init(id: String, nowMs: Int64) {
        self.id = id
        emptySinceMs = nowMs
    }

    /// Whether nobody is in the group, or about to be.
    var isUnused: Bool { members.isEmpty && promised.isEmpty }

    func index(of member: String) -> Int? { members.firstIndex { $0.id == member } }
    func index(ofInstance instance: String) -> Int? { members.firstIndex { $0.instance == instance } }

    /// Finds the member a request speaks for, or says why it may not.
    func authenticate(_ identity: MemberIdentity) -> Result<Int, ErrorRefusal> {
        if let instance = identity.instance {
            guard let index = index(ofInstance: instance) else { return .failure(.init(.unknownMemberID)) }
            guard members[index].id == identity.member else { return .failure(.init(.fencedInstanceID)) }
            return .success(index)
        }
        guard let index = index(of: identity.member) else { return .failure(.init(.unknownMemberID)) }
        return .success(index)
    }

    func supports(_ type: String, _ protocols: [GroupProtocol], replacing member: String? = nil) -> Bool {
        guard !type.isEmpty, !protocols.isEmpty else { return false }
        let others = members.filter { $0.id != member }
        guard !others.isEmpty else { return true }
        guard type == protocolType else { return false }
        return protocols.contains { candidate in
            others.allSatisfy { $0.protocols.contains { $0.name == candidate.name } }
        }
    }

    // MARK: Rebalance

    /// Starts gathering the members, unless that is under way.
    mutating func prepareRebalance(nowMs: Int64) -> [GroupAction] {
        guard state != .preparing else { return [] }
        var actions: [GroupAction] = []
        for index in members.indices {
            members[index].assignment = []
            if let ticket = members[index].waitingSync.take() {
                actions.append(.synced(ticket, SyncResult(error: .rebalanceInProgress)))
                members[index].deadlineMs = nowMs + Int64(members[index].sessionTimeoutMs)
            }
        }
        state = .preparing
        rebalanceDeadlineMs = nowMs + Int64(members.map(\.rebalanceTimeoutMs).max() ?? 0)
        return actions
    }

    /// Ends the gathering when nobody is missing.
    mutating func completeIfAllJoined(nowMs: Int64) -> [GroupAction] {
        guard state == .preparing, promised.isEmpty, members.allSatisfy({ $0.waitingJoin != nil }) else { return [] }
        return completeJoin(nowMs: nowMs)
    }

    /// Gives those that have joined the next generation. Missing dynamic members are dropped; a static member may be
    /// restarting and keeps its place until its session ends.
    mutating func completeJoin(nowMs: Int64) -> [GroupAction] {
        members.removeAll { $0.waitingJoin == nil && $0.instance == nil }
        let joined = members.filter { $0.waitingJoin != nil }
        if joined.isEmpty, !members.isEmpty {
            rebalanceDeadlineMs = nowMs + Int64(members.map(\.rebalanceTimeoutMs).max() ?? 0)
            return []
        }
        generation = generation == Int32.max ? 1 : generation + 1
        guard let first = joined.first else {
            becomeEmpty(nowMs: nowMs)
            return [.store(snapshot)]
        }
        if !joined.contains(where: { $0.id == leader }) { leader = first.id }
        protocolName = electProtocol()
        state = .completing
        rebalanceDeadlineMs = nowMs + Int64(members.map(\.rebalanceTimeoutMs).max() ?? 0)
        var actions: [GroupAction] = []
        for index in members.indices {
            guard let ticket = members[index].waitingJoin.take() else { continue }
            members[index].deadlineMs = nowMs + Int64(members[index].sessionTimeoutMs)
            actions.append(.joined(ticket, joinResult(for: members[index].id)))
        }
        return actions
    }

    mutating func becomeEmpty(nowMs: Int64) {
        state = .empty
        leader = nil
        protocolName = nil
        rebalanceDeadlineMs = .max
        emptySinceMs = nowMs
    }

    /// Each member votes for the first of its protocols that everyone supports; the most votes win.
    private func electProtocol() -> String? {
        guard let first = members.first else { return nil }
        let common = first.protocols.map(\.name).filter { name in
            members.allSatisfy { $0.protocols.contains { $0.name == name } }
        }
        var votes: [String: Int] = [:]
        for member in members {
            guard let vote = member.protocols.first(where: { common.contains($0.name) }) else { continue }
            votes[vote.name, default: 0] += 1
        }
        return common.max { votes[$0, default: 0] < votes[$1, default: 0] }
    }

    func joinResult(for member: String) -> JoinResult {
        JoinResult(
            generation: generation, protocolType: protocolType, protocolName: protocolName, leader: leader ?? "",
            member: member, members: member == leader ? roster : [])
    }

    var roster: [JoinedMember] {
        members.map { JoinedMember(member: $0.id, instance: $0.instance, metadata: $0.metadata(for: protocolName)) }
    }

    func syncResult(for index: Int) -> SyncResult {
        SyncResult(protocolType: protocolType, protocolName: protocolName, assignment: members[index].assignment)
    }

    /// Takes a member out, answers what it waits for, and lets the rest rebalance.
    mutating func remove(_ index: Int, answering error: ErrorCode, nowMs: Int64) -> [GroupAction] {
        let member = members.remove(at: index)
        var actions: [GroupAction] = []
        if let ticket = member.waitingJoin {
            actions.append(.joined(ticket, JoinResult(error: error, member: member.id)))
        }
        if let ticket = member.waitingSync { actions.append(.synced(ticket, SyncResult(error: error))) }
        if leader == member.id { leader = members.first { $0.waitingJoin != nil }?.id ?? members.first?.id }
        if state == .stable || state == .completing { actions += prepareRebalance(nowMs: nowMs) }
        return actions + completeIfAllJoined(nowMs: nowMs)
    }

    /// The topics that members of a consumer group subscribe to. Every version of the subscription starts with them.
    var subscribedTopics: Set<String> {
        guard protocolType == "consumer" else { return [] }
        var topics: Set<String> = []
        for member in members {
            let metadata = member.protocols.first?.metadata ?? []
            var reader = RequestReader(metadata.span)
            guard (try? reader.int16()) != nil, let names = try? reader.stringArray() else { continue }
            topics.formUnion(names)
        }
        return topics
    }

    // MARK: Restart

    var snapshot: GroupSnapshot {
        GroupSnapshot(
            group: id, generation: generation, protocolType: protocolType ?? "", protocolName: protocolName,
            leader: leader,
            members: members.map {
                GroupSnapshot.Member(
                    id: $0.id, instance: $0.instance, clientID: $0.clientID, clientHost: $0.clientHost,
                    sessionTimeoutMs: $0.sessionTimeoutMs, rebalanceTimeoutMs: $0.rebalanceTimeoutMs,
                    metadata: $0.metadata(for: protocolName), assignment: $0.assignment)
            })
    }

    init(restoring snapshot: GroupSnapshot, nowMs: Int64) {
        self.init(id: snapshot.group, nowMs: nowMs)
        generation = snapshot.generation
        protocolType = snapshot.protocolType.isEmpty ? nil : snapshot.protocolType
        protocolName = snapshot.protocolName
        leader = snapshot.leader
        state = snapshot.members.isEmpty ? .empty : .stable
        members = snapshot.members.map {
            Member(
                id: $0.id, instance: $0.instance, clientID: $0.clientID, clientHost: $0.clientHost,
                sessionTimeoutMs: $0.sessionTimeoutMs, rebalanceTimeoutMs: $0.rebalanceTimeoutMs,
                protocols: [GroupProtocol(name: snapshot.protocolName ?? "", metadata: $0.metadata)],
                assignment: $0.assignment, deadlineMs: nowMs + Int64($0.sessionTimeoutMs))
        }
    }
}

/// An error code as a Swift error, for `Result`.
struct ErrorRefusal: Error, Equatable {
    let code: ErrorCode
    init(_ code: ErrorCode) { self.code = code }
}
