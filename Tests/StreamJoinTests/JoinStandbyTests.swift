import Runtime
import StreamJoin
import TestSupport
import Testing
import Wire

@Suite(.serialized) struct JoinStandbyTests {
    @Test func `a standby takes partitions over without reading their membership again`() throws {
        let bench = try Bench(partitions: 4)
        let chats = (0..<40).map { _ in ChatID.random() }
        let users = (0..<5).map { _ in UserID.random() }
        for chat in chats { try bench.create(chat, users) }
        var configuration = bench.configuration()
        configuration.isStandby = true
        configuration.sessionTimeoutMs = 6000
        let first = RunningJoin(configuration)
        #expect(first.waitUntilReady())
        let second = RunningJoin(configuration)
        #expect(
            eventually(seconds: 40) {
                [first, second].allSatisfy {
                    $0.value("fanout_join_partitions") == 2 && $0.value("fanout_join_followed_partitions") == 2
                        && $0.value("fanout_join_memberships") == 200 && $0.runner.isReady
                }
            }, "\(first.text) \(second.text)")
        // What comes later is followed too, as it is committed.
        for chat in chats { try bench.create(chat, [.random()], version: 2, tx: 2) }
        #expect(eventually { [first, second].allSatisfy { $0.value("fanout_join_memberships") == 240 } })
        let read = second.value("fanout_join_restored_changes_total")
        #expect(first.stop() == nil)
        #expect(eventually(seconds: 40) { second.value("fanout_join_partitions") == 4 && second.runner.isReady })
        #expect(second.value("fanout_join_restored_changes_total") == read, "\(second.text)")
        for chat in chats {
            try bench.write(.incoming, chat, IncomingMessage.text("after", from: users[0], in: chat, metaVersion: 2))
        }
        try bench.until { bench in
            bench.deliveries.filter { $0.record.contains(#""text":"after""#) }.flatMap(\.to).count == 240
        }
        #expect(second.stop() == nil)
    }

    @Test func `a member of the group that has nothing to do is ready to take over`() throws {
        let bench = try Bench(partitions: 1)
        let chat = ChatID.random()
        try bench.create(chat, [.random(), .random()])
        let first = RunningJoin(bench.configuration())
        #expect(first.waitUntilReady())
        var configuration = bench.configuration()
        configuration.isStandby = true
        let second = RunningJoin(configuration)
        #expect(
            eventually(seconds: 40) {
                first.runner.isReady && second.runner.isReady
                    && [first, second].map { $0.value("fanout_join_partitions") }.sorted() == [0, 1]
            }, "\(first.text) \(second.text)")
        #expect(first.stop() == nil)
        #expect(eventually(seconds: 40) { second.value("fanout_join_partitions") == 1 && second.runner.isReady })
        #expect(second.stop() == nil)
    }
}
