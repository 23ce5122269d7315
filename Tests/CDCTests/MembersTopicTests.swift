import Foundation
import KafkaClient
import PostgresClient
import TestSupport
import Testing
import Wire

/// `chat.members`, where a chat's row carries a version and whoever sees it relies on having seen the rows before it.
@Suite struct MembersTopicTests {
    private final class Chat {
        let names = Names(prefix: TestKafka.unique("cdc") + ".")
        let slot = "s\(UInt32.random(in: 0 ... .max))"
        let kafka: String
        let database: String
        var postgres: PostgresConnection
        let chat = UUID()
        let users = (0..<3).map { _ in UUID() }

        init() throws {
            kafka = try TestKafka.shared().address
            database = try PostgresCluster.shared().freshDatabase(migrated: true)
            for topic in [Topic.members, .users] { try createTopic(names[topic], partitions: 1, kafka: kafka) }
            postgres = try PostgresConnection(database)
            try postgres.execute("INSERT INTO chats (chat_id, kind) VALUES ('\(chat)', 'group')")
            try add(0...1)
        }

        deinit {
            _ = try? eventually(seconds: 10) {
                try postgres.query(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active",
                    [.text(slot)])
                return try postgres.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = $1", [.text(slot)])
                    .isEmpty
            }
        }

        func add(_ range: ClosedRange<Int>) throws {
            for user in users[range] {
                try postgres.execute("INSERT INTO members (chat_id, user_id) VALUES ('\(chat)', '\(user)')")
            }
        }

        func remove(_ user: Int) throws {
            try postgres.execute("DELETE FROM members WHERE chat_id = '\(chat)' AND user_id = '\(users[user])'")
        }

        func start() throws -> FanoutProcess {
            try FanoutProcess([
                "cdc", "--postgres", database, "--kafka", kafka, "--slot", slot, "--topic-prefix", names.prefix,
            ])
        }

        func version() throws -> Int64 {
            try postgres.query("SELECT meta_version FROM chats WHERE chat_id = '\(chat)'").int(0, 0) ?? 0
        }

        /// The records in their order, each in a few words.
        func records() throws -> [String] {
            var records: [String] = []
            try forEachRecord(of: names[.members], kafka: kafka) { key, value, _ in
                guard let value else { return }
                let json = try #require(try JSONSerialization.jsonObject(with: Data(value)) as? [String: Any])
                let row = json["after"] as? [String: Any] ?? json["before"] as? [String: Any] ?? [:]
                let source = json["source"] as? [String: Any] ?? [:]
                var words = [json["op"] as? String ?? "?"]
                if source["again"] as? Bool == true { words.append("again") }
                if let user = (row["user_id"] as? String).flatMap({ UUID(uuidString: $0) }) {
                    words.append("user \(users.firstIndex(of: user) ?? -1)")
                } else {
                    words.append("version \(row["meta_version"] as? Int64 ?? -1)")
                }
                records.append(words.joined(separator: " "))
            }
            return records
        }
    }

    @Test func `after a lost slot removals and additions come before the version that tells of them`() throws {
        let chat = try Chat()
        let first = try chat.start()
        #expect(first.waitForOutput("streaming"), "\(first.text)")
        #expect(first.terminate() == 0)
        #expect(try chat.records() == ["r user 0", "r user 1", "r version 2"])
        let isDropped = try eventually {
            try chat.postgres.query(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active",
                [.text(chat.slot)]
            ).rowCount == 1
        }
        #expect(isDropped)
        try chat.remove(1)
        try chat.add(2...2)
        let second = try chat.start()
        defer { second.kill() }
        #expect(second.waitForOutput("streaming"), "\(second.text)")
        #expect(
            try chat.records().dropFirst(3) == [
                "d again user 1", "r again user 0", "r again user 2", "r again version 4",
            ])
    }

    @Test func `a table that is asked for alone is read with those that share its topic`() throws {
        let chat = try Chat()
        let first = try chat.start()
        #expect(first.waitForOutput("streaming"), "\(first.text)")
        #expect(first.terminate() == 0)
        // Asked for, then changed: the snapshot will be ahead of the stream.
        let asked = try FanoutProcess([
            "cdc", "snapshot", "--postgres", chat.database, "--slot", chat.slot, "--table", "chats",
        ])
        defer { asked.kill() }
        #expect(asked.waitForOutput("asked for a snapshot"), "\(asked.text)")
        try chat.remove(1)
        try chat.add(2...2)
        let second = try chat.start()
        defer { second.kill() }
        #expect(asked.waitForExit(seconds: 60) == 0, "\(asked.text) \(second.text)")
        #expect(
            try chat.records().dropFirst(3) == [
                "d again user 1", "r again user 0", "r again user 2", "r again version 4",
            ])
        // What the snapshot has shown does not come again.
        try chat.remove(2)
        #expect(try eventually { try chat.records().last == "u version 5" })
        #expect(try chat.records().dropFirst(7) == ["d user 2", "u version 5"])
    }
}
