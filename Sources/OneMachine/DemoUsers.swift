import PostgresClient
import System
import Wire

/// People to try Fanout with: made on the first start, with chats between them and tokens that are good for a week.
struct DemoUsers {
    struct User {
        let id: UserID
        let name: String
        let token: String
    }

    let users: [User]

    /// Fixed ids, so that bookmarks and scripts survive a new data directory.
    private static let people = ["Ada", "Grace", "Edsger", "Barbara"].enumerated().map { index, name in
        (id: UserID(UUID(high: 0xfa00_0000_0000_4000, low: 0x8000_0000_0000_0001 + UInt64(index))), name: name)
    }

    static func load(pipeline: Pipeline, directory: String) throws -> DemoUsers {
        try fill(pipeline.postgresURL)
        let users = try people.map { person in
            let token = try pipeline.runToEnd(["token", "--user", person.id.description, "--expires", "7d"])
            return User(id: person.id, name: person.name, token: token.filter { !$0.isWhitespace })
        }
        var json = JSONWriter()
        json.array { json in
            for user in users {
                json.object {
                    $0.field("user", user.id)
                    $0.field("name", user.name)
                    $0.field("token", user.token)
                }
            }
        }
        try File.replaceAtomically(pipeline.demoUsersFile, with: json.bytes, permissions: 0o600)
        return DemoUsers(users: users)
    }

    /// Everybody with everybody, and one group; in a database that has users already only they are missing, if at all.
    private static func fill(_ url: String) throws {
        var connection = try PostgresConnection(url)
        try connection.transaction { connection throws(PostgresError) in
            for person in people {
                _ = try connection.query(
                    "INSERT INTO users (user_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    [.id(person.id), .text(person.name)])
            }
            let group = ChatID(UUID(high: 0xfa00_0000_0000_4000, low: 0x8000_0000_0000_1000))
            try chat(group, "group", "Pioneers", people.map(\.id), &connection)
            for (i, first) in people.enumerated() {
                for (j, second) in people.enumerated() where j > i {
                    let id = ChatID(UUID(high: 0xfa00_0000_0000_4000, low: 0x8000_0000_0000_2000 + UInt64(i * 16 + j)))
                    try chat(id, "direct", nil, [first.id, second.id], &connection)
                }
            }
        }
    }

    private static func chat(
        _ id: ChatID, _ kind: String, _ title: String?, _ members: [UserID], _ connection: inout PostgresConnection
    ) throws(PostgresError) {
        let made = try connection.query(
            "INSERT INTO chats (chat_id, kind, title) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            [.id(id), .text(kind), title.map { .text($0) } ?? .null])
        guard made.affectedRows == 1 else { return }
        for (index, user) in members.enumerated() {
            _ = try connection.query(
                "INSERT INTO members (chat_id, user_id, role) VALUES ($1, $2, $3)",
                [.id(id), .id(user), .text(index == 0 && kind == "group" ? "admin" : "member")])
        }
        guard kind == "direct" else { return }
        // Whoever asks for a chat with the same person gets this one.
        _ = try connection.query(
            """
            INSERT INTO direct_chats (lower_user, upper_user, chat_id)
            VALUES (least($1::uuid, $2::uuid), greatest($1::uuid, $2::uuid), $3)
            """, [.id(members[0]), .id(members[1]), .id(id)])
    }
}
