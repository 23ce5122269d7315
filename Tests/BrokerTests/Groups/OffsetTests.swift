import System
import Testing

@testable import Broker

/// What happens to commits that are in the log and not on the disk yet.
@Suite struct OffsetTests {
    private let broker: TestBroker

    init() throws {
        broker = try TestBroker { $0.fsync = .group }
        try broker.make("t", partitions: 2)
    }

    private func place(_ partition: Int32) -> OffsetStore.Place { OffsetStore.Place(topic: "t", partition: partition) }

    private func committed(_ offset: Int64, atMs: Int64) -> OffsetStore.Committed {
        OffsetStore.Committed(offset: offset, leaderEpoch: -1, metadata: "", committedMs: atMs)
    }

    /// Commits, and does something before the commit can be durable; what is left once both are.
    private func commit(
        partition: Int32 = 1, ageMs: Int64 = 0, andThen body: @escaping @Sendable (BrokerCore) -> Void = { _ in }
    ) -> [String: [Int64]]? {
        let (place, committed) = (place(partition), committed(7, atMs: 0))
        _ = broker.ask { core in
            var committed = committed
            committed.committedMs = core.loop.nowMs - ageMs
            core.groups.commit("g", [(place, committed)]) { #expect($0 == nil) }
            body(core)
        }
        return left
    }

    /// What the broker knows once all that it does is durable.
    private var left: [String: [Int64]]? {
        let isDone = Handover<Bool>()
        _ = broker.ask { core in core.commits.whenDurable { isDone.put($0 == nil) } }
        #expect(isDone.take())
        return broker.ask { core in core.groups.offsets.groups.mapValues { $0.values.map(\.offset).sorted() } }
    }

    private func restarted() throws -> [String: [Int64]]? {
        broker.stop()
        try broker.start()
        return left
    }

    @Test func `upkeep while a group's first commit is under way takes nothing from the group`() throws {
        #expect(commit { $0.keepUp() } == ["g": [7]])
        #expect(try restarted() == ["g": [7]])
    }

    @Test func `a group is not expired before it has been empty for the time of retention, however old its commits`()
        throws
    {
        let longAgoMs: Int64 = 365 * 86_400_000
        #expect(commit(ageMs: longAgoMs) == ["g": [7]])
        _ = broker.ask { $0.keepUp() }
        #expect(left == ["g": [7]])
        let laterMs = longAgoMs
        _ = broker.ask { core in core.groups.expireOffsets(nowMs: core.loop.nowMs + laterMs) }
        #expect(left == ["g": [7]], "the wall clock was set forward")
    }

    @Test func `a group deleted while a commit is under way keeps nothing, also after a restart`() throws {
        _ = commit(partition: 0)
        let found = commit { core in core.groups.delete("g") { #expect($0 == .none) } }
        #expect(found == [:])
        #expect(try restarted() == [:])
    }

    @Test func `a commit after a group's deletion, both under way, stands, and the group is known`() throws {
        _ = commit(partition: 0)
        let (place, later) = (place(0), committed(9, atMs: 0))
        let found = commit { core in
            core.groups.delete("g") { _ in }
            core.groups.commit("g", [(place, later)]) { _ in }
        }
        #expect(found == ["g": [9]])
        #expect(broker.ask { $0.groups.coordinator.groups["g"] != nil } == true)
        #expect(try restarted() == ["g": [9]])
    }

    @Test func `a deleted topic takes along the commits that are under way`() throws {
        let found = commit { core in
            if let topic = core.storage.topics["t"] { #expect(core.delete(topic) == .none) }
        }
        #expect(found == [:])
        try broker.make("t")
        #expect(try restarted() == [:])
    }
}
