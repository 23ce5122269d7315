import Foundation
import PostgresClient
import TestSupport
import Testing

/// Topics that are made again, a log that is lost under stages that live on, and `fanout restore`.
@Suite(.serialized) struct LostLogTests {
    @Test(arguments: ["chat.incoming", "chat.messages", "chat.deliveries", "chat.members"])
    func `a topic that is deleted and made again while people talk is told of, and what is said after arrives`(
        topic: String
    ) throws {
        let system = try StagedSystem()
        try talk(system, [topic, topic])
        // At run time it is the reader's line, at a start that of who compares its position.
        let told = system.text.split(separator: "\n").filter { $0.contains("made again") }
        #expect(told.contains { $0.contains(topic) }, "\(system.text)")
    }

    @Test
    func `a broker that lost its directory under running stages is talked through again after its topics are made`()
        throws
    {
        let system = try StagedSystem()
        let lost = NSTemporaryDirectory() + "fanout-lost-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        defer { try? FileManager.default.removeItem(atPath: lost) }
        let devices = try start(system, ["until:\(lost)"])
        #expect(devices.waitForOutput("waiting for the log to be lost", seconds: 60), "\(devices.text)")
        try loseLog(system)
        #expect(FileManager.default.createFile(atPath: lost, contents: nil))
        try finish(devices, system)
        // Who had not committed, or has lost its commits with the broker, knows of no other log; History does.
        let told = system.text.split(separator: "\n").filter { $0.contains("the topic was made again") }
        #expect(told.contains { $0.contains("chat.messages") }, "\(system.text)")
    }

    // MARK: fanout restore

    @Test func `a lost database is filled again from the log, and one of a backup made what the log last told`() throws
    {
        let system = try StagedSystem()
        try talk(system, [])
        let before = try rows(system)
        system.stopAll()
        system.database = try PostgresCluster.shared().freshDatabase()
        var text = try restore(system, "database")
        #expect(text.contains("rows_written=") && text.contains("lost: read positions"), "\(text)")
        #expect(try restore(system, "database").contains("rows_written=0"), "a second time there is nothing to do")
        try system.start("history")
        try expectRows(before, system)
        system.stop("history")

        // As of before a member came, another was renamed and a third was removed; and half of what was said.
        var postgres = try PostgresConnection(system.database)
        try postgres.execute(
            """
            DELETE FROM members WHERE user_id = (SELECT user_id FROM members LIMIT 1);
            UPDATE users SET name = 'before' WHERE user_id = (SELECT user_id FROM users LIMIT 1);
            INSERT INTO users (user_id, name) VALUES (gen_random_uuid(), 'deleted since');
            INSERT INTO members (chat_id, user_id) SELECT chat_id, gen_random_uuid() FROM chats;
            DELETE FROM messages; DELETE FROM chat_activity; DELETE FROM sink_marks;
            UPDATE sink_progress SET next_offset = 0, last_seq = -1 WHERE topic <> ''
            """)
        text = try restore(system, "backup")
        #expect(text.contains("rows_removed=2"), "\(text)")
        #expect(try restore(system, "backup").contains("rows_written=0 rows_removed=0"))
        try system.start("history")
        try expectRows(before, system)
    }

    @Test func `after a lost log, and after both were lost, messages are numbered above all that was said`() throws {
        let system = try StagedSystem()
        try talk(system, [])
        system.stopAll()
        try loseLog(system)
        var text = try restore(system, "log")
        #expect(text.contains("generations=1,1,1,1") && text.contains("lost: what chat.messages held"), "\(text)")
        #expect(try restore(system, "log").contains("messages are numbered as before"))
        try restart(system)
        try talk(system, [])
        #expect(try highestGeneration(system) == 1)
        system.stopAll()
        // Now the database is of before the first loss, and does not know of the second log at all.
        var postgres = try PostgresConnection(system.database)
        try postgres.execute("DELETE FROM log_runs WHERE generation = 1; DELETE FROM messages WHERE seq > 1000000000")
        try postgres.execute("UPDATE sink_progress SET last_seq = 100; DELETE FROM sink_marks WHERE seq > 1000000000")
        try loseLog(system)
        text = try restore(system, "both")
        #expect(try highestGeneration(system, table: true) >= 17, "\(text)")
        let again = try restore(system, "both")
        #expect(again.contains("messages are numbered as before"), "\(again)")
    }

    // MARK: Parts

    private func start(_ system: StagedSystem, _ topics: [String]) throws -> FanoutProcess {
        try system.python("topics_made_again.py", ["\(system.chatPort)", FanoutProcess.binary.path] + topics)
    }

    private func finish(_ devices: FanoutProcess, _ system: StagedSystem) throws {
        #expect(devices.waitForExit(seconds: 240) == 0, "\(devices.text)\n\(system.text)")
        print(devices.text)
    }

    private func talk(_ system: StagedSystem, _ topics: [String]) throws {
        try finish(try start(system, topics), system)
    }

    private func loseLog(_ system: StagedSystem) throws {
        system.broker.kill()
        try FileManager.default.removeItem(atPath: system.broker.directory)
        try system.broker.restart()
        let made = try system.fanout(["topics", "create", "--partitions", "4"])
        #expect(made.status == 0, "\(made.text)")
    }

    private func restore(_ system: StagedSystem, _ loss: String) throws -> String {
        let done = try system.fanout(["restore", loss])
        #expect(done.status == 0, "\(done.text)")
        return done.text
    }

    private func restart(_ system: StagedSystem) throws {
        try system.startStages()
    }

    private func rows(_ system: StagedSystem) throws -> [Int64] {
        var postgres = try PostgresConnection(system.database)
        let found = try postgres.query(
            """
            SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM chats), (SELECT count(*) FROM members),
                   (SELECT count(*) FROM messages), (SELECT count(*) FROM users WHERE name = 'somebody'),
                   (SELECT max(last_seq) FROM chat_activity)
            """)
        return (0..<6).map { found.int(0, $0) ?? -1 }
    }

    private func expectRows(_ expected: [Int64], _ system: StagedSystem) throws {
        var found: [Int64] = []
        let isSame = try eventually(seconds: 30) {
            found = try rows(system)
            return found == expected
        }
        #expect(isSame, "\(found) \(expected) \(system.text)")
    }

    private func highestGeneration(_ system: StagedSystem, table: Bool = false) throws -> Int64 {
        var postgres = try PostgresConnection(system.database)
        let sql =
            table ? "SELECT max(generation)::bigint FROM log_runs" : "SELECT max(last_seq) >> 40 FROM chat_activity"
        return try postgres.query(sql).int(0, 0) ?? -1
    }
}
