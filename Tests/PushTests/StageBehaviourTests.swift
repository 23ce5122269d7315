import Foundation
import KafkaClient
import Push
import TestSupport
import Testing
import Wire

/// The stage in this process, for what takes settings that the program has no options for.
@Suite(.serialized) struct StageBehaviourTests {
    /// The stage was stuck for good when the few notices that it had taken went to the dead letters while the breaker was
    /// open: nothing was left to probe with.
    @Test func `when a webhook comes back after everything in hand was given up, the rest is told`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        let users = (0..<40).map { _ in UserID.random() }
        for (index, user) in users.enumerated() { try log.push(user, seq: index) }
        let stage = try log.run {
            $0.webhook = webhook.url("/down/30")
            $0.concurrency = 4
            $0.retry.attemptsMax = 1
            $0.breaker.pauseMs = 20
            $0.breaker.pauseMsMax = 40
        }
        #expect(try eventually(seconds: 40) { try log.committed(partition: 0) == 40 }, "\(stage.failureText)")
        let dead = try log.read(.pushDead, count: 20).count
        let told = Set(webhook.calls.dropFirst(30).compactMap(\.user))
        // Twenty failures open it; up to three more were under way. What probes is not given up for it.
        #expect((20...23).contains(dead))
        #expect(told.count == 40 - dead)
        stage.stop()
    }

    @Test func `while a webhook is away its backlog stays in the log, and memory is bounded`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        // Few people and many records: people were counted, records were not.
        let users = (0..<5).map { _ in UserID.random() }
        var stage: RunningStage? = try log.run {
            $0.webhook = webhook.url("/status/503")
            $0.breaker.failuresMax = 2
            $0.memory.records = 1000
        }
        let records = (0..<8000).map { log.record(users[$0 % 5], seq: $0) }
        try log.write(.push, partition: 0, records)
        #expect(eventually { stage?.metric("fanout_push_paused") == 1 }, "\(stage?.failureText ?? "")")
        // Whatever was fetched in one go, and no more.
        #expect(stage?.metric("fanout_push_unsettled") ?? .infinity <= 3000)
        #expect(try log.committed(partition: 0) == nil)
        stage?.stop()
        stage = try log.run {
            $0.webhook = webhook.url("/ok")
            $0.memory.records = 1000
            $0.coalescing.perUserMs = 50
        }
        #expect(try eventually(seconds: 120) { try log.committed(partition: 0) == 8000 })
        #expect(stage?.metric("fanout_push_unsettled") == 0)
        #expect(Set(webhook.calls.filter { $0.path == "/ok" }.compactMap(\.user)) == Set(users.map(\.description)))
        stage?.stop()
    }

    @Test func `no more requests are under way at once than were asked for`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        try log.write(.push, partition: 0, (0..<30).map { log.record(.random(), seq: $0) })
        let stage = try log.run {
            $0.webhook = webhook.url("/slow")
            $0.concurrency = 3
        }
        #expect(try eventually { try log.committed(partition: 0) == 30 }, "\(stage.failureText)")
        #expect(webhook.calls.map(\.at_once).max() == 3)
        stage.stop()
    }

    @Test func `whoever was seen after a message is not told, and old presence hides nothing`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        let (came, wasThere, left, isUntold) = (UserID.random(), UserID.random(), UserID.random(), UserID.random())
        let now = log.nowMs
        // Online for hours as far as the log knows, and gone a moment before the message came: the socket broke, and
        // the grace period runs.
        try log.presence(wasThere, .online, lastSeen: now - 7_200_000)
        try log.presence(left, .offline, lastSeen: now - 100)
        // Came while Delivery still gathered: the record was written later than that.
        try log.presence(came, .online, lastSeen: now - 500)
        for user in [came, wasThere, left, isUntold] { try log.push(user, seq: 1, at: now - (user == came ? 900 : 50)) }
        let stage = try log.run { $0.webhook = webhook.url("/ok") }
        #expect(try eventually { try log.committed(partition: 0) == 4 }, "\(stage.failureText)")
        #expect(Set(webhook.calls.compactMap(\.user)) == Set([wasThere, left, isUntold].map(\.description)))
        stage.stop()
    }

    @Test(arguments: [Wire.Signal.Kind.read, .delivered])
    func `whoever has read a message meanwhile, or has it on a device, is not told`(kind: Wire.Signal.Kind) throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        let (first, user, other) = (UserID.random(), UserID.random(), UserID.random())
        let stage = try log.run {
            $0.webhook = webhook.url("/ok")
            $0.coalescing.windowMs = 3000
        }
        // Signals are read from now on, so the stage has to be there before they come.
        try log.push(first, seq: 1)
        #expect(eventually { webhook.calls.count == 1 }, "\(stage.failureText)")
        try log.push(user, seq: 7)
        try log.push(other, seq: 7)
        #expect(eventually { stage.metric("fanout_push_records_total") == 3 })
        try log.signal(.typing, other, seq: 7)
        try log.signal(kind, other, seq: 6)
        try log.signal(kind, user, seq: 7)
        #expect(try eventually { try log.committed(partition: 0) == 3 })
        #expect(webhook.calls.map(\.user) == [first.description, other.description])
        stage.stop()
    }

    @Test func `a batch is an array under a key of its own, and each notice in it has its own`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        let users = (0..<10).map { _ in UserID.random() }
        try log.write(.push, partition: 0, users.enumerated().map { log.record($1, seq: $0) })
        let stage = try log.run {
            $0.webhook = webhook.url("/ok")
            $0.batchMax = 4
            $0.coalescing.windowMs = 500
        }
        #expect(try eventually { try log.committed(partition: 0) == 10 }, "\(stage.failureText)")
        let calls = webhook.calls
        let batches = try calls.map {
            try #require(try JSONSerialization.jsonObject(with: Data($0.body.utf8)) as? [[String: Any]])
        }
        #expect(batches.allSatisfy { (1...4).contains($0.count) } && batches.count < 10)
        let ids = batches.flatMap { $0 }.compactMap { $0["id"] as? String }
        #expect(Set(ids).count == 10)
        #expect(Set(calls.map(\.key)).count == calls.count)
        #expect(calls.allSatisfy { call in !ids.contains(call.key ?? "") })
        stage.stop()
    }

    /// They were lost from memory when the log refused them: their records were never settled, and nothing was committed
    /// any more.
    @Test func `a dead letter that the log refuses is offered until it takes it`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        let admin = try Admin(KafkaConfiguration(bootstrapServers: log.kafka.address))
        try admin.setTopicConfigs(log.names[.pushDead], ["max.message.bytes": "100"])
        try log.push(.random(), seq: 1)
        let stage = try log.run { $0.webhook = webhook.url("/refuses") }
        #expect(eventually { stage.metric(#"fanout_push_notices_total{outcome="dead"}"#) == 1 }, "\(stage.failureText)")
        #expect(stage.metric("fanout_push_bytes") ?? 0 > 0)
        #expect(try log.committed(partition: 0) == nil)
        try admin.setTopicConfigs(log.names[.pushDead], ["max.message.bytes": "1000000"])
        #expect(try log.read(.pushDead, count: 1).count == 1)
        #expect(try eventually { try log.committed(partition: 0) == 1 })
        admin.close(deadlineMs: 1000)
        stage.stop()
    }

    /// Two requests under one key were about different messages, and a receiver that drops what it knows dropped one.
    @Test func `a notice that has grown over a crash is another notice`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        let user = UserID.random()
        try log.push(user, seq: 1)
        do {
            // It hangs, so nothing is settled or committed: told, as far as the webhook is concerned.
            let stage = try log.run { $0.webhook = webhook.url("/hangs") }
            #expect(eventually { webhook.calls.count == 1 }, "\(stage.failureText)")
            stage.stop()
        }
        try log.push(user, seq: 2)
        let stage = try log.run {
            $0.webhook = webhook.url("/ok")
            $0.coalescing.windowMs = 1000
        }
        #expect(try eventually { try log.committed(partition: 0) == 2 }, "\(stage.failureText)")
        let keys = webhook.calls.map(\.key)
        #expect(keys == ["\(user)/0/0-0", "\(user)/0/0-1"])
        stage.stop()
    }
}
