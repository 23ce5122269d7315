import TestSupport
import Testing

@testable import Broker

@Suite struct GroupCoordinatorTests {
    private var coordinator = GroupCoordinator(incarnation: 0xabc)
    private let range = [GroupProtocol(name: "range", metadata: [1])]

    private func join(
        _ member: String = "", instance: String? = nil, protocols: [GroupProtocol]? = nil, client: String = "c",
        knowsSkip: Bool = true
    ) -> JoinRequest {
        JoinRequest(
            group: "g", member: member, instance: instance, clientID: client, sessionTimeoutMs: 10_000,
            rebalanceTimeoutMs: 30_000, protocolType: "consumer", protocols: protocols ?? range,
            knowsSkipAssignment: knowsSkip)
    }

    /// Joins as a newcomer does: learns its id, then joins with it. Returns the id and the actions of the second join.
    private mutating func enter(_ ticket: Ticket, nowMs: Int64 = 0) throws -> (id: String, actions: [GroupAction]) {
        let first = coordinator.join(join(), ticket: 900 + ticket, nowMs: nowMs)
        guard case .joined(_, let told)? = first.first else { throw Unexpected(actions: first) }
        #expect(told.error == .memberIDRequired)
        return (told.member, coordinator.join(join(told.member), ticket: ticket, nowMs: nowMs))
    }

    struct Unexpected: Error { let actions: [GroupAction] }

    /// A group of `count` stable members in generation 1 or later, the first of which leads.
    private mutating func stableGroup(_ count: Int, nowMs: Int64 = 0) throws -> [String] {
        var ids: [String] = []
        for number in 0..<count {
            let entered = try enter(Ticket(number + 1), nowMs: nowMs)
            ids.append(entered.id)
            for (index, other) in ids.dropLast().enumerated() {
                _ = coordinator.join(join(other), ticket: Ticket(100 + index), nowMs: nowMs)
            }
        }
        let generation = coordinator.groups["g"]?.generation ?? 0
        for id in ids.reversed() {
            let assignments = Dictionary(uniqueKeysWithValues: ids.map { ($0, Array($0.utf8)) })
            _ = coordinator.sync(
                SyncRequest(group: "g", generation: generation, member: id, assignments: assignments), ticket: 500,
                nowMs: nowMs)
        }
        #expect(coordinator.groups["g"]?.state == .stable)
        return ids
    }

