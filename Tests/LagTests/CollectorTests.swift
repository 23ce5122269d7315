import KafkaClient
@testable import Lag
import System
import TestSupport
import Testing
import Wire

/// Real looks at a real log, on which the test plays the groups.
@Suite struct CollectorTests {
    private let stage: Stage

    init() throws { stage = try Stage() }

    private func look(_ groups: [String] = [], _ collector: LagCollector? = nil) throws -> LagStatus {
        LagStatus(before: nil, now: try sample(groups, collector))
    }

    private func sample(_ groups: [String] = [], _ collector: LagCollector? = nil) throws -> LagSample {
        let own = try collector ?? LagCollector(stage.query(groups), clock: SystemClock())
        defer { if collector == nil { own.close() } }
        return own.sample(withinMs: 20_000)
    }

    @Test func `seconds are within 50 ms of the truth, also for groups at different places of one partition`() throws {
        let topic = try stage.makeTopic("t")
        let groups = (0..<4).map { TestKafka.unique("truth\($0)") }
        var written: [(before: Int64, after: Int64)] = []
        for (index, group) in groups.enumerated() {
            let before = nowMs
            try stage.write(1, to: topic)
            written.append((before, nowMs))
            try stage.commit(group, topic, Int64(index))
            pace(microseconds: 120_000)
        }
        let lookBefore = nowMs
        let status = try look(groups)
        let lookAfter = nowMs
        #expect(status.missing.isEmpty)
        for (group, written) in zip(groups, written) {
            let row = try #require(status.row(group, topic))
            let seconds = try #require(row.seconds)
            #expect(seconds >= Double(lookBefore - written.after) / 1000 - 0.05)
            #expect(seconds <= Double(lookAfter - written.before) / 1000 + 0.05)
        }
        #expect(groups.compactMap { status.row($0, topic)?.messages } == [4, 3, 2, 1])
    }

    @Test
    func `a consumer that works is OK, paused it falls behind, killed its group is EMPTY, rewound it consumes nothing`()
        throws
    {
        let (topic, group) = (try stage.makeTopic("t"), TestKafka.unique("lives"))
        try stage.write(3, to: topic)
        let collector = try LagCollector(stage.query([group]), clock: SystemClock())
        defer { collector.close() }
        let member = try Member(group, of: [topic], stage.configuration, name: "worker-1")
        try member.commitAll(stage.admin)
        let working = try sample([group], collector)
        let first = try #require(LagStatus(before: nil, now: working).row(group, topic))
        #expect(first.state == .ok && first.messages == 0 && first.seconds == 0 && first.members == 1)
        #expect(first.owner?.name == "worker-1")

        // It stays in the group and reads no more.
        try stage.write(5, to: topic)
        let paused = try sample([group], collector)
        let second = try #require(LagStatus(before: working, now: paused).row(group, topic))
        #expect(second.messages == 5 && second.rateOut == 0 && (second.rateIn ?? 0) > 0)
        #expect(second.catchUpSeconds == nil)

        member.leave()
        let killed = try sample([group], collector)
        let third = try #require(LagStatus(before: paused, now: killed).row(group, topic))
        #expect(third.state == .empty && third.owner == nil && third.messages == 5)

        try stage.commit(group, topic, 1)
        let rewound = try sample([group], collector)
        let fourth = try #require(LagStatus(before: killed, now: rewound).row(group, topic))
        #expect(fourth.messages == 7 && fourth.rateOut == 0)
    }

