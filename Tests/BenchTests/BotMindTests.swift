import TestSupport
import Testing
import Wire

@testable import Bench

private let (me, human, bot) = (
    UserID(UUID(high: 1, low: 1)), UserID(UUID(high: 1, low: 2)), UserID(UUID(high: 1, low: 3))
)
private let (group, direct) = (ChatID(UUID(high: 2, low: 1)), ChatID(UUID(high: 2, low: 2)))

@Suite struct BotMindTests {
    private func mind(_ seed: UInt64) -> BotMind {
        var mind = BotMind(user: me, others: [me, bot], seed: seed)
        mind.chats = [.init(id: group, isDirect: false), .init(id: direct, isDirect: true)]
        return mind
    }

    /// Everything that it does until a time, as a runner would let it.
    private func act(_ mind: inout BotMind, untilMs: Int64) -> [(atMs: Int64, action: BotMind.Action)] {
        var done: [(atMs: Int64, action: BotMind.Action)] = []
        while let due = mind.dueMs, due <= untilMs {
            while let action = mind.next(nowMs: due) { done.append((due, action)) }
            mind.idle(nowMs: due)
        }
        return done
    }

    @Test func `a person in a direct chat is read and answered, and sees the answer being typed`() throws {
        for seed: UInt64 in 0..<50 {
            var mind = mind(seed)
            mind.heard(direct, from: human, seq: 7, nowMs: 1000)
            let done = act(&mind, untilMs: 20_000)
            #expect(done[0].action == .delivered(direct, seq: 7) && done[1].action == .read(direct, seq: 7))
            let typing = try #require(done.first { $0.action == .typing(direct) })
            let sent = try #require(
                done.first { if case .send(direct, _) = $0.action { true } else { false } }, "seed \(seed)")
            #expect(typing.atMs > done[1].atMs && sent.atMs > typing.atMs)
        }
    }

    @Test func `left alone it begins something from time to time, far below the rate limit`() {
        var generator = SeededGenerator.announced("a bot left alone")
        var mind = mind(generator.next())
        mind.idle(nowMs: 0)
        let sent = act(&mind, untilMs: 600_000).filter { if case .send = $0.action { true } else { false } }
        #expect((20...120).contains(sent.count), "\(sent.count) in ten minutes")
        for (before, after) in zip(sent, sent.dropFirst()) { #expect(after.atMs - before.atMs > 1000) }
    }

    @Test func `bots that hear each other do not talk themselves into a storm`() {
        var generator = SeededGenerator.announced("bots that hear each other")
        var minds = [me, bot, human].map { BotMind(user: $0, others: [me, bot, human], seed: generator.next()) }
        for index in minds.indices {
            minds[index].chats = [.init(id: group, isDirect: false)]
            minds[index].idle(nowMs: 0)
        }
        var (seq, nowMs): (Int64, Int64) = (0, 0)
        while let due = minds.compactMap(\.dueMs).min(), due < 600_000 {
            nowMs = due
            for index in minds.indices {
                while let action = minds[index].next(nowMs: nowMs) {
                    guard case .send = action else { continue }
                    seq += 1
                    for other in minds.indices where other != index {
                        minds[other].heard(group, from: minds[index].user, seq: seq, nowMs: nowMs)
                    }
                }
                minds[index].idle(nowMs: nowMs)
            }
        }
        #expect((60...600).contains(seq), "\(seq) messages in ten minutes")
    }

    @Test func `what was to be said when the connection broke is not said later`() {
        var mind = mind(1)
        mind.heard(direct, from: human, seq: 7, nowMs: 0)
        mind.forget()
        #expect(mind.dueMs == nil)
        mind.heard(ChatID(UUID(high: 9, low: 9)), from: human, seq: 1, nowMs: 0)
        #expect(mind.dueMs == nil, "a chat that it does not know concerns it not")
    }
}
