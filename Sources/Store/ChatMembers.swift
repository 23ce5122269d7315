internal import PostgresClient
public import Wire

/// The members of one conversation as its other members see them: with their names, and how far they have read.
public enum ChatMembers {
    /// Of a larger chat only so many are shown.
    public static let shownMax = 256

    public struct Member: Sendable, Equatable {
        public let user: UserID
        public let name: String
        public let isAdmin: Bool
        public let readSeq: Int64?
        public let deliveredSeq: Int64?
    }

    public static func of(_ chat: ChatID) -> Statement<Member> {
        Statement(
            "chat_members",
            """
            SELECT m.user_id, coalesce(u.name, ''), m.role = 'admin', r.read_seq, r.delivered_seq
            FROM (SELECT * FROM members WHERE chat_id = $1 ORDER BY user_id LIMIT \(shownMax)) m
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