    @Test func `a commit's age is the time since it was made, and the last one counts`() throws {
        let (topic, group) = (try stage.makeTopic("t", partitions: 2), TestKafka.unique("age"))
        try stage.commit(group, topic, 0, partition: 1)
        try stage.commit(group, topic, 0)
        pace(microseconds: 300_000)
        let collector = try LagCollector(stage.query([group]), clock: SystemClock())
        defer { collector.close() }
        let before = try look([group], collector)
        let age = try #require(before.row(group, topic)?.commitAgeSeconds)
        #expect(age >= 0.3 && age < 30)
        let committedAfter = nowMs
        try stage.commit(group, topic, 0)
        let status = try look([group], collector)
        let renewed = try #require(status.row(group, topic)?.commitAgeSeconds)
        #expect(renewed <= Double(nowMs - committedAfter) / 1000 + 0.05)
        #expect(try #require(status.row(group, topic, 1)?.commitAgeSeconds) > renewed)
        #expect(status.totals.first { $0.group == group }?.commitAgeSeconds == renewed)
    }

    @Test func `a commit beyond the end or before the beginning of the log is clamped and flagged`() throws {
        let (topic, group) = (try stage.makeTopic("t", partitions: 2), TestKafka.unique("outside"))
        try stage.write(4, to: topic)
        try stage.write(4, to: topic, partition: 1)
        try stage.commit(group, topic, 50)
        try stage.commit(group, topic, 1, partition: 1)
        for (_, result) in try stage.admin.deleteRecords(before: [(TopicPartition(topic, 1), offset: 3)]) {
            #expect(try result.get() == 3)
        }
        let status = try look([group])
        let (beyond, deleted) = (status.row(group, topic), status.row(group, topic, 1))
        #expect(beyond?.isClamped == true && beyond?.messages == 0 && beyond?.seconds == 0)
        #expect(deleted?.isClamped == true && deleted?.messages == 1 && deleted?.seconds != nil)
    }

    @Test func `what join commits on chat.members is shown, and a partition never committed is behind by all it has`()
        throws
    {
        let (members, join) = (stage.names[.members], stage.names.group("join"))
        try stage.write(6, to: members)
        try stage.commit(join, members, 4)
        let status = try look()
        #expect(status.row(join, members)?.messages == 2)
        let never = try #require(status.row(join, members, 1))
        #expect(never.committed == nil && never.messages == 0)
        #expect(status.totals.map(\.topic).contains(stage.names[.incoming]))
    }

