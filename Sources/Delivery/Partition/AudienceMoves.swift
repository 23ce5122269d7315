import PushLink
import Runtime
public import Wire

/// A large chat and when a user was in it, as offsets of the user's partition: who comes back gets what was said there
/// while they were in it, and nothing else.
public struct ChatStay: Equatable, Sendable {
    /// The records after the first offset, through the second.
    struct Span: Equatable, Sendable {
        let after: Int64
        let through: Int64
    }

    let chat: ChatID
    let spans: [Span]

    /// In it all the time.
    public init(_ chat: ChatID) {
        self.init(chat, [Span(after: -1, through: .max)])
    }

    init(_ chat: ChatID, _ spans: [Span]) {
        self.chat = chat
        self.spans = spans
    }

    func contains(_ offset: Int64) -> Bool { spans.contains { offset > $0.after && offset <= $0.through } }
}

/// What the log has lately told of who enters and who leaves which large chat.
///
/// A session declares the large chats that Postgres knew its user to be in a moment ago, or longer ago when it has waited for
/// an owner. Meanwhile the log may have told of a change, to sessions that were registered then. So what the log has told
/// stands above what is declared: a declaration never knows more than the log has told or is about to tell.
struct AudienceMoves {
    private struct Move {
        let chat: ChatID
        let isMember: Bool
        let offset: Int64
    }

    /// Each user's, in the order of the log.
    private var moves: [Int: [Move]] = [:]
    private var order = Ring<(user: Int, offset: Int64, atMs: Int64)>()

    /// Beyond this the oldest are forgotten: many times what happens between a question to Postgres and a registration.
    static let countMax = 50_000

    mutating func add(_ user: Int, _ chat: ChatID, isMember: Bool, at place: Cursor) {
        moves[user, default: []].append(Move(chat: chat, isMember: isMember, offset: place.offset))
        order.append((user, place.offset, place.timestamp))
        if order.count > Self.countMax { forgetFirst() }
    }

    mutating func trim(before ms: Int64) {
        while !order.isEmpty, order[order.start].atMs < ms { forgetFirst() }
    }

    private mutating func forgetFirst() {
        let user = order.removeFirst().user
        // Both are in the order of the log, so the user's first is the one that leaves.
        moves[user]?.removeFirst()
        if moves[user]?.isEmpty == true { moves[user] = nil }
    }

    /// The chats that a user is in who has declared these.
    func apply(to declared: [ChatID], of user: Int) -> [ChatID] {
        guard let moves = moves[user] else { return declared }
        var chats = declared
        for move in moves {
            if !move.isMember {
                chats.removeAll { $0 == move.chat }
            } else if !chats.contains(move.chat) {
                chats.append(move.chat)
            }
        }
        return chats
    }

    /// The same with when, for a user who is in these now.
    func stays(of user: Int, now: [ChatID]) -> [ChatStay] {
        guard let moves = moves[user] else { return now.map { ChatStay($0) } }
        var chats = now
        for move in moves where !chats.contains(move.chat) { chats.append(move.chat) }
        return chats.map { chat in
            var spans: [ChatStay.Span] = []
            // Backwards from now: up to where the user was in it, as far as is known yet.
            var through: Int64? = now.contains(chat) ? .max : nil
            for move in moves.reversed() where move.chat == chat {
                if move.isMember, let last = through { spans.append(.init(after: move.offset, through: last)) }
                through = move.isMember ? nil : move.offset
            }
            if let through { spans.append(.init(after: -1, through: through)) }
            return ChatStay(chat, spans)
        }
    }
}