    @Test mutating func `a lone member is told its id and then leads at once`() throws {
        let (id, actions) = try enter(1)
        #expect(
            actions == [
                .joined(
                    1,
                    JoinResult(
                        generation: 1, protocolType: "consumer", protocolName: "range", leader: id, member: id,
                        members: [JoinedMember(member: id, instance: nil, metadata: [1])]))
            ])
        let synced = coordinator.sync(
            SyncRequest(group: "g", generation: 1, member: id, assignments: [id: [7, 8]]), ticket: 2, nowMs: 0)
        #expect(synced.count == 2)
        guard case .store(let snapshot) = synced[0] else { throw Unexpected(actions: synced) }
        #expect(snapshot.members.map(\.assignment) == [[7, 8]])
        #expect(
            synced[1] == .synced(2, SyncResult(protocolType: "consumer", protocolName: "range", assignment: [7, 8])))
        #expect(coordinator.heartbeat("g", MemberIdentity(member: id), generation: 1, nowMs: 0) == .none)
    }

    @Test mutating func `an old client joins in one step`() {
        var request = join()
        request.knowsMemberIDRequired = false
        guard case .joined(1, let result)? = coordinator.join(request, ticket: 1, nowMs: 0).first else { return }
        #expect(result.error == .none)
        #expect(result.generation == 1)
    }

    @Test mutating func `a second member starts a rebalance that waits for the first`() throws {
        let ids = try stableGroup(1)
        let (second, actions) = try enter(2)
        #expect(actions.isEmpty)
        #expect(
            coordinator.heartbeat("g", MemberIdentity(member: ids[0]), generation: 1, nowMs: 0) == .rebalanceInProgress)
        let rejoined = coordinator.join(join(ids[0]), ticket: 3, nowMs: 0)
        #expect(rejoined.count == 2)
        for case .joined(let ticket, let result) in rejoined {
            #expect(result.generation == 2)
            #expect(result.leader == ids[0])
            #expect(result.members.count == (ticket == 3 ? 2 : 0))
            #expect(result.member == (ticket == 3 ? ids[0] : second))
        }
        // The follower waits for the leader's assignment.
        #expect(
            coordinator.sync(SyncRequest(group: "g", generation: 2, member: second), ticket: 4, nowMs: 0).isEmpty)
        let synced = coordinator.sync(
            SyncRequest(group: "g", generation: 2, member: ids[0], assignments: [second: [2], ids[0]: [1]]), ticket: 5,
            nowMs: 0)
        #expect(
            synced.contains(.synced(4, SyncResult(protocolType: "consumer", protocolName: "range", assignment: [2]))))
        #expect(
            synced.contains(.synced(5, SyncResult(protocolType: "consumer", protocolName: "range", assignment: [1]))))
    }

    @Test mutating func `an older generation can neither commit nor sync nor beat`() throws {
        let ids = try stableGroup(2)
        let identity = MemberIdentity(member: ids[0])
        let generation = try #require(coordinator.groups["g"]?.generation)
        #expect(coordinator.heartbeat("g", identity, generation: generation - 1, nowMs: 0) == .illegalGeneration)
        #expect(coordinator.authorizeCommit("g", identity, generation: generation - 1, nowMs: 0) == .illegalGeneration)
        #expect(coordinator.authorizeCommit("g", identity, generation: generation, nowMs: 0) == .none)
        #expect(
            coordinator.sync(SyncRequest(group: "g", generation: generation - 1, member: ids[0]), ticket: 1, nowMs: 0)
                == [.synced(1, SyncResult(error: .illegalGeneration))])
        // A client outside the group may not commit over its members' heads.
        #expect(
            coordinator.authorizeCommit("g", MemberIdentity(member: ""), generation: -1, nowMs: 0) == .unknownMemberID)
        #expect(coordinator.authorizeCommit("none", MemberIdentity(member: ""), generation: -1, nowMs: 0) == .none)
    }

    @Test mutating func `a member that goes silent is dropped and the others rebalance`() throws {
        let ids = try stableGroup(2)
        #expect(coordinator.heartbeat("g", MemberIdentity(member: ids[0]), generation: 2, nowMs: 9_000) == .none)
        #expect(coordinator.advance(nowMs: 9_999).isEmpty)
        #expect(coordinator.groups["g"]?.members.count == 2)
        _ = coordinator.advance(nowMs: 10_000)
        #expect(coordinator.groups["g"]?.members.map(\.id) == [ids[0]])
        #expect(coordinator.groups["g"]?.state == .preparing)
        let rejoined = coordinator.join(join(ids[0]), ticket: 9, nowMs: 10_001)
        guard case .joined(9, let result)? = rejoined.first else { throw Unexpected(actions: rejoined) }
        #expect(result.generation == 3)
    }

    @Test mutating func `a rebalance goes on without those that do not come back in time`() throws {
        let ids = try stableGroup(2)
        _ = try enter(7)
        #expect(coordinator.join(join(ids[0]), ticket: 8, nowMs: 100).isEmpty)
        // The second member keeps beating but does not rejoin.
        for time in stride(from: Int64(5_000), to: 30_000, by: 5_000) {
            #expect(
                coordinator.heartbeat("g", MemberIdentity(member: ids[1]), generation: 2, nowMs: time)
                    == .rebalanceInProgress)
            #expect(coordinator.advance(nowMs: time).isEmpty)
        }
        let actions = coordinator.advance(nowMs: 30_000)
        #expect(actions.count == 2)
        #expect(coordinator.groups["g"]?.members.count == 2)
        #expect(coordinator.groups["g"]?.generation == 3)
    }

    @Test mutating func `members that never sync are dropped when the time for it is over`() throws {
        let (id, _) = try enter(1)
        let (second, _) = try enter(2)
        _ = coordinator.join(join(id), ticket: 3, nowMs: 0)
        #expect(coordinator.groups["g"]?.state == .completing)
        #expect(coordinator.sync(SyncRequest(group: "g", generation: 2, member: second), ticket: 4, nowMs: 0).isEmpty)
        // The leader goes silent: the follower is sent to join again, and leads.
        let actions = coordinator.advance(nowMs: 10_000)
        #expect(actions.contains(.synced(4, SyncResult(error: .rebalanceInProgress))))
        let rejoined = coordinator.join(join(second), ticket: 5, nowMs: 10_001)
        guard case .joined(5, let result)? = rejoined.first else { throw Unexpected(actions: rejoined) }
        #expect(result.leader == second)
    }

    @Test mutating func `a member that leaves is not waited for`() throws {
        let ids = try stableGroup(2)
        let (error, _) = coordinator.leave("g", MemberIdentity(member: ids[0]), nowMs: 0)
        #expect(error == .none)
        let rejoined = coordinator.join(join(ids[1]), ticket: 5, nowMs: 0)
        guard case .joined(5, let result)? = rejoined.first else { throw Unexpected(actions: rejoined) }
        #expect(result.leader == ids[1])
        let last = coordinator.leave("g", MemberIdentity(member: ids[1]), nowMs: 50)
        #expect(last.error == .none)
        #expect(coordinator.groups["g"]?.state == .empty)
        #expect(coordinator.leave("g", MemberIdentity(member: ids[1]), nowMs: 50).error == .unknownMemberID)
    }

    @Test mutating func `a static member comes back to its place without a rebalance, and its old self is fenced`()
        throws
    {
        let first = coordinator.join(join(instance: "i"), ticket: 1, nowMs: 0)
        guard case .joined(1, let joined)? = first.first else { throw Unexpected(actions: first) }
        _ = coordinator.sync(
            SyncRequest(group: "g", generation: 1, member: joined.member, assignments: [joined.member: [5]]), ticket: 2,
            nowMs: 0)
        let back = coordinator.join(join(instance: "i"), ticket: 3, nowMs: 0)
        guard case .joined(3, let again)? = back.last else { throw Unexpected(actions: back) }
        #expect(again.generation == 1)
        #expect(again.member != joined.member)
        #expect(again.skipAssignment)
        #expect(
            coordinator.heartbeat("g", MemberIdentity(member: joined.member, instance: "i"), generation: 1, nowMs: 0)
                == .fencedInstanceID)
        let synced = coordinator.sync(
            SyncRequest(group: "g", generation: 1, member: again.member, instance: "i"), ticket: 4, nowMs: 0)
        #expect(synced == [.synced(4, SyncResult(protocolType: "consumer", protocolName: "range", assignment: [5]))])
        // A client too old to be told so is made to believe that another leads.
        let old = coordinator.join(join(instance: "i", knowsSkip: false), ticket: 5, nowMs: 0)
        guard case .joined(5, let follower)? = old.last else { throw Unexpected(actions: old) }
        #expect(follower.leader == again.member)
        #expect(follower.members.isEmpty)
    }

    @Test mutating func `the protocol that most prefer among those that all have is chosen`() throws {
        let a = GroupProtocol(name: "a", metadata: [1])
        let b = GroupProtocol(name: "b", metadata: [2])
        let c = GroupProtocol(name: "c", metadata: [3])
        _ = coordinator.join(join(instance: "1", protocols: [a, b]), ticket: 1, nowMs: 0)
        _ = coordinator.join(join(instance: "2", protocols: [b, a]), ticket: 2, nowMs: 0)
        let third = coordinator.join(join(instance: "3", protocols: [c, b]), ticket: 3, nowMs: 0)
        #expect(third.isEmpty)
        let first = try #require(coordinator.groups["g"]?.members.first)
        let actions = coordinator.join(join(first.id, instance: "1", protocols: [a, b]), ticket: 4, nowMs: 0)
        #expect(actions.count == 3)
        for case .joined(_, let result) in actions { #expect(result.protocolName == "b") }
        #expect(
            coordinator.join(join(instance: "4", protocols: [a]), ticket: 5, nowMs: 0)
                == [.joined(5, JoinResult(error: .inconsistentGroupProtocol))])
    }

    @Test mutating func `refusals say why`() {
        var request = join()
        request.group = ""
        #expect(coordinator.join(request, ticket: 1, nowMs: 0) == [.joined(1, JoinResult(error: .invalidGroupID))])
        request = join()
        request.sessionTimeoutMs = 5
        #expect(
            coordinator.join(request, ticket: 1, nowMs: 0) == [.joined(1, JoinResult(error: .invalidSessionTimeout))])
        #expect(
            coordinator.join(join("stranger"), ticket: 1, nowMs: 0)
                == [.joined(1, JoinResult(error: .unknownMemberID, member: "stranger"))])
        #expect(
            coordinator.join(join(protocols: []), ticket: 1, nowMs: 0)
                == [.joined(1, JoinResult(error: .inconsistentGroupProtocol))])
        #expect(
            coordinator.sync(SyncRequest(group: "no", generation: 1, member: "x"), ticket: 2, nowMs: 0)
                == [.synced(2, SyncResult(error: .unknownMemberID))])
    }

    @Test mutating func `a restored group goes on in its generation`() throws {
        let ids = try stableGroup(2)
        let snapshot = try #require(coordinator.groups["g"]?.snapshot)
        var restored = GroupCoordinator(incarnation: 2)
        restored.restore(snapshot, nowMs: 50_000)
        #expect(restored.heartbeat("g", MemberIdentity(member: ids[1]), generation: 2, nowMs: 51_000) == .none)
        #expect(restored.groups["g"]?.snapshot == snapshot)
        _ = restored.advance(nowMs: 60_001)
        #expect(restored.groups["g"]?.members.map(\.id) == [ids[1]])
    }

    /// Random clients against the coordinator: whatever happens, every request is answered exactly once, generations only
    /// grow, and a group whose members all act settles.
    @Test func `in any order of events every request is answered once and the group settles`() throws {
        var random = SeededGenerator.announced("GroupCoordinatorTests.random")
        for _ in 0..<200 {
            var simulation = GroupSimulation(random: random)
            simulation.run()
            random = simulation.random
        }
    }
}

