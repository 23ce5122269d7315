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
        // User 0 is the group's admin.
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
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 7 })
        #expect(try eventually { try scene.count("SELECT count(*) FROM read_state") == 1 })
        var store = try scene.store()
        let page = try store.rows(
            MessagePages.before(
                nil, in: chat, partition: chat.partition(count: Scene.partitions), readableFromMs: 0, limit: 10))
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
        let member = try #require(try store.rows(ChatMembers.of(chat)).first { $0.user == scene.users[2] })
        #expect(member.readSeq == second.seq && member.deliveredSeq == gone.seq)

        // Both bad records are where people look for them.
        let rejected = try scene.records(.rejected, count: 2).map(\.value)
        #expect(rejected.contains { $0.contains(#""record":"{nonsense""#) && $0.contains(scene.names[.messages]) })
        #expect(rejected.contains { $0.contains(#""detail":"no value""#) && $0.contains(#""record":null"#) })

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

    @Test func `while Postgres is away the sink waits and its lag shows, and nothing is lost`() throws {
        let cluster = try PostgresCluster()
        let scene = try Scene(cluster: cluster)
        let running = RunningHistory(scene.configuration)
        defer { running.stop() }
        let admin = try Admin(scene.kafka)
        let partitions = (0..<Scene.partitions).map { TopicPartition(scene.names[.messages], $0) }
        func lag() throws -> Int64 {
            let ends = try admin.endOffsets(partitions).map { try $0.get() }
            let offsets = try admin.groupOffsets(scene.names.group("history"), partitions).map { $0.offset ?? 0 }
            return ends.reduce(0, +) - offsets.reduce(0, +)
        }
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
        #expect(try eventually { try lag() == 0 && running.history.isReady })
        for mode in [PostgresCluster.StopMode.immediate, .fast] {
            try say(50)
            try cluster.stop(mode)
            try say(500)
            #expect(eventually { !running.history.isReady })
            #expect(try lag() >= 500)
            try cluster.start()
            #expect(eventually(seconds: 60) { (try? scene.count("SELECT count(*) FROM messages")) == count })
            #expect(try eventually { try lag() == 0 && running.history.isReady })
        }
        #expect(try scene.count("SELECT count(DISTINCT (chat_id, seq)) FROM messages") == count)
    }

    @Test func `a row that Postgres refuses holds up nothing`() throws {
        let scene = try Scene()
        var store = try scene.store()
        // A database with a stricter table than ours.
        try store.postgres.execute("ALTER TABLE messages ADD CHECK (body->>'text' <> 'forbidden')")
        var forbidden: [Scene.Sent] = []
        for index in 0..<100 {
            let sent = scene.message(index % 10 == 5 ? "forbidden" : "fine", in: scene.chats[index % 8])
            if sent.text == "forbidden" { forbidden.append(sent) }
            try scene.write(sent)
        }
        try scene.flush()
        let running = RunningHistory(scene.configuration)
        defer { running.stop() }
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 90 })
        let text = { String(decoding: running.metrics.render(), as: UTF8.self) }
        #expect(eventually { text().contains("fanout_history_rejected_total 10\n") })
        // Each refusal has the record and its chat, for whoever sends it again.
        let rejected = try scene.records(.rejected, count: 10)
        for sent in forbidden {
            let value = String(decoding: sent.value, as: UTF8.self)
            #expect(rejected.contains { $0.key == sent.chat.description && $0.value.contains("\"record\":\(value)") })
        }
    }

    @Test func `a record is not passed over while its refusal cannot be written`() throws {
        let scene = try Scene(chatCount: 1, rejectedBytesMax: 20)
        let chat = scene.chats[0]
        let partition = chat.partition(count: Scene.partitions)
        try scene.write(scene.message("first", in: chat))
        try scene.write(Array("{nonsense".utf8), to: .messages, partition: partition)
        try scene.write(scene.message("second", in: chat))
        try scene.flush()
        var configuration = scene.configuration
        configuration.batchRecordsMax = 1
        let lines = Lines()
        let running = RunningHistory(configuration, log: lines.log)
        defer { running.stop() }
        #expect(eventually { lines.text.contains("rejected records cannot be written") })
        let position =
            "SELECT next_offset FROM sink_progress WHERE topic = '\(scene.names[.messages])' AND partition = \(partition)"
        #expect(try scene.count(position) == 1)
        #expect(try scene.count("SELECT count(*) FROM messages") == 1)

        try Admin(scene.kafka).setTopicConfigs(scene.names[.rejected], ["max.message.bytes": "1000000"])
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 2 })
        #expect(try scene.records(.rejected, count: 1)[0].value.contains(#""record":"{nonsense""#))
    }

    @Test func `a delete by an admin stands, though the admin has left the chat since`() throws {
        let scene = try Scene(chatCount: 1)
        let sent = scene.message("secret", in: scene.chats[0], by: 1)
        try scene.write(sent)
        try scene.write(scene.message("", in: scene.chats[0], by: 0, kind: .delete, target: sent.seq))
        try scene.flush()
        var store = try scene.store()
        try store.run(Accounts.removeMember(scene.users[0], from: scene.chats[0]))
        let running = RunningHistory(scene.configuration)
        defer { running.stop() }
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 2 })
        #expect(try scene.count("SELECT count(*) FROM messages WHERE kind = 'deleted' AND body::text = '{}'") == 1)
    }

    @Test func `who is not in a chat leaves no read position in it`() throws {
        let scene = try Scene(chatCount: 2)
        var store = try scene.store()
        try store.run(Accounts.removeMember(scene.users[3], from: scene.chats[0]))
        let (here, there) = (scene.message("a", in: scene.chats[0]), scene.message("b", in: scene.chats[1]))
        for message in [here, there] { try scene.write(message) }
        try scene.signal(.read, by: 3, in: scene.chats[0], seq: here.seq)
        try scene.signal(.delivered, by: 1, in: .random(), seq: 0)
        try scene.signal(.read, by: 3, in: scene.chats[1], seq: there.seq)
        try scene.signal(.read, by: 2, in: scene.chats[0], seq: here.seq)
        try scene.flush()
        let running = RunningHistory(scene.configuration)
        defer { running.stop() }
        let signals = "SELECT sum(next_offset)::bigint FROM sink_progress WHERE topic = '\(scene.names[.signals])'"
        #expect(try eventually { try scene.count(signals) == 4 })
        func read(_ user: Int, _ chat: Int) throws -> Int64? {
            try store.rows(ChatMembers.of(scene.chats[chat])).first { $0.user == scene.users[user] }?.readSeq
        }
        #expect(try scene.count("SELECT count(*) FROM read_state") == 2)
        #expect(try read(3, 1) == there.seq)
        #expect(try read(2, 0) == here.seq)
    }

    @Test func `a mark of what never was counts as far as there is something, and hides nothing that comes`() throws {
        let scene = try Scene(chatCount: 1)
        let chat = scene.chats[0]
        let last = scene.message("last", in: chat)
        try scene.write(last)
        try scene.signal(.read, by: 1, in: chat, seq: 1_000_000_000_000_000)
        try scene.signal(.delivered, by: 2, in: chat, seq: .max)
        try scene.flush()
        let running = RunningHistory(scene.configuration)
        defer { running.stop() }
        #expect(try eventually { try scene.count("SELECT count(*) FROM read_state") == 2 })
        var store = try scene.store()
        let members = try store.rows(ChatMembers.of(chat))
        #expect(members.first { $0.user == scene.users[1] }?.readSeq == last.seq)
        #expect(members.first { $0.user == scene.users[2] }?.deliveredSeq == last.seq)
        try scene.write(scene.message("news", in: chat))
        try scene.flush()
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 2 })
        #expect(try store.first(Conversations.one(chat, of: scene.users[1]))?.unread == 1)
    }

    @Test func `what is past its retention is dropped, preview and all, and a sync that needs it is told`() throws {
        let scene = try Scene(chatCount: 2)
        let day: Int64 = 86_400_000
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        let today = now - now % day
        // Both chats spoke 20 days ago, when that was within the retention; the join was behind by two hours that night.
        var configuration = scene.configuration
        configuration.retentionDays = 25
        let late = today - 19 * day - 1
        for chat in scene.chats {
            try scene.write(scene.message("old", in: chat, ts: late), recordMs: late + 7_200_000)
        }
        try scene.write(scene.message("new", in: scene.chats[1], ts: now))
        try scene.flush()
        let running = RunningHistory(configuration)
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 3 })
        running.stop()
        var store = try scene.store()
        #expect(try store.first(Sync.coverage(topic: scene.names[.messages]))?.droppedBeforeMs == 0)

        configuration.retentionDays = 15
        // What comes so late that its day is gone is passed over; the next message is not.
        try scene.write(scene.message("much too late", in: scene.chats[0], ts: today - 16 * day))
        try scene.write(scene.message("newer", in: scene.chats[1], ts: now))
        try scene.flush()
        let again = RunningHistory(configuration)
        defer { again.stop() }
        #expect(
            try eventually { try scene.count("SELECT count(*) FROM messages WHERE body->>'text' LIKE 'new%'") == 2 })
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 2 })
        #expect(
            try eventually {
                try store.first(Sync.coverage(topic: scene.names[.messages]))?.isTooOld(cursorMs: today - 16 * day)
                    == true
            })
        let coverage = try #require(try store.first(Sync.coverage(topic: scene.names[.messages])))
        #expect(coverage.isTooOld(cursorMs: late + 7_100_000), "who left before the late delivery would miss it")
        #expect(!coverage.isTooOld(cursorMs: today - 14 * day))
        func list() throws -> [Conversation] { try store.rows(Conversations.of(scene.users[1], limit: 10)) }
        #expect(try eventually { try list().first { $0.chat == scene.chats[0] }?.lastPreview == nil })
        #expect(try list().first { $0.chat == scene.chats[1] }?.lastPreview == "newer")
    }

    @Test func `a database without the tables is said so`() throws {
        var configuration = try Scene(chatCount: 1).configuration
        configuration.postgres = try PostgresCluster.shared().freshDatabase()
        let history = History(configuration, log: .none, metrics: Metrics(), clock: ManualClock())
        let error = #expect(throws: HistoryError.self) { try history.run() }
        #expect(error?.code == .schemaMissing)
        #expect(error?.description.contains("fanout db migrate") == true)
    }

    @Test func `chat.messages made again is read from its start, told of, and devices that were away start over`()
        throws
    {
        let scene = try Scene()
        let lines = Lines()
        let running = RunningHistory(scene.configuration, log: lines.log)
        defer { running.stop() }
        for index in 0..<60 { try scene.write(scene.message("m", in: scene.chats[index % 8])) }
        try scene.flush()
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 60 })
        let admin = try Admin(scene.kafka)
        defer { admin.close(deadlineMs: 1000) }
        let topic = scene.names[.messages]
        #expect(try admin.deleteTopics([topic]).allSatisfy { $0.error == nil })
        let again = NewTopic(topic, partitions: Int(Scene.partitions))
        #expect(try admin.createTopics([again]).allSatisfy { $0.error == nil })
        for index in 0..<60 { try scene.write(scene.message("m", in: scene.chats[index % 8])) }
        try scene.flush()
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 120 }, "\(lines.text)")
        #expect(lines.text.contains("the topic was made again"), "\(lines.text)")
        var store = try scene.store()
        let coverage = try #require(try store.first(Sync.coverage(topic: topic)))
        #expect(coverage.droppedBeforeMs > 0)
        let metrics = String(decoding: running.metrics.render(), as: UTF8.self)
        #expect(metrics.contains(#"fanout_log_changed_total{topic="chat.messages"} 3"#), "\(metrics)")
    }

    @Test func `while a database is being restored History takes no part in it, and then goes on from its positions`()
        throws
    {
        let scene = try Scene()
        let lines = Lines()
        for index in 0..<30 { try scene.write(scene.message("m", in: scene.chats[index % 8])) }
        try scene.flush()
        let running = RunningHistory(scene.configuration, log: lines.log)
        defer { running.stop() }
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 30 })
        var store = try scene.store()
        // As a restore from a dump leaves it until the end: rows without keys, and some twice if somebody writes.
        let backup = "CREATE TABLE backup AS TABLE sink_progress; UPDATE backup SET next_offset = 0, last_seq = -1"
        try store.postgres.execute(
            """
            \(backup); ALTER TABLE sink_progress DROP CONSTRAINT sink_progress_pkey; TRUNCATE sink_progress;
            TRUNCATE messages, chat_activity, sink_marks
            """)
        for index in 0..<30 { try scene.write(scene.message("m", in: scene.chats[index % 8])) }
        try scene.flush()
        #expect(eventually { lines.text.contains("the database is not complete") }, "\(lines.text)")
        #expect(eventually { !running.history.isReady })
        #expect(lines.text.contains("the key of sink_progress"))
        #expect(try scene.count("SELECT count(*) FROM sink_progress") == 0, "nothing is written into it")
        try store.postgres.execute(
            """
            INSERT INTO sink_progress SELECT * FROM backup; ALTER TABLE sink_progress ADD PRIMARY KEY (topic, partition)
            """)
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 60 }, "\(lines.text)")
        #expect(eventually { running.history.isReady } && lines.text.contains("the database is complete"))
        let told = lines.text.split(separator: "\n").count { $0.contains("nothing is stored until it is") }
        #expect(told == 1, "one line, however long it takes: \(lines.text)")
    }

    @Test func `a database restored to an older state is filled again from the log`() throws {
        let scene = try Scene()
        let running = RunningHistory(scene.configuration)
        defer { running.stop() }
        for index in 0..<30 { try scene.write(scene.message("m", in: scene.chats[index % 8])) }
        try scene.flush()
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 30 })
        var store = try scene.store()
        // All at once, as another data directory under the same server would show it.
        try store.postgres.execute(
            """
            BEGIN; DELETE FROM messages; DELETE FROM chat_activity; DELETE FROM sink_marks;
            UPDATE sink_progress SET next_offset = 0, last_seq = -1 WHERE topic <> '';
            UPDATE database_identity SET id = gen_random_uuid(); COMMIT
            """)
        for index in 0..<30 { try scene.write(scene.message("m", in: scene.chats[index % 8])) }
        try scene.flush()
        #expect(try eventually { try scene.count("SELECT count(*) FROM messages") == 60 })
        #expect(eventually { running.history.isReady })
    }
}
