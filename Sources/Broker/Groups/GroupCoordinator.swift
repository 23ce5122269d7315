/// All consumer groups: a pure state machine. Events and the time go in, answers and things to store come out; it
/// owns no socket, file, thread or clock. `advance` must be called now and then, for what happens by time alone.
struct GroupCoordinator {
    struct Limits {
        var sessionTimeoutMs = 100...1_800_000
        var membersMax = 10_000
        var promisesMax = 10_000
    }

    private(set) var groups: [String: Group] = [:]
    private let limits: Limits
    private static let namePrefixMax = 255
    private var nextMember: UInt64
    private let incarnation: UInt64

    /// `incarnation` makes the member ids of one run of the broker different from those of every other.
    init(limits: Limits = Limits(), incarnation: UInt64) {
        self.limits = limits
        self.incarnation = incarnation
        nextMember = 0
    }

    mutating func restore(_ snapshot: GroupSnapshot, nowMs: Int64) {
        groups[snapshot.group] = Group(restoring: snapshot, nowMs: nowMs)
    }

    mutating func remove(_ id: String) { groups[id] = nil }

    /// Makes a group that only holds offsets known, as Kafka does for consumers that assign themselves.
    mutating func ensure(_ id: String, nowMs: Int64) {
        if groups[id] == nil { groups[id] = Group(id: id, nowMs: nowMs) }
    }

    // MARK: Join

    mutating func join(_ request: JoinRequest, ticket: Ticket, nowMs: Int64) -> [GroupAction] {
        func refuse(_ error: ErrorCode, member: String? = nil) -> [GroupAction] {
            [.joined(ticket, JoinResult(error: error, member: member ?? request.member))]
        }
        guard !request.group.isEmpty else { return refuse(.invalidGroupID) }
        guard limits.sessionTimeoutMs.contains(request.sessionTimeoutMs) else { return refuse(.invalidSessionTimeout) }
        var group = groups.removeValue(forKey: request.group) ?? Group(id: request.group, nowMs: nowMs)
        defer { groups[request.group] = group }

        guard group.supports(request.protocolType, request.protocols, replacing: replaced(by: request, in: group))
        else { return refuse(.inconsistentGroupProtocol) }

        if request.member.isEmpty {
            if let instance = request.instance {
                guard let index = group.index(ofInstance: instance) else {
                    return admit(request, as: newMemberID(request), to: &group, ticket, nowMs)
                }
                return replaceStatic(index, by: request, in: &group, ticket, nowMs)
            }
            guard group.members.count < limits.membersMax, group.promised.count < limits.promisesMax else {
                return refuse(.groupMaxSizeReached)
            }
            let id = newMemberID(request)
            guard request.knowsMemberIDRequired else { return admit(request, as: id, to: &group, ticket, nowMs) }
            group.promised[id] = nowMs + Int64(request.sessionTimeoutMs)
            return refuse(.memberIDRequired, member: id)
        }

        if group.promised.removeValue(forKey: request.member) != nil {
            return admit(request, as: request.member, to: &group, ticket, nowMs)
        }
        switch group.authenticate(MemberIdentity(member: request.member, instance: request.instance)) {
        case .failure(let refusal): return refuse(refusal.code)
        case .success(let index): return rejoin(index, request, in: &group, ticket, nowMs)
        }
    }

    private func replaced(by request: JoinRequest, in group: Group) -> String? {
        if request.member.isEmpty, let instance = request.instance {
            return group.index(ofInstance: instance).map { group.members[$0].id }
        }
        return request.member
    }

    private mutating func newMemberID(_ request: JoinRequest) -> String {
        nextMember += 1
        let name = request.instance ?? (request.clientID.isEmpty ? "member" : request.clientID)
        // A name of any length is allowed, and so must be what is made of it.
        return "\(name.prefix(utf8Bytes: Self.namePrefixMax))-\(String(incarnation, radix: 16))-\(nextMember)"
    }

    private func admit(
        _ request: JoinRequest, as id: String, to group: inout Group, _ ticket: Ticket, _ nowMs: Int64
    ) -> [GroupAction] {
        guard group.members.count < limits.membersMax else {
            return [.joined(ticket, JoinResult(error: .groupMaxSizeReached))]
        }
        if group.members.isEmpty { group.protocolType = request.protocolType }
        group.members.append(
            Group.Member(
                id: id, instance: request.instance, clientID: request.clientID, clientHost: request.clientHost,
                sessionTimeoutMs: request.sessionTimeoutMs, rebalanceTimeoutMs: request.rebalanceTimeoutMs,
                protocols: request.protocols, deadlineMs: nowMs + Int64(request.sessionTimeoutMs), waitingJoin: ticket))
        return group.prepareRebalance(nowMs: nowMs) + group.completeIfAllJoined(nowMs: nowMs)
    }

