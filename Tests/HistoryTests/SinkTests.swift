import Foundation
import History
import KafkaClient
import PostgresClient
import Runtime
import Store
import TestSupport
import Testing
import Wire

@Suite struct SinkTests {
    @Test func `messages, edits, deletes and receipts end in the tables, and a bad record in chat rejected`() throws {
        let scene = try Scene(chatCount: 2)
        let (chat, other) = (scene.chats[0], scene.chats[1])
        let hello = scene.message("hello \"you\" \u{e9}\u{0}", in: chat)
        let second = scene.message("second", in: chat, by: 1)
        let gone = scene.message("secret", in: chat, by: 1)
        try scene.write(hello)
        try scene.write(second)
        try scene.write(hello)
        try scene.write(gone)
        try scene.write(Array("{nonsense".utf8), to: .messages, partition: chat.partition(count: Scene.partitions))
        try scene.write(nil, to: .messages, partition: chat.partition(count: Scene.partitions))
        try scene.write(scene.message("better", in: chat, by: 1, kind: .edit, target: second.seq))
        try scene.write(scene.message("mischief", in: chat, by: 2, kind: .edit, target: hello.seq))
        try scene.write(scene.message("", in: chat, by: 2, kind: .delete, target: hello.seq))
        // Users 0 is the group's admin.
        try scene.write(scene.message("", in: chat, by: 0, kind: .delete, target: gone.seq))
        try scene.write(scene.message("resurrection", in: chat, by: 1, kind: .edit, target: gone.seq))
        try scene.write(scene.message("elsewhere", in: other, by: 3))
        try scene.signal(.read, by: 2, in: chat, seq: second.seq)
        try scene.signal(.delivered, by: 2, in: chat, seq: gone.seq)
        try scene.signal(.read, by: 2, in: chat, seq: hello.seq)
        try scene.signal(.typing, by: 2, in: chat, seq: 1)
        try scene.flush()

        let running = RunningHistory(scene.configuration)
        defer { running.stop() }
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 9 })
        #expect(try eventually { try scene.count("SELECT count(*) FROM read_state") == 1 })
        var store = try scene.store()
        let page = try store.rows(MessagePages.before(nil, in: chat, readableFromMs: 0, limit: 10))
        #expect(page.map(\.kind) == ["deleted", "text", "text"])
        #expect(
            page.map { String(decoding: $0.body, as: UTF8.self) } == [
                "{}", #"{"text":"better"}"#, #"{"text":"hello \"you\" é\u0000"}"#,
            ])
        #expect(page.map(\.id) == [gone.id, second.id, hello.id])
        let list = try store.rows(Conversations.of(scene.users[2], limit: 10))
        #expect(list.first { $0.chat == chat }?.unread == 0)
        #expect(list.first { $0.chat == chat }?.lastPreview == "", "the last message was taken back")
        #expect(list.first { $0.chat == other }?.lastPreview == "elsewhere")
        let state = try #require(try store.rows(ReadStates.of(chat)).first)
        #expect(state.readSeq == second.seq && state.deliveredSeq == gone.seq)

        // Both bad records are where people look for them.
        let consumer = try Consumer(scene.kafka, ConsumerOptions())
        try consumer.assign(
            (0..<Scene.partitions).map { PartitionStart(TopicPartition(scene.names[.rejected], $0), at: .beginning) })
        var rejected: [String] = []
        #expect(
            eventually {
                let batch = consumer.poll(timeoutMs: 100)
                for index in 0..<batch.count {
                    if let value = batch[index].value { rejected.append(String(showing: value)) }
                }
                return rejected.count == 2
            })
        #expect(rejected.contains { $0.contains(#""record":"{nonsense""#) && $0.contains(scene.names[.messages]) })
        #expect(rejected.contains { $0.contains(#""reason":"no value""#) })

        // The group's offsets follow, for `fanout lag`, and the sync knows that all is there.
        let admin = try Admin(scene.kafka)
        let partition = TopicPartition(scene.names[.messages], chat.partition(count: Scene.partitions))
        let end = try admin.endOffsets([partition])[0].get()
        #expect(try eventually { try admin.groupOffsets(scene.names.group("history"), [partition])[0].offset == end })
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        #expect(
            try eventually {
                try store.first(Sync.coverage(topic: scene.names[.messages]))?.isComplete(upToMs: now) == true
            })
    }

    @Test func `a restart goes on from the database, and repeats of the join are dropped`() throws {
        let scene = try Scene()
        var sent: [Scene.Sent] = []
        for round in 0..<4 {
            for index in 0..<200 {
                let message = scene.message("\(round).\(index)", in: scene.chats[index % 8])
                sent.append(message)
                try scene.write(message)
                // The join wrote its last records again after a crash.
                if index % 50 == 49 { for message in sent.suffix(20) { try scene.write(message) } }
            }
            try scene.flush()
            var configuration = scene.configuration
            configuration.batchRecordsMax = 37
            let running = RunningHistory(configuration)
            #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == Int64(sent.count) })
            running.stop()
        }
        #expect(try scene.count("SELECT count(DISTINCT (chat_id, seq)) FROM messages") == Int64(sent.count))
    }

    @Test func `Postgres may go away for a while`() throws {
        let cluster = try PostgresCluster()
        let scene = try Scene(cluster: cluster)
        let running = RunningHistory(scene.configuration)
        defer { running.stop() }
        var count: Int64 = 0
        func say(_ messages: Int) throws {
            for _ in 0..<messages {
                try scene.write(scene.message("m", in: scene.chats[Int(count) % 8]))
                count += 1
            }
            try scene.flush()
        }
        try say(100)
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 100 })
        for mode in [PostgresCluster.StopMode.immediate, .fast] {
            try say(50)
            try cluster.stop(mode)
            try say(500)
            try cluster.start()
            #expect(eventually(seconds: 30) { (try? scene.count("SELECT count(*) FROM messages")) == count })
        }
        #expect(try scene.count("SELECT count(DISTINCT (chat_id, seq)) FROM messages") == count)
    }

    @Test func `a row that Postgres refuses holds up nothing`() throws {
        let scene = try Scene()
        var store = try scene.store()
        // A database with a stricter table than ours.
        try store.postgres.execute("ALTER TABLE messages ADD CHECK (body->>'text' <> 'forbidden')")
        for index in 0..<100 {
            try scene.write(scene.message(index % 10 == 5 ? "forbidden" : "fine", in: scene.chats[index % 8]))
        }
        try scene.flush()
        let running = RunningHistory(scene.configuration)
        defer { running.stop() }
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 90 })
        let text = { String(decoding: running.metrics.render(), as: UTF8.self) }
        #expect(eventually { text().contains("fanout_history_rejected_total 10\n") })
    }

    @Test func `what is past its retention is dropped, and a sync that needs it is told`() throws {
        let scene = try Scene()
        let running = RunningHistory(scene.configuration)
        var store = try scene.store()
        #expect(
            try eventually {
                try scene.count("SELECT count(*) FROM pg_inherits WHERE inhparent = 'messages'::regclass") >= 4
            })
        running.stop()
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        let day: Int64 = 86_400_000
        let old = now - now % day - 40 * day
        try store.postgres.execute(
            "CREATE TABLE messages_20010101 PARTITION OF messages FOR VALUES FROM (\(old)) TO (\(old + day))")
        #expect(try store.first(Sync.coverage(topic: scene.names[.messages]))?.droppedBeforeMs == 0)
        let again = RunningHistory(scene.configuration)
        defer { again.stop() }
        #expect(
            try eventually { try scene.count("SELECT count(*) FROM pg_class WHERE relname = 'messages_20010101'") == 0 }
        )
        let coverage = try #require(try store.first(Sync.coverage(topic: scene.names[.messages])))
        #expect(coverage.isTooOld(cursorMs: now - 31 * day))
        #expect(!coverage.isTooOld(cursorMs: now - 29 * day))
        // A message that is older than that is passed over, not stored where no partition is.
        #expect(try scene.count("SELECT count(*) FROM messages") == 0)
    }

    @Test func `a database without the tables is said so`() throws {
        var configuration = try Scene(chatCount: 1).configuration
        configuration.postgres = try PostgresCluster.shared().freshDatabase()
        let history = History(configuration, log: .none, metrics: Metrics(), clock: ManualClock())
        let error = #expect(throws: HistoryError.self) { try history.run() }
        #expect(error?.code == .schemaMissing)
        #expect(error?.description.contains("fanout db migrate") == true)
    }
}