/// Some clients of one group, driven by chance.
private struct GroupSimulation {
    struct Client {
        var member = ""
        var instance: String?
        var generation: Int32 = -1
        var waiting: Ticket?
        var isLeader = false
        var roster: [String] = []
        var phase = Phase.outside
        enum Phase { case outside, joining, mustSync, syncing, stable, dead }
    }

    var random: SeededGenerator
    var coordinator = GroupCoordinator(incarnation: 1)
    var clients: [Client] = []
    var owners: [Ticket: Int] = [:]
    var nextTicket: Ticket = 1
    var nowMs: Int64 = 0
    var highestGeneration: Int32 = 0

    init(random: SeededGenerator) { self.random = random }

    mutating func run() {
        let count = Int.random(in: 1...5, using: &random)
        clients = (0..<count).map { Client(instance: Bool.random(using: &random) ? "i\($0)" : nil) }
        for _ in 0..<300 {
            nowMs += Int64.random(in: 0...400, using: &random)
            handle(coordinator.advance(nowMs: nowMs))
            act(Int.random(in: 0..<count, using: &random), mayDie: true)
        }
        for index in clients.indices where clients[index].phase == .dead { clients[index].phase = .outside }
        // From here on everyone behaves; within two session times all are in one generation.
        for _ in 0..<400 {
            nowMs += 50
            handle(coordinator.advance(nowMs: nowMs))
            for index in clients.indices { act(index, mayDie: false) }
        }
        #expect(coordinator.groups["g"]?.state == .stable)
        #expect(clients.allSatisfy { $0.phase == .stable })
        #expect(Set(clients.map(\.generation)).count == 1)
        #expect(coordinator.groups["g"]?.members.count == clients.count)
        #expect(owners.isEmpty)
    }

