import PostgresClient
import PushLink
import Store
import System
import Wire

/// Which of its users are in large chats: their records name no recipients, so a session has to declare them. Everyone who
/// starts a session in the same while is asked for with one question: a storm of devices costs a few.
final class LargeChats {
    private unowned let loop: EventLoop
    private let database: Database
    private let membersMin: Int
    private var waiting: [UserID: [(Result<[ChatID], PostgresError>) -> Void]] = [:]
    private var isAsking = false
    private static let usersMax = 2000

    init(_ database: Database, on loop: EventLoop, limit: Int) {
        self.database = database
        self.loop = loop
        membersMin = limit + 1
    }

    func ask(_ user: UserID, _ body: @escaping (Result<[ChatID], PostgresError>) -> Void) {
        waiting[user, default: []].append(body)
        guard !isAsking else { return }
        isAsking = true
        loop.atTickEnd { [weak self] in self?.send() }
    }

    private func send() {
        let users = Array(waiting.keys.prefix(Self.usersMax))
        guard !users.isEmpty else {
            isAsking = false
            return
        }
        let callers = users.map { (user: $0, bodies: waiting.removeValue(forKey: $0) ?? []) }
        database.rows(Self.statement(users, membersMin: membersMin)) { [weak self] result in
            let answer = result.map { Dictionary(grouping: $0, by: \.user).mapValues { $0.map(\.chat) } }
            for caller in callers {
                for body in caller.bodies { body(answer.map { $0[caller.user] ?? [] }) }
            }
            self?.send()
        }
    }

    /// Each chat is counted once, and only as far as the limit.
    static func statement(_ users: [UserID], membersMin: Int) -> Store.Statement<(user: UserID, chat: ChatID)> {
        Store.Statement(
            "ingest.large_chats",
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
