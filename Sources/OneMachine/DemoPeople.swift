import PostgresClient
import Wire

/// People to try Fanout with, and the chats between them. Their ids are fixed, so that bookmarks and scripts survive a new
/// data directory.
enum DemoPeople {
    static let all = ["Ada", "Grace", "Edsger", "Barbara"].enumerated().map { index, name in
        (id: UserID(uuid(0x1 + UInt64(index))), name: name)
    }

    /// Whose token the operations page takes. Nobody in a chat.
    static let operatorID = UserID(uuid(0))

    private static func uuid(_ number: UInt64) -> UUID {
        UUID(high: 0xfa00_0000_0000_4000, low: 0x8000_0000_0000_0000 + number)
    }

    /// Everybody with everybody, and one group. Once in a database's life: what has been deleted since stays so.
    static func make(in url: String) throws {
        var connection = try PostgresConnection(url)
        try connection.transaction { connection throws(PostgresError) in
            let known = try connection.query(
                "SELECT 1 FROM users WHERE user_id = ANY($1) LIMIT 1", [.ids(all.map(\.id))])
            guard known.isEmpty else { return }
            for person in all {
                _ = try connection.query(
                    "INSERT INTO users (user_id, name) VALUES ($1, $2)", [.id(person.id), .text(person.name)])
            }
            try chat(ChatID(uuid(0x1000)), "group", "Pioneers", all.map(\.id), &connection)
            for (i, first) in all.enumerated() {
                for (j, second) in all.enumerated() where j > i {
                    let id = ChatID(uuid(0x2000 + UInt64(i * 16 + j)))
                    try chat(id, "direct", nil, [first.id, second.id], &connection)
                }
            }
        }
    }

    private static func chat(
        _ id: ChatID, _ kind: String, _ title: String?, _ members: [UserID], _ connection: inout PostgresConnection
    ) throws(PostgresError) {
        _ = try connection.query(
            "INSERT INTO chats (chat_id, kind, title) VALUES ($1, $2, $3)",
            [.id(id), .text(kind), title.map { .text($0) } ?? .null])
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
