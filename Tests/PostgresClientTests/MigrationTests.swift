import Foundation
import PostgresClient
import TestSupport
import Testing
import Wire

@Suite struct MigrationTests {
    @Test func `the embedded schema is that of the SQL files`() throws {
        let root = URL(filePath: #filePath).appending(path: "../../../postgres").standardized
        let files = try FileManager.default.contentsOfDirectory(atPath: root.path).filter { $0.hasSuffix(".sql") }
        let migrations = try files.sorted().enumerated().map { index, file in
            #expect(file.hasPrefix(String(format: "%03d_", index + 1)), "\(file)")
            return Migration(
                number: index + 1, name: String(file.dropFirst(4).dropLast(4)),
                sql: try String(contentsOf: root.appending(path: file), encoding: .utf8))
        }
        #expect(Schema.migrations == migrations, "run postgres/embed")
    }

    @Test func `migrations are applied once, whoever tries how often and at once`() async throws {
        let database = try PostgresCluster.shared().freshDatabase()
        let counts = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    var postgres = try PostgresConnection(database)
                    return try Migrations.apply(to: &postgres).count
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(counts.sorted() == [0, 0, 0, Schema.migrations.count])
    }

    @Test func `a failing step leaves nothing behind and names itself`() throws {
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase())
        let good = Migration(number: 1, name: "good", sql: "CREATE TABLE a (x int)")
        let bad = Migration(number: 2, name: "bad", sql: "CREATE TABLE b (x int); SELECT nonsense")
        let error = #expect(throws: PostgresError.self) { try Migrations.apply([good, bad], to: &postgres) }
        #expect(error?.statement == "migration 2 (bad)" && error?.sqlState == "42703")
        let tables = try postgres.query("SELECT to_regclass('a') IS NOT NULL, to_regclass('b') IS NOT NULL")
        #expect(tables.bool(0, 0) == true && tables.bool(0, 1) == false)
    }

    @Test func `a changed or an unknown step is refused`() throws {
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase())
        let first = Migration(number: 1, name: "first", sql: "CREATE TABLE a (x int)")
        try Migrations.apply([first], to: &postgres)
        let changed = Migration(number: 1, name: "first", sql: "CREATE TABLE a (x bigint)")
        #expect(throws: PostgresError.self) { try Migrations.apply([changed], to: &postgres) }
        #expect(throws: PostgresError.self) { try Migrations.apply([], to: &postgres) }
        #expect(try Migrations.apply([first], to: &postgres).isEmpty)
    }

    @Test func `every change of who is in a chat raises its version, once a statement, and nothing else does`() throws {
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase(migrated: true))
        let chats = (0..<2).map { _ in UUID.random() }
        let users = (0..<3).map { _ in UUID.random() }
        func versions() throws -> [Int64] {
            try chats.map {
                try postgres.query("SELECT meta_version FROM chats WHERE chat_id = $1", [.uuid($0)]).int(0, 0) ?? -1
            }
        }
        try postgres.query("INSERT INTO chats (chat_id, kind) SELECT unnest($1::uuid[]), 'group'", [.uuids(chats)])
        #expect(try versions() == [0, 0])
        try postgres.query(
            "INSERT INTO members (chat_id, user_id) SELECT c, u FROM unnest($1::uuid[]) c, unnest($2::uuid[]) u",
            [.uuids(chats), .uuids(users)])
        #expect(try versions() == [1, 1])
        try postgres.query(
            "UPDATE members SET role = 'admin' WHERE chat_id = $1 AND user_id = $2", [.uuid(chats[0]), .uuid(users[0])])
        #expect(try versions() == [2, 1])
        try postgres.execute("UPDATE members SET muted_until = 'infinity'; UPDATE members SET role = role")
        #expect(try versions() == [2, 1])
        try postgres.query("DELETE FROM members WHERE user_id = $1", [.uuid(users[2])])
        #expect(try versions() == [3, 2])
        try postgres.query("DELETE FROM members WHERE user_id = $1", [.uuid(users[2])])
        #expect(try versions() == [3, 2])
        try postgres.query(
            "DELETE FROM members WHERE chat_id = $1 AND user_id = $2", [.uuid(chats[1]), .uuid(users[1])])
        try postgres.query(
            "UPDATE members SET chat_id = $2 WHERE chat_id = $1 AND user_id = $3",
            [.uuid(chats[0]), .uuid(chats[1]), .uuid(users[1])])
        #expect(try versions() == [4, 4])
        try postgres.execute("TRUNCATE members")
        #expect(try versions() == [5, 5])
        // Deleting a chat takes its members along.
        try postgres.query("DELETE FROM chats WHERE chat_id = $1", [.uuid(chats[0])])
    }
}

@Suite struct MigrateCommandTests {
    @Test func `the command applies the schema and says what is wrong in one line`() throws {
        let database = try PostgresCluster.shared().freshDatabase()
        let first = try FanoutProcess.run(["db", "migrate", "--postgres", database])
        #expect(first.status == 0 && first.text.contains("applied") && first.text.contains("users_chats_members"))
        let second = try FanoutProcess.run(["db", "migrate"], environment: ["FANOUT_POSTGRES": database])
        #expect(second.status == 0 && second.text.contains("up to date"))
        let unreachable = try FanoutProcess.run(
            ["db", "migrate", "--postgres", "postgres://u:s3cret@127.0.0.1:1/x"])
        #expect(unreachable.status == 1 && unreachable.text.contains("Connection refused"))
        #expect(!unreachable.text.contains("s3cret"))
        for arguments in [["db"], ["db", "drop", "--postgres", database], ["db", "migrate"]] {
            let wrong = try FanoutProcess.run(arguments)
            #expect(wrong.status == 2, "\(arguments): \(wrong.text)")
        }
    }
}
