import Wire

/// What a demo person does and when: reads what others write, answers some of it, types before it sends, and begins
/// something of its own when it has been quiet for a while. Pure; time and chance come from outside.
struct BotMind {
    enum Action: Equatable {
        case delivered(ChatID, seq: Int64)
        case read(ChatID, seq: Int64)
        case typing(ChatID)
        case send(ChatID, text: String)
    }

    struct Chat: Equatable {
        let id: ChatID
        let isDirect: Bool
    }

    /// A client shows typing for about five seconds, so it is told again before that.
    private static let typingEveryMs: Int64 = 3000
    private static let msPerCharacter: Int64 = 70

    let user: UserID
    /// Those who talk by themselves: they do not answer each other for ever.
    private let others: Set<UserID>
    var chats: [Chat] = []
    private var plans: [(atMs: Int64, action: Action)] = []
    /// One thing at a time, as people write.
    private var isSpeaking = false
    private var generator: SplitMix

    init(user: UserID, others: Set<UserID>, seed: UInt64) {
        self.user = user
        self.others = others
        generator = SplitMix(seed: seed)
    }

    /// When it wants to be asked for `next`.
    var dueMs: Int64? { plans.first?.atMs }

    mutating func heard(_ chat: ChatID, from: UserID, seq: Int64, nowMs: Int64) {
        guard from != user, let known = chats.first(where: { $0.id == chat }) else { return }
        // What is newer covers what was to be marked before.
        plans.removeAll { plan in
            switch plan.action {
            case .delivered(chat, _), .read(chat, _): true
            default: false
            }
        }
        plan(nowMs + 300, .delivered(chat, seq: seq))
        let readMs = nowMs + .random(in: 800...3000, using: &generator)
        plan(readMs, .read(chat, seq: seq))
        guard !isSpeaking else { return }
        let isBot = others.contains(from)
        let chance = known.isDirect && !isBot ? 10 : isBot ? 3 : 6
        guard Int.random(in: 0..<10, using: &generator) < chance else { return }
        speak(in: chat, Phrases.answers, fromMs: readMs + .random(in: 300...1500, using: &generator))
    }

    /// Says something of its own in a while, unless it has something to say already.
    mutating func idle(nowMs: Int64) {
        guard !isSpeaking, !chats.isEmpty else { return }
        // Most of what a group of friends says is said to all of them.
        let groups = chats.filter { !$0.isDirect }
        let isToGroup = !groups.isEmpty && Int.random(in: 0..<4, using: &generator) > 0
        guard let chat = (isToGroup ? groups : chats).randomElement(using: &generator) else { return }
        speak(in: chat.id, Phrases.openers, fromMs: nowMs + .random(in: 5000...20_000, using: &generator))
    }

    private mutating func speak(in chat: ChatID, _ phrases: [String], fromMs: Int64) {
        guard let text = phrases.randomElement(using: &generator) else { return }
        isSpeaking = true
        let sendMs = fromMs + 600 + Int64(text.count) * Self.msPerCharacter
        var atMs = fromMs
        while atMs < sendMs {
            plan(atMs, .typing(chat))
            atMs += Self.typingEveryMs
        }
        plan(sendMs, .send(chat, text: text))
    }

    private mutating func plan(_ atMs: Int64, _ action: Action) {
        let index = plans.firstIndex { $0.atMs > atMs } ?? plans.count
        plans.insert((atMs, action), at: index)
    }

    /// What is due, one thing at a time.
    mutating func next(nowMs: Int64) -> Action? {
        guard let first = plans.first, first.atMs <= nowMs else { return nil }
        plans.removeFirst()
        if case .send = first.action { isSpeaking = false }
        return first.action
    }

    /// The connection is gone: what was to be said now would come out of nowhere later.
    mutating func forget() {
        plans = []
        isSpeaking = false
    }
}
