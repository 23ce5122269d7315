import KafkaClient
import PostgresClient
import StreamJoin
import System
import TestSupport
import Testing
import Wire

/// The join beside a Postgres that is ahead of the log, because CDC is away.
@Suite(.serialized) struct JoinPostgresTests {
    private let chat = ChatID.random()
    private let users = (0..<4).map { _ in UserID.random() }

    private func recipients(_ bench: Bench, _ text: String) -> Set<UserID> {
        Set(bench.deliveries.filter { $0.record.contains(#""text":"\#(text)""#) }.flatMap(\.to))
    }

    private func waitForTombstone(_ bench: Bench) throws {
        let consumer = try Consumer(bench.kafka, ConsumerOptions())
        defer { consumer.close(deadlineMs: 1000) }
        try consumer.assign([PartitionStart(TopicPartition(bench.names[.members], 0), at: .beginning)])
        let isForgotten = eventually {
            let batch = consumer.poll(timeoutMs: 100)
            for index in 0..<batch.count {
                let message = batch[index]
                if message.value == nil, let key = message.key, string(key).contains(ChatMembership.table) {
                    return true
                }
            }
            return false
        }
        #expect(isForgotten)
    }

    @Test(arguments: [false, true])
    func `what was read from Postgres holds for the join that comes after, whatever Postgres says by then`(
        keepsCheckpoint: Bool
    ) throws {
        let bench = try Bench(partitions: 1)
        let database = try PostgresCluster.shared().freshDatabase(migrated: true)
        var postgres = try PostgresConnection(database)
        for user in users { try postgres.execute("INSERT INTO users (user_id, name) VALUES ('\(user)', 'u')") }
        let rows = users.prefix(3).map { "('\(chat)', '\($0)')" }.joined(separator: ",")
        try postgres.execute("INSERT INTO chats (chat_id, kind) VALUES ('\(chat)', 'group')")
        try postgres.execute("INSERT INTO members (chat_id, user_id) VALUES \(rows)")
        try bench.create(chat, Array(users.prefix(3)))
        // Of this the log knows nothing.
        try postgres.execute("DELETE FROM members WHERE user_id = '\(users[2])'")
        try postgres.execute("INSERT INTO members (chat_id, user_id) VALUES ('\(chat)', '\(users[3])')")

        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        var configuration = bench.configuration()
        configuration.postgres = database
        if keepsCheckpoint { configuration.stateDirectory = directory }
        try running(configuration) { join in
            try bench.write(
                .incoming, chat, IncomingMessage.text("first", from: users[3], in: chat, metaVersion: 3))
            try bench.until { recipients($0, "first") == Set([users[0], users[1], users[3]]) }
            #expect(join.text.contains("members read from Postgres"))
        }
        try postgres.execute("DELETE FROM members WHERE user_id = '\(users[0])'")
        try running(configuration) { join in
            try bench.write(.incoming, chat, IncomingMessage.text("second", from: users[0], in: chat))
            try bench.until { recipients($0, "second") == Set([users[0], users[1], users[3]]) }
            #expect(join.text.contains("checkpoint loaded") == keepsCheckpoint)
            #expect(join.value("fanout_join_members_reads_total") == 0)
            // CDC is back.
            for (user, operation, version) in [(users[2], "d", 2), (users[3], "c", 3)] as [(UserID, String, Int64)] {
                let row = Rows.member(chat, user, operation, tx: version)
                try bench.write(.members, chat, key: row.key, row.value)
                let chatRow = Rows.chat(chat, "u", version: version, tx: version)
                try bench.write(.members, chat, key: chatRow.key, chatRow.value)
            }
            try bench.until { bench in
                bench.deliveries.contains { $0.record.contains(#""change":"added","meta_version":3"#) }
            }
            try waitForTombstone(bench)
        }
    }
}