    @Test func `a position of a log that was made again is DANGER, also where the brokers forgot it with the topic`()
        throws
    {
        let (members, join) = (stage.names[.members], stage.names.group("join"))
        let (incoming, deliveries) = (stage.names[.incoming], stage.names[.deliveries])
        let (delivery, before) = (stage.names.group("delivery"), UUID(high: 1, low: 2))
        let log = try #require(try stage.configuration.identities(of: [members])[0])
        try stage.write(3, to: incoming)
        try stage.commit(join, members, 0, note: "members=0 signals=0 logs=\(before).3,\(log.topicID).0,-.0")
        try stage.commit(delivery, deliveries, 0, note: "term=7 log=\(before)")
        try stage.commit(delivery, deliveries, 0, partition: 1, note: "term=7")
        let status = try look()
        #expect(status.row(join, incoming)?.state == .danger && status.row(delivery, deliveries)?.state == .danger)
        #expect(status.row(join, members)?.state != .danger && status.row(join, incoming, 1)?.state != .danger)
        #expect(status.row(delivery, deliveries, 1)?.state != .danger)
        let (verdict, line) = LagCheck().verdict(on: status)
        #expect(
            verdict == .critical && line.contains("\(join) on \(incoming) has a position of another log"), "\(line)")
        #expect(status.missing.isEmpty, "\(status.missing)")
    }

    @Test func `a topic that a stage needs and that is not there is named, the others are shown`() throws {
        for outcome in try stage.admin.deleteTopics([stage.names[.signals]]) { #expect(outcome.error == nil) }
        let status = try look()
        #expect(status.missing.contains { $0.contains(stage.names[.signals]) && $0.contains("does not exist") })
        #expect(status.row(stage.names.group("join"), stage.names[.incoming]) != nil)
    }

    @Test func `a topic that is deleted while it is watched goes, and is no reason to miss another`() throws {
        let (stays, goes, group) = (
            try stage.makeTopic("stays"), try stage.makeTopic("goes"), TestKafka.unique("watches")
        )
        for topic in [stays, goes] {
            try stage.write(2, to: topic)
            try stage.commit(group, topic, 1)
        }
        let collector = try LagCollector(stage.query([group]), clock: SystemClock())
        defer { collector.close() }
        #expect(Set(try look([group], collector).totals.filter { $0.group == group }.map(\.topic)) == [stays, goes])
        for outcome in try stage.admin.deleteTopics([goes]) { #expect(outcome.error == nil) }
        let topics = try look([group], collector).totals.filter { $0.group == group }.map(\.topic)
        #expect(topics == [stays])
    }

    @Test func `a group that never committed has no rows and is nothing missing`() throws {
        let (topic, group) = (try stage.makeTopic("t"), TestKafka.unique("new"))
        let member = try Member(group, of: [topic], stage.configuration)
        defer { member.leave() }
        let status = try look([group])
        #expect(status.rows.allSatisfy { $0.group != group })
        #expect(status.missing.isEmpty && status.clusterError == nil)
    }

    @Test func `more groups at different places of one partition than there are readers take turns`() throws {
        let topic = try stage.makeTopic("t")
        let times = try (0..<12).flatMap { _ in try stage.write(1, to: topic) }
        let groups = (0..<12).map { TestKafka.unique("turn\($0)") }
        for (offset, group) in groups.enumerated() { try stage.commit(group, topic, Int64(offset)) }
        let sample = try sample(groups)
        #expect(sample.missing.isEmpty)
        for (offset, group) in groups.enumerated() {
            #expect(sample.positions.first { $0.group == group }?.firstWaitingMs == times[offset])
        }
    }

    @Test func `a chat server's announcement is shown, and one that has been silent for a minute is not`() throws {
        let producer = try Producer(stage.configuration)
        let topic = try producer.topic(stage.names[.instances])
        for (name, ageMs) in [("a", Int64(100)), ("b", 90_000)] {
            var json = JSONWriter()
            InstanceRecord(
                instance: name, epoch: 1, pushAddress: "a:1", publicURL: "ws://a", connections: 7, isDraining: true,
                ts: nowMs - ageMs
            ).write(to: &json)
            let key = Array(name.utf8)
            _ = try producer.produce(topic, key: key.span, value: json.bytes.span, tag: 0)
        }
        #expect(producer.flush(deadlineMs: 10_000) { _ in })
        _ = producer.close(deadlineMs: 1000) { _ in }
        let instances = try look().instances
        #expect(instances.map(\.name) == ["a"])
        #expect(instances.first?.connections == 7 && instances.first?.isDraining == true)
    }
}

@Suite struct CommitKeyTests {
    @Test func `a key of the cluster's log of commits is read, cut anywhere it is refused`() {
        let key: [UInt8] = [0, 1, 0, 2, 0x67, 0x31, 0, 3, 0x61, 0x2e, 0x62, 0, 0, 0, 9]
        #expect(CommitKey(key.span) == CommitKey(group: "g1", partition: TopicPartition("a.b", 9)))
        for count in 0..<key.count { #expect(CommitKey(key.span.extracting(0..<count)) == nil) }
        // A record about the group itself.
        let group: [UInt8] = [0, 2, 0, 2, 0x67, 0x31]
        #expect(CommitKey(group.span) == nil)
    }

    @Test func `a group's partition is Java's hash of its name`() {
        // hashCode() of these in Java: 0, 97, -1729982499, -940098265, 347391577.
        let partitions = ["": 0, "a": 47, "fanout.join": 49, "fanout.delivery": 33, "grüße-😀": 27]
        for (name, partition) in partitions {
            #expect(CommitTimes.partition(of: name, count: 50) == Int32(partition), "\(name)")
        }
    }
}