    private mutating func ticket(for index: Int) -> Ticket {
        defer { nextTicket += 1 }
        owners[nextTicket] = index
        clients[index].waiting = nextTicket
        return nextTicket
    }

    private mutating func act(_ index: Int, mayDie: Bool) {
        let client = clients[index]
        if mayDie, client.phase != .dead, Int.random(in: 0..<40, using: &random) == 0 {
            if Bool.random(using: &random), !client.member.isEmpty, client.waiting == nil {
                handle(
                    coordinator.leave(
                        "g", MemberIdentity(member: client.member, instance: client.instance), nowMs: nowMs
                    ).actions)
            }
            // Its requests are still answered, to nobody.
            clients[index] = Client(instance: client.instance, phase: .dead)
            return
        }
        switch client.phase {
        case .dead:
            if Int.random(in: 0..<10, using: &random) == 0 { clients[index].phase = .outside }
        case .outside:
            clients[index].phase = .joining
            let ticket = ticket(for: index)
            handle(
                coordinator.join(
                    JoinRequest(
                        group: "g", member: client.member, instance: client.instance, clientID: "c",
                        sessionTimeoutMs: 3_000, rebalanceTimeoutMs: 5_000, protocolType: "consumer",
                        protocols: [GroupProtocol(name: "range", metadata: [1])]), ticket: ticket, nowMs: nowMs))
        case .mustSync:
            clients[index].phase = .syncing
            let ticket = ticket(for: index)
            let assignments = Dictionary(
                client.roster.map { ($0, Array($0.utf8)) }, uniquingKeysWith: { first, _ in first })
            handle(
                coordinator.sync(
                    SyncRequest(
                        group: "g", generation: client.generation, member: client.member, instance: client.instance,
                        assignments: client.isLeader ? assignments : [:]), ticket: ticket, nowMs: nowMs))
        case .stable:
            let error = coordinator.heartbeat(
                "g", MemberIdentity(member: client.member, instance: client.instance), generation: client.generation,
                nowMs: nowMs)
            if error != .none { reset(index, error) }
        case .joining, .syncing: break
        }
    }

