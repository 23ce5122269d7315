import PostgresClient
import PushLink
import Runtime
import Store
import System
import Wire

/// Which of its users are in large chats: their records name no recipients, so a session has to declare them. Everyone who
/// starts a session in the same while is asked for with one question: a storm of devices costs a few.
final class LargeChats {
    private unowned let loop: EventLoop
    private let database: Database
    private let membersMin: Int
    private let questions: Counter
    private var waiting: [UserID: [(Result<[ChatID], PostgresError>) -> Void]] = [:]
    private var isAsking = false
    private static let usersMax = 2000

    init(_ database: Database, on loop: EventLoop, limit: Int, questions: Counter) {
        self.database = database
        self.loop = loop
        membersMin = limit + 1
        self.questions = questions
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
        questions.add()
        database.rows(Membership.largeChats(of: users, membersMin: membersMin)) { [weak self] result in
            let answer = result.map { Dictionary(grouping: $0, by: \.user).mapValues { $0.map(\.chat) } }
            for caller in callers {
                for body in caller.bodies { body(answer.map { $0[caller.user] ?? [] }) }
            }
            self?.send()
        }
    }
}
