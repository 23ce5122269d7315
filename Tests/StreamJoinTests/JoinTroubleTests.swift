import KafkaClient
import Runtime
import StreamJoin
import System
import TestSupport
import Testing
import Wire

/// The join when something around it is not as it should be.
@Suite(.serialized) struct JoinTroubleTests {
    private struct LaterClock: Clock {
        let system = SystemClock()
        var days: Int64

        var wallMs: Int64 { system.wallMs + days * 86_400_000 }
        var monotonicNs: UInt64 { system.monotonicNs }
    }

    @Test func `a message as large as the log takes, from another producer, is refused and the join goes on`() throws {
        let bench = try Bench(partitions: 1)
        let chat = ChatID.random()
        let users = (0..<9).map { _ in UserID.random() }
        try bench.create(chat, users)
        try running(bench.configuration()) { join in
            let text = String(repeating: "x", count: 999_000)
            try bench.write(.incoming, chat, IncomingMessage.text(text, from: users[0], in: chat))
            try bench.write(.incoming, chat, IncomingMessage.text("next", from: users[0], in: chat))
            try bench.until { $0.messages.count == 1 && $0.rejected.count == 1 }
            #expect(bench.rejected[0].hasPrefix(#"{"reason":"too_large""#) && bench.rejected[0].utf8.count < 100_000)
            try bench.until { bench in bench.deliveries.contains { $0.record.contains(#""code":"too_large""#) } }
        }
    }

    /// A join that has joined one message and left a checkpoint.
    private func stopped(_ bench: Bench, _ chat: ChatID, _ users: [UserID], stateIn directory: String) throws
        -> JoinConfiguration
    {
        try bench.create(chat, users)
        try bench.write(.incoming, chat, IncomingMessage.text("one", from: users[0], in: chat))
        var configuration = bench.configuration()
        configuration.stateDirectory = directory
        try running(configuration) { _ in try bench.until { $0.messages.count == 1 } }
        return configuration
    }

    @Test func `a checkpoint older than the log's memory of deletions is not used, and the log says so`() throws {
        let bench = try Bench(partitions: 2)
        let chat = ChatID.random()
        let users = (0..<9).map { _ in UserID.random() }
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        let configuration = try stopped(bench, chat, users, stateIn: directory)
        try running(configuration) { join in
            #expect(join.waitUntilReady() && join.text.contains("checkpoint loaded"), "\(join.text)")
            #expect(join.value("fanout_join_restored_changes_total") == 0)
        }
        // The topic keeps deletions for seven days; half of it is left for a join that was behind when it saved.
        let join = RunningJoin(configuration, clock: LaterClock(days: 4))
        #expect(join.waitUntilReady())
        #expect(join.text.contains("older than the log's memory"), "\(join.text)")
        #expect(join.value("fanout_join_restored_changes_total") == 10)
        #expect(join.stop() == nil)
    }

    @Test func `a damaged checkpoint costs one line of the log, and the membership is read from the topic`() throws {
        let bench = try Bench(partitions: 2)
        let chat = ChatID.random()
        let users = (0..<9).map { _ in UserID.random() }
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        let configuration = try stopped(bench, chat, users, stateIn: directory)
        let path = "\(directory)/members-\(configuration.instance ?? "join").checkpoint"
        var bytes = try File.contents(of: path)
        bytes[bytes.count / 2] ^= 1
        try File.replaceAtomically(path, with: bytes)
        try running(configuration) { join in
            #expect(join.waitUntilReady())
            #expect(join.text.split(separator: "\n").count { $0.contains("checkpoint") } == 1, "\(join.text)")
            #expect(join.text.contains("is damaged") && join.value("fanout_join_restored_changes_total") == 10)
            try bench.write(.incoming, chat, IncomingMessage.text("two", from: users[0], in: chat))
            try bench.until { $0.messages.count == 2 }
        }
    }

    @Test func `checkpoints are saved while the membership never stands still`() throws {
        let bench = try Bench(partitions: 2)
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        var configuration = bench.configuration()
        configuration.stateDirectory = directory
        configuration.checkpointIntervalMs = 200
        try running(configuration) { join in
            #expect(join.waitUntilReady())
            let isSaved = try eventually {
                for _ in 0..<20 { try bench.create(ChatID.random(), [UserID.random()]) }
                return join.text.contains("checkpoint saved")
            }
            #expect(isSaved, "\(join.text)")
        }
    }

    @Test func `a join is stopped although the log takes nothing from it`() throws {
        let broker = try BrokerProcess()
        let bench = try Bench(partitions: 1, kafka: broker.address)
        let chat = ChatID.random()
        let users = (0..<9).map { _ in UserID.random() }
        try bench.create(chat, users)
        var configuration = bench.configuration()
        configuration.queueBytesMax = 256 << 10
        let text = String(repeating: "x", count: 2000)
        let count = 1000
        for number in 0..<count {
            let value = IncomingMessage.text("\(number) \(text)", from: users[0], in: chat)
            _ = try bench.producer.produce(
                bench.producer.topic(bench.names[.incoming]), partition: 0, key: nil, value: value.span, tag: 1)
        }
        _ = bench.producer.flush(deadlineMs: 30_000) { _ in }
        let join = RunningJoin(configuration)
        try bench.until { !$0.messages.isEmpty }
        broker.kill()
        let start = ContinuousClock.now
        #expect(join.stop() == nil)
        #expect(ContinuousClock.now - start < .seconds(20))
        // What was not committed is joined again, and nothing is missing.
        try broker.restart()
        try running(configuration) { _ in
            try bench.until(seconds: 90) { bench in
                Set(bench.messages.map { $0.prefix { $0 != "x" } }).count == count
            }
        }
    }

    @Test func `a coordinator that does not answer for a moment does not end a join that restores`() throws {
        let cluster = try MockCluster()
        let names = Names(prefix: "mock.")
        for topic in [Topic.incoming, .members, .signals, .messages, .rejected, .deliveries] {
            try cluster.createTopic(names[topic], partitions: 2)
        }
        // librdkafka tries again by itself, ten times a second, until the five seconds of a question are over.
        cluster.fail(.offsetFetch, with: Array(repeating: .requestTimedOut, count: 80))
        let join = RunningJoin(JoinConfiguration(kafka: cluster.configuration, names: names))
        #expect(join.waitUntilReady(seconds: 180), "\(join.text)")
        #expect(join.text.contains("trying again"), "\(join.text)")
        #expect(join.stop() == nil)
    }

    @Test func `a position of the group that was set by hand is taken, and said in the log`() throws {
        let bench = try Bench(partitions: 1)
        let chat = ChatID.random()
        let users = (0..<3).map { _ in UserID.random() }
        try bench.create(chat, users)
        for number in 0..<5 {
            try bench.write(.incoming, chat, IncomingMessage.text("\(number)", from: users[0], in: chat))
        }
        try running(bench.configuration()) { _ in try bench.until { $0.messages.count == 5 } }
        let admin = try Admin(bench.kafka)
        defer { admin.close(deadlineMs: 1000) }
        try admin.setGroupOffsets(
            bench.names.group("join"), [CommittedOffset(TopicPartition(bench.names[.incoming], 0), offset: 3)])
        try running(bench.configuration()) { join in
            // Readers drop these by their source; they are written to be found there.
            try bench.until { $0.messages.count == 7 }
            #expect(join.text.contains("set to 3"), "\(join.text)")
        }
    }
}
