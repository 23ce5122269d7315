import PostgresClient
import Store
import Wire

/// One conversation with its members.
enum ChatDetails {
    struct Member: Sendable {
        let user: UserID
        let name: String
        let isAdmin: Bool
        let readSeq: Int64?
        let deliveredSeq: Int64?

        func write(to json: inout JSONWriter) {
            json.object {
                $0.field("user", user)
                $0.field("name", name)
                $0.field("role", isAdmin ? "admin" : "member")
                if let readSeq { $0.field("read_seq", readSeq) } else { $0.nullField("read_seq") }
                if let deliveredSeq { $0.field("delivered_seq", deliveredSeq) }
            }
        }
    }

    static func members(of chat: ChatID) -> Store.Statement<Member> {
        Store.Statement(
            "ingest.members",
            """
            SELECT m.user_id, coalesce(u.name, ''), m.role = 'admin', r.read_seq, r.delivered_seq
            FROM (SELECT * FROM members WHERE chat_id = $1 ORDER BY user_id LIMIT 256) m
            LEFT JOIN users u USING (user_id)
            LEFT JOIN read_state r ON r.user_id = m.user_id AND r.chat_id = $1
            ORDER BY m.user_id
            """, [.id(chat)]
        ) { row, index in
            guard let user: UserID = row.id(index, 0), let name = row.text(index, 1),
                let isAdmin = row.bool(index, 2)
            else { return nil }
            return Member(
                user: user, name: name, isAdmin: isAdmin, readSeq: row.int(index, 3), deliveredSeq: row.int(index, 4))
        }
    }
}
