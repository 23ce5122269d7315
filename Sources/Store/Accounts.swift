internal import PostgresClient
public import Wire

/// Users, chats and members as the HTTP API reads and changes them.
///
/// A change of membership and the reading of the version it led to must be two statements of one transaction, in this
/// order (a batch is one): a single statement would not see what the trigger did.
public enum Accounts {
    public struct User: Sendable, Equatable {
        public let user: UserID
        public let name: String
        public let isDisabled: Bool
        public let createdAtMs: Int64
    }

    public static func user(_ user: UserID) -> Statement<User> {
        Statement(
            "accounts.user",
            "SELECT user_id, name, disabled, floor(extract(epoch FROM created_at) * 1000)::bigint FROM users WHERE user_id = $1",
            [.id(user)], readUser)
    }

    /// Makes a user, or gives an existing one this name.
    public static func putUser(_ user: UserID, name: String) -> Statement<User> {
        Statement(
            "accounts.put_user",
            """
            INSERT INTO users (user_id, name) VALUES ($1, $2)
            ON CONFLICT (user_id) DO UPDATE SET name = excluded.name
            RETURNING user_id, name, disabled, floor(extract(epoch FROM created_at) * 1000)::bigint
            """, [.id(user), .text(name)], readUser)
    }

    private static let readUser: @Sendable (borrowing PostgresResult, Int) -> User? = { row, index in
        guard let user: UserID = row.id(index, 0), let name = row.text(index, 1),
            let isDisabled = row.bool(index, 2), let createdAtMs = row.int(index, 3)
        else { return nil }
        return User(user: user, name: name, isDisabled: isDisabled, createdAtMs: createdAtMs)
    }

    /// Which of these users exist and are not disabled.
    public static func existing(_ users: [UserID]) -> Statement<UserID> {
        Statement(
            "accounts.existing", "SELECT user_id FROM users WHERE user_id = ANY($1) AND NOT disabled", [.ids(users)]
        ) { row, index in row.id(index, 0) }
    }

    // MARK: Chats

    /// Makes a chat with all its members in one statement, which costs one raise of its version: the first admin is
    /// its maker. Answers the chat's id, or for a direct chat that exists already the existing one's.
    public static func createGroup(
        _ chat: ChatID, title: String?, creator: UserID, members: [UserID], openHistory: Bool = false
    ) -> Statement<ChatID> {
        Statement(
            "accounts.create_group",
            """
            WITH chat AS (
                INSERT INTO chats (chat_id, kind, title, open_history) VALUES ($1, 'group', $2, $5)
                ON CONFLICT (chat_id) DO NOTHING RETURNING chat_id
            ), joined AS (
                INSERT INTO members (chat_id, user_id, role)
                SELECT chat.chat_id, u, CASE WHEN u = $3 THEN 'admin' ELSE 'member' END
                FROM chat, (SELECT DISTINCT u FROM unnest($4::uuid[] || $3::uuid) u) everyone
            )
            SELECT chat_id FROM chat
            """,
            [.id(chat), title.map { .text($0) } ?? .null, .id(creator), .ids(members), .bool(openHistory)]
        ) { row, index in row.id(index, 0) }
    }

    /// The direct chat of two, made if there is none. `chat` is the id to make it under. When two make it at once one
    /// fails with a unique violation (23505) and finds it on a second try.
    public static func directChat(_ chat: ChatID, _ one: UserID, _ other: UserID) -> Statement<ChatID> {
        Statement(
            "accounts.direct_chat",
            """
            WITH found AS (
                SELECT chat_id FROM direct_chats WHERE lower_user = least($2::uuid, $3::uuid)
                                                   AND upper_user = greatest($2::uuid, $3::uuid)
            ), chat AS (
                INSERT INTO chats (chat_id, kind) SELECT $1, 'direct' WHERE NOT EXISTS (SELECT FROM found)
                RETURNING chat_id
            ), pair AS (
                INSERT INTO direct_chats (lower_user, upper_user, chat_id)
                SELECT least($2::uuid, $3::uuid), greatest($2::uuid, $3::uuid), chat_id FROM chat
            ), joined AS (
                INSERT INTO members (chat_id, user_id) SELECT chat_id, u FROM chat, unnest(ARRAY[$2, $3]::uuid[]) u
            )
            SELECT chat_id FROM found UNION ALL SELECT chat_id FROM chat
            """, [.id(chat), .id(one), .id(other)]
        ) { row, index in row.id(index, 0) }
    }

    /// Its members go first, in a statement of their own: that raises the version a last time, and tells the join.
    public static func deleteChat(_ chat: ChatID) -> [Statement<Never>] {
        [
            Statement("accounts.delete_members", "DELETE FROM members WHERE chat_id = $1", [.id(chat)]),
            Statement("accounts.delete_chat", "DELETE FROM chats WHERE chat_id = $1", [.id(chat)]),
        ]
    }

    // MARK: Members

    /// Adds a member or changes the role of one.
    public static func putMember(_ user: UserID, in chat: ChatID, isAdmin: Bool) -> Statement<Never> {
        Statement(
            "accounts.put_member",
            """
            INSERT INTO members (chat_id, user_id, role) VALUES ($1, $2, $3)
            ON CONFLICT (chat_id, user_id) DO UPDATE SET role = excluded.role WHERE members.role <> excluded.role
            """, [.id(chat), .id(user), .text(isAdmin ? "admin" : "member")])
    }

    public static func removeMember(_ user: UserID, from chat: ChatID) -> Statement<Never> {
        Statement(
            "accounts.remove_member", "DELETE FROM members WHERE chat_id = $1 AND user_id = $2", [.id(chat), .id(user)])
    }
}
