import PostgresClient
import Wire

/// The users and chats of a run: made in the database in bulk, known by number.
struct Population: Sendable {
    /// Tells the runs' people apart.
    private let run: UInt64
    private let chats: Int
    private let membersPerChat: Int

    init(chats: Int, membersPerChat: Int, run: UInt64 = .random(in: 0 ... .max)) {
        self.run = run & ~0xf000 | 0x4000
        self.chats = chats
        self.membersPerChat = membersPerChat
    }

    func chat(_ chat: Int) -> ChatID { ChatID(UUID(high: run, low: 0x8000_0000_0000_0000 | UInt64(chat))) }

    func user(chat: Int, member: Int) -> UserID {
        UserID(UUID(high: run, low: 0x9000_0000_0000_0000 | UInt64(chat * membersPerChat + member)))
    }

    /// Inserts everybody, thousands of rows a statement.
    func make(in url: String) throws {
        var connection = try PostgresConnection(url)
        let users = (0..<chats).flatMap { chat in (0..<membersPerChat).map { user(chat: chat, member: $0) } }
        for part in users.chunks(of: 10_000) {
            _ = try connection.query(
                "INSERT INTO users (user_id, name) SELECT id, 'bench' FROM unnest($1::uuid[]) AS id", [.ids(part)])
        }
        for part in (0..<chats).map({ chat($0) }).chunks(of: 10_000) {
            _ = try connection.query(
                "INSERT INTO chats (chat_id, kind, title) SELECT id, 'group', 'bench' FROM unnest($1::uuid[]) AS id",
                [.ids(part)])
        }
        let memberships = (0..<chats).flatMap { chat in
            (0..<membersPerChat).map { (chat: self.chat(chat), user: user(chat: chat, member: $0)) }
        }
        for part in memberships.chunks(of: 10_000) {
            _ = try connection.query(
                "INSERT INTO members (chat_id, user_id) SELECT * FROM unnest($1::uuid[], $2::uuid[])",
                [.ids(part.map(\.chat)), .ids(part.map(\.user))])
        }
    }
}

extension Array {
    func chunks(of size: Int) -> [ArraySlice<Element>] {
        stride(from: 0, to: count, by: size).map { self[$0..<Swift.min($0 + size, count)] }
    }
}