    private func rejoin(
        _ index: Int, _ request: JoinRequest, in group: inout Group, _ ticket: Ticket, _ nowMs: Int64
    ) -> [GroupAction] {
        let id = group.members[index].id
        let isUnchanged = group.members[index].protocols == request.protocols
        group.members[index].deadlineMs = nowMs + Int64(request.sessionTimeoutMs)
        // A retry, or a follower that missed the answer, gets the present generation again. The leader rejoins in a
        // stable group to force a rebalance: its topics have changed.
        switch group.state {
        case .completing where isUnchanged, .stable where isUnchanged && id != group.leader:
            return [.joined(ticket, group.joinResult(for: id))]
        default: break
        }
        var actions: [GroupAction] = []
        if let earlier = group.members[index].waitingJoin {
            actions.append(.joined(earlier, JoinResult(error: .rebalanceInProgress, member: id)))
        }
        group.members[index].protocols = request.protocols
        group.members[index].sessionTimeoutMs = request.sessionTimeoutMs
        group.members[index].rebalanceTimeoutMs = request.rebalanceTimeoutMs
        actions += group.prepareRebalance(nowMs: nowMs)
        group.members[index].waitingJoin = ticket
        return actions + group.completeIfAllJoined(nowMs: nowMs)
    }

    /// A static member came back under a new member id: it takes its old place, and whoever still uses the old id is
    /// fenced. In a stable group with the same subscription nothing else happens: that is what static members are for.
    private mutating func replaceStatic(
        _ index: Int, by request: JoinRequest, in group: inout Group, _ ticket: Ticket, _ nowMs: Int64
    ) -> [GroupAction] {
        let old = group.members[index]
        let id = newMemberID(request)
        var actions: [GroupAction] = []
        if let waiting = old.waitingJoin {
            actions.append(.joined(waiting, JoinResult(error: .fencedInstanceID, member: old.id)))
        }
        if let waiting = old.waitingSync {
            actions.append(.synced(waiting, SyncResult(error: .fencedInstanceID)))
        }
        let wasLeader = group.leader == old.id
        let isUnchanged =
            old.metadata(for: group.protocolName)
            == (request.protocols.first { $0.name == group.protocolName }?.metadata ?? [])
            && request.protocols.contains { $0.name == group.protocolName }
        group.members[index] = Group.Member(
            id: id, instance: request.instance, clientID: request.clientID, clientHost: request.clientHost,
            sessionTimeoutMs: request.sessionTimeoutMs, rebalanceTimeoutMs: request.rebalanceTimeoutMs,
            protocols: request.protocols, assignment: old.assignment,
            deadlineMs: nowMs + Int64(request.sessionTimeoutMs))
        if wasLeader { group.leader = id }
        if group.state == .stable, isUnchanged {
            var result = group.joinResult(for: id)
            if wasLeader, request.knowsSkipAssignment {
                result.skipAssignment = true
            } else if wasLeader {
                // An older client that saw itself as leader would compute a new assignment: let it follow.
                result.leader = old.id
                result.members = []
            }
            return actions + [.store(group.snapshot), .joined(ticket, result)]
        }
        actions += group.prepareRebalance(nowMs: nowMs)
        group.members[index].waitingJoin = ticket
        return actions + group.completeIfAllJoined(nowMs: nowMs)
    }

    // MARK: Sync

    mutating func sync(_ request: SyncRequest, ticket: Ticket, nowMs: Int64) -> [GroupAction] {
        func refuse(_ error: ErrorCode) -> [GroupAction] { [.synced(ticket, SyncResult(error: error))] }
        guard var group = groups.removeValue(forKey: request.group) else { return refuse(.unknownMemberID) }
        defer { groups[request.group] = group }
        let index: Int
        switch group.authenticate(MemberIdentity(member: request.member, instance: request.instance)) {
        case .failure(let refusal): return refuse(refusal.code)
        case .success(let found): index = found
        }
        guard request.generation == group.generation else { return refuse(.illegalGeneration) }
        if let type = request.protocolType, type != group.protocolType { return refuse(.inconsistentGroupProtocol) }
        if let name = request.protocolName, name != group.protocolName { return refuse(.inconsistentGroupProtocol) }
        group.members[index].deadlineMs = nowMs + Int64(group.members[index].sessionTimeoutMs)
        switch group.state {
        case .empty: return refuse(.unknownMemberID)
        case .preparing: return refuse(.rebalanceInProgress)
        case .stable: return [.synced(ticket, group.syncResult(for: index))]
        case .completing:
            var actions: [GroupAction] = []
            if let earlier = group.members[index].waitingSync {
                actions.append(.synced(earlier, SyncResult(error: .rebalanceInProgress)))
            }
            group.members[index].waitingSync = ticket
            guard group.leader == group.members[index].id else { return actions }
            for index in group.members.indices {
                group.members[index].assignment = request.assignments[group.members[index].id] ?? []
            }
            group.state = .stable
            group.rebalanceDeadlineMs = nowMs + Int64(group.members.map(\.rebalanceTimeoutMs).max() ?? 0)
            actions.append(.store(group.snapshot))
            for index in group.members.indices {
                guard let ticket = group.members[index].waitingSync.take() else { continue }
                group.members[index].deadlineMs = nowMs + Int64(group.members[index].sessionTimeoutMs)
                actions.append(.synced(ticket, group.syncResult(for: index)))
            }
            return actions
        }
    }

