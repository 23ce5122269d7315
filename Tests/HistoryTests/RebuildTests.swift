import History
import KafkaClient
import PostgresClient
import Runtime
import Store
import System
import TestSupport
import Testing
import Wire

/// `fanout history rebuild`, without its process.
@Suite struct RebuildTests {
    private func rebuild(_ scene: Scene) throws {
        try History.empty(scene.postgres)
        var configuration = scene.configuration
        configuration.stopsAtEnd = true
        try History(configuration, log: .none, metrics: Metrics(), clock: SystemClock()).run()
    }

    @Test func `read positions older than the signals in the log outlive a rebuild, and so does what was dropped`()
        throws
    {
        let scene = try Scene(chatCount: 1)
        var store = try scene.store()
        try store.postgres.query(
            "INSERT INTO read_state (user_id, chat_id, read_seq, delivered_seq) VALUES ($1, $2, 41, 42)",
            [.id(scene.users[1]), .id(scene.chats[0])])
        try store.postgres.execute(
            "INSERT INTO sink_progress (topic, partition, next_offset, reached_ms) VALUES ('', 0, 0, 1234567)")
        try scene.write(scene.message("hello", in: scene.chats[0]))
        try scene.flush()
        try rebuild(scene)
        #expect(try scene.count("SELECT count(*) FROM messages") == 1)
        #expect(try scene.count("SELECT read_seq FROM read_state") == 41)
        let coverage = try #require(try store.first(Sync.coverage(topic: scene.names[.messages])))
        #expect(coverage.droppedBeforeMs == 1_234_567)
        #expect(coverage.partitionCount == Int(Scene.partitions))
    }

    @Test func `a rebuild reads all signals before it ends`() throws {
        let scene = try Scene(chatCount: 3)
        // Above all marks, which end where the messages end.
        scene.seqs = scene.seqs.map { _ in 20_000 }
        for chat in scene.chats { try scene.write(scene.message("hello", in: chat)) }
        for seq in 0..<20_000 as Range<Int64> {
            try scene.signal(.read, by: 1, in: scene.chats[Int(seq) % 3], seq: seq)
        }
        try scene.flush()
        try rebuild(scene)
        #expect(try scene.count("SELECT max(read_seq) FROM read_state") == 19_999)
        #expect(try scene.count("SELECT count(*) FROM messages") == 3)
    }

    @Test func `a log that has let go of its beginning makes a rebuild that says so, and that ends`() throws {
        let scene = try Scene()
        let side = { (chat: ChatID) in chat.partition(count: Scene.partitions) }
        let half = side(scene.chats[0])
        // Today's, which the topic's retention leaves alone.
        let startMs = SystemClock().wallMs - 3_600_000
        for index in 0..<40 as Range<Int64> {
            try scene.write(
                scene.message("m", in: scene.chats[Int(index) % 8]), recordMs: startMs + index * 60_000)
        }
        try scene.signal(.read, by: 1, in: scene.chats[0], seq: 3)
        try scene.flush()
        let admin = try Admin(scene.kafka)
        let ends = try admin.endOffsets((0..<Scene.partitions).map { TopicPartition(scene.names[.messages], $0) })
            .map { try $0.get() }
        var cuts: [(TopicPartition, offset: Int64)] = [
            (TopicPartition(scene.names[.messages], half), 1), (TopicPartition(scene.names[.signals], half), 1),
        ]
        _ = try admin.deleteRecords(before: cuts)
        try rebuild(scene)
        #expect(try scene.count("SELECT count(*) FROM messages") == 39)
        var store = try scene.store()
        func dropped() throws -> Int64 {
            try store.first(Sync.coverage(topic: scene.names[.messages]))?.droppedBeforeMs ?? -1
        }
        // Up to the first that the log still has.
        let first = try #require(
            try (0..<40 as Range<Int64>).first { try dropped() == startMs + $0 * 60_000 })
        #expect(side(scene.chats[Int(first) % 8]) == half && first > 0)

        // And of a partition of which nothing is left, nobody knows how old that was.
        cuts = [(TopicPartition(scene.names[.messages], half), ends[Int(half)])]
        _ = try admin.deleteRecords(before: cuts)
        let before = SystemClock().wallMs
        try rebuild(scene)
        #expect(try scene.count("SELECT count(*) FROM messages") == 40 - ends[Int(half)])
        #expect(try dropped() >= before)
    }

    @Test func `a rebuild that others leave no partition says who they are, and goes on waiting`() throws {
        let scene = try Scene(chatCount: 1)
        // The group shares out by these names, so a member without one comes last.
        let holders = (0..<Int(Scene.partitions)).map { number in
            var configuration = scene.configuration
            configuration.groupInstanceID = "a-holder-\(number)"
            let lines = Lines()
            let running = RunningHistory(configuration, log: lines.log)
            return (running, lines)
        }
        #expect(eventually { holders.allSatisfy { last(of: $0.1).hasSuffix("partitions=1") } })
        var configuration = scene.configuration
        configuration.stopsAtEnd = true
        let lines = Lines()
        let rebuild = RunningHistory(configuration, log: lines.log)
        #expect(eventually { lines.text.contains("others hold the partitions") }, "\(lines.text)")
        for number in holders.indices { #expect(lines.text.contains("a-holder-\(number) at"), "\(lines.text)") }
        rebuild.stop()
        for (running, _) in holders { running.stop() }
    }

    /// What a stage was given last.
    private func last(of lines: Lines) -> String {
        lines.text.split(separator: "\n").last { $0.contains("assigned") }.map(String.init) ?? ""
    }
}
