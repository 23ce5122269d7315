import Delivery
import Testing
import Wire

struct PushCoalescerTests {
    @Test func `makes one record of what comes for a user and chat within a moment`() {
        var push = PushCoalescer(windowMs: 1_000)
        push.add(user: user(1), chat: chat(1), partition: 0, offset: 5, event: [1], nowMs: 0)
        push.add(user: user(1), chat: chat(1), partition: 0, offset: 6, event: [2], nowMs: 500)
        push.add(user: user(1), chat: chat(2), partition: 0, offset: 7, event: [3], nowMs: 600)
        #expect(push.take(nowMs: 999, limit: 10).isEmpty)
        let first = push.take(nowMs: 1_000, limit: 10)
        #expect(
            first.map(\.entry.count) == [2] && first.map(\.entry.last) == [[2]] && first.map(\.entry.newestMs) == [500]
                && first.map(\.offset) == [5])
        var pending: [Int64] = []
        push.forEachPending { pending.append($1) }
        #expect(pending == [7])
        #expect(push.take(nowMs: 1_600, limit: 10).map(\.entry.chat) == [chat(2)])
        #expect(push.count == 0)
    }

    @Test func `hands over early what is too much to keep`() {
        var push = PushCoalescer(windowMs: 1_000, entriesMax: 10)
        for number in 0..<15 {
            push.add(user: user(number), chat: chat(1), partition: 0, offset: Int64(number), event: [], nowMs: 0)
        }
        #expect(push.take(nowMs: 1, limit: 100).map(\.entry.user) == (0..<5).map { user($0) })
        #expect(push.count == 10)
    }

    @Test func `holds what is due where it is not known who is away, and forgets those who turn out to be here`() {
        var push = PushCoalescer(windowMs: 10)
        for number in 0..<4 {
            push.add(
                user: user(number), chat: chat(1), partition: Int32(number % 2), offset: 5, event: [], nowMs: 0)
        }
        func take(holding uncertain: Set<Int32>) -> [UserID] {
            push.take(nowMs: 10, limit: 10, holding: uncertain) { who, _ in who == user(2) }.map(\.entry.user)
        }
        #expect(take(holding: [0]) == [user(1), user(3)])
        #expect(push.heldCount == 2 && push.count == 2)
        // More for one who is held is one record with what waits.
        push.add(user: user(0), chat: chat(1), partition: 0, offset: 9, event: [], nowMs: 10)
        #expect(take(holding: [0]).isEmpty)
        #expect(take(holding: []) == [user(0)])
        #expect(push.count == 0 && push.heldCount == 0)
    }

    @Test func `forgets a partition that is no longer ours`() {
        var push = PushCoalescer(windowMs: 10)
        push.add(user: user(1), chat: chat(1), partition: 0, offset: 5, event: [], nowMs: 0)
        push.add(user: user(2), chat: chat(1), partition: 1, offset: 6, event: [], nowMs: 0)
        push.remove(partition: 0)
        #expect(push.take(nowMs: 10, limit: 10).map(\.entry.user) == [user(2)])
    }
}
