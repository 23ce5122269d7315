internal import PostgresClient
public import Wire

/// One chat's members, read when a stage cannot wait for the log: by the join when its table is behind, and by the chat
/// server once a session and chat.
public enum Membership {
    public struct Member: Sendable, Equatable {
        public let user: UserID
        public let isAdmin: Bool

        public init(user: UserID, isAdmin: Bool) {
            self.user = user
            self.isAdmin = isAdmin
        }
    }

    /// Where one user stands in one chat.
    public struct Standing: Sendable, Equatable {
        public let isAdmin: Bool
        public let isDirect: Bool
        public let metaVersion: Int64
        /// Messages before this are not theirs to read; 0 in a chat with open history.
        public let readableFromMs: Int64
        public let memberCount: Int
    }

    /// A chat, and what a user is in it, if anything: for calls that change it.
    public struct Place: Sendable, Equatable {
        public let isMember: Bool
        public let isAdmin: Bool
        public let isDirect: Bool
        public let title: String?
        public let metaVersion: Int64
        public let memberCount: Int
    }

    /// No row when there is no such chat.
    public static func place(of user: UserID, in chat: ChatID) -> Statement<Place> {
        Statement(
            "membership.place",
            """
            SELECT m.user_id IS NOT NULL, m.role IS NOT DISTINCT FROM 'admin', c.kind = 'direct', c.title, c.meta_version,
                   (SELECT count(*) FROM members WHERE chat_id = $1)
            FROM chats c LEFT JOIN members m ON m.chat_id = c.chat_id AND m.user_id = $2
            WHERE c.chat_id = $1
            """, [.id(chat), .id(user)]
        ) { row, index in
            guard let isMember = row.bool(index, 0), let isAdmin = row.bool(index, 1),
                let isDirect = row.bool(index, 2),
                let metaVersion = row.int(index, 4), let memberCount = row.int(index, 5)
            else { return nil }
            return Place(
                isMember: isMember, isAdmin: isAdmin, isDirect: isDirect, title: row.text(index, 3),
                metaVersion: metaVersion, memberCount: Int(memberCount))
        }
    }

    /// All members of a chat, in the order of their ids.
    public static func members(of chat: ChatID) -> Statement<Member> {
        Statement(
            "membership.members",
            "SELECT user_id, role = 'admin' FROM members WHERE chat_id = $1 ORDER BY user_id", [.id(chat)]
        ) { row, index in
            guard let user: UserID = row.id(index, 0), let isAdmin = row.bool(index, 1) else { return nil }
            return Member(user: user, isAdmin: isAdmin)
        }
    }

    /// A chat's membership version; no row when there is no such chat. Read it before `members`: then the members are
    /// at least of that version.
    public static func version(of chat: ChatID) -> Statement<Int64> {
        Statement("membership.version", "SELECT meta_version FROM chats WHERE chat_id = $1", [.id(chat)]) {
            row, index in row.int(index, 0)
        }
    }

    /// No row when the user is not in the chat, or there is no such chat: who asks cannot tell which.
    public static func standing(of user: UserID, in chat: ChatID) -> Statement<Standing> {
        Statement(
            "membership.standing",
            """
            SELECT m.role = 'admin', c.kind = 'direct', c.meta_version,
                   CASE WHEN c.open_history THEN 0
                        ELSE floor(extract(epoch FROM m.joined_at) * 1000)::bigint END,
                   (SELECT count(*) FROM members WHERE chat_id = $1)
            FROM members m JOIN chats c USING (chat_id)
            WHERE m.chat_id = $1 AND m.user_id = $2
            """, [.id(chat), .id(user)]
        ) { row, index in
            guard let isAdmin = row.bool(index, 0), let isDirect = row.bool(index, 1),
                let metaVersion = row.int(index, 2), let readableFromMs = row.int(index, 3),
                let memberCount = row.int(index, 4)
            else { return nil }
            return Standing(
                isAdmin: isAdmin, isDirect: isDirect, metaVersion: metaVersion, readableFromMs: readableFromMs,
                memberCount: Int(memberCount))
        }
    }

    /// Which of these users' chats have at least so many members: what a session declares to Delivery. Each chat is counted
    /// once, and only as far as the limit.
    public static func largeChats(
        of users: [UserID], membersMin: Int
    ) -> Statement<(user: UserID, chat: ChatID)> {
        Statement(
            "membership.large_chats",
            """
            WITH mine AS (SELECT user_id, chat_id FROM members WHERE user_id = ANY ($1)),
            large AS (
                SELECT chat_id FROM (SELECT DISTINCT chat_id FROM mine) theirs
                WHERE (SELECT count(*) FROM (
                           SELECT FROM members other WHERE other.chat_id = theirs.chat_id LIMIT $2) few) >= $2
            )
            SELECT user_id, chat_id FROM mine JOIN large USING (chat_id)
            """, [.ids(users), .int(Int64(membersMin))]
        ) { row, index in
            guard let user: UserID = row.id(index, 0), let chat: ChatID = row.id(index, 1) else { return nil }
            return (user, chat)
        }
    }
}