    // MARK: Heartbeat, leave, commit

    mutating func heartbeat(
        _ id: String, _ identity: MemberIdentity, generation: Int32, nowMs: Int64
    ) -> ErrorCode {
        guard let group = groups[id] else { return .unknownMemberID }
        switch group.authenticate(identity) {
        case .failure(let refusal): return refusal.code
        case .success(let index):
            guard generation == group.generation else { return .illegalGeneration }
            groups[id]?.members[index].deadlineMs = nowMs + Int64(group.members[index].sessionTimeoutMs)
            return group.state == .preparing ? .rebalanceInProgress : .none
        }
    }

    /// Removes one member. A static member may be named by its instance alone (an administrator's removal).
    mutating func leave(
        _ id: String, _ identity: MemberIdentity, nowMs: Int64
    ) -> (error: ErrorCode, actions: [GroupAction]) {
        guard var group = groups.removeValue(forKey: id) else { return (.unknownMemberID, []) }
        defer { groups[id] = group }
        if identity.instance == nil, group.promised.removeValue(forKey: identity.member) != nil {
            return (.none, group.completeIfAllJoined(nowMs: nowMs))
        }
        if let instance = identity.instance, identity.member.isEmpty, let index = group.index(ofInstance: instance) {
            return (.none, group.remove(index, answering: .unknownMemberID, nowMs: nowMs))
        }
        switch group.authenticate(identity) {
        case .failure(let refusal): return (refusal.code, [])
        case .success(let index): return (.none, group.remove(index, answering: .unknownMemberID, nowMs: nowMs))
        }
    }

    /// Whether a commit may stand. A generation below zero is a client outside any generation: it may commit only
    /// while nobody is in the group.
    mutating func authorizeCommit(
        _ id: String, _ identity: MemberIdentity, generation: Int32, nowMs: Int64
    ) -> ErrorCode {
        guard !id.isEmpty else { return .invalidGroupID }
        guard let group = groups[id] else { return generation < 0 ? .none : .illegalGeneration }
        if generation < 0, identity.member.isEmpty, identity.instance == nil {
            return group.members.isEmpty ? .none : .unknownMemberID
        }
        switch group.authenticate(identity) {
        case .failure(let refusal): return refusal.code
        case .success(let index):
            guard generation == group.generation else { return .illegalGeneration }
            groups[id]?.members[index].deadlineMs = nowMs + Int64(group.members[index].sessionTimeoutMs)
            return group.state == .completing ? .rebalanceInProgress : .none
        }
    }

    // MARK: Time

    /// Does what is due at `nowMs`: drops members that went silent and ends rebalances that waited long enough.
    mutating func advance(nowMs: Int64) -> [GroupAction] {
        var actions: [GroupAction] = []
        for id in Array(groups.keys) {
            guard let group = groups[id], !group.members.isEmpty || !group.promised.isEmpty else { continue }
            let isSomethingDue =
                group.rebalanceDeadlineMs <= nowMs || group.promised.values.contains { $0 <= nowMs }
                || group.members.contains { Self.isSilent($0, nowMs) }
            if isSomethingDue { actions += advance(id, nowMs: nowMs) }
        }
        return actions
    }

    private static func isSilent(_ member: Group.Member, _ nowMs: Int64) -> Bool {
        member.deadlineMs <= nowMs && member.waitingJoin == nil && member.waitingSync == nil
    }

    private mutating func advance(_ id: String, nowMs: Int64) -> [GroupAction] {
        guard var group = groups.removeValue(forKey: id) else { return [] }
        defer { groups[id] = group }
        var actions: [GroupAction] = []
        let promises = group.promised.count
        group.promised = group.promised.filter { $0.value > nowMs }
        while let index = group.members.firstIndex(where: { Self.isSilent($0, nowMs) }) {
            actions += group.remove(index, answering: .unknownMemberID, nowMs: nowMs)
        }
        if promises != group.promised.count { actions += group.completeIfAllJoined(nowMs: nowMs) }
        guard group.rebalanceDeadlineMs <= nowMs else { return actions }
        switch group.state {
        case .preparing:
            group.promised = [:]
            actions += group.completeJoin(nowMs: nowMs)
        case .completing:
            // Whoever has not synced by now will not: drop it and let the rest try again.
            while let index = group.members.firstIndex(where: { $0.waitingSync == nil }), group.state == .completing {
                actions += group.remove(index, answering: .unknownMemberID, nowMs: nowMs)
            }
        case .stable, .empty:
            group.rebalanceDeadlineMs = .max
        }
        return actions
    }
}