    private mutating func reset(_ index: Int, _ error: ErrorCode) {
        clients[index].phase = .outside
        if error == .unknownMemberID || error == .fencedInstanceID { clients[index].member = "" }
    }

    private mutating func handle(_ actions: [GroupAction]) {
        for action in actions {
            switch action {
            case .store(let snapshot):
                #expect(snapshot.generation >= highestGeneration)
                highestGeneration = snapshot.generation
            case .joined(let ticket, let result):
                guard let index = owners.removeValue(forKey: ticket) else {
                    Issue.record("ticket \(ticket) answered twice")
                    continue
                }
                guard clients[index].waiting == ticket else { continue }
                clients[index].waiting = nil
                if result.error == .memberIDRequired {
                    clients[index].member = result.member
                    clients[index].phase = .outside
                } else if result.error != .none {
                    reset(index, result.error)
                } else {
                    clients[index].member = result.member
                    clients[index].generation = result.generation
                    clients[index].isLeader = result.leader == result.member && !result.skipAssignment
                    clients[index].roster = result.members.map(\.member)
                    clients[index].phase = .mustSync
                }
            case .synced(let ticket, let result):
                guard let index = owners.removeValue(forKey: ticket) else {
                    Issue.record("ticket \(ticket) answered twice")
                    continue
                }
                guard clients[index].waiting == ticket else { continue }
                clients[index].waiting = nil
                if result.error == .none { clients[index].phase = .stable } else { reset(index, result.error) }
            }
        }
    }
}
