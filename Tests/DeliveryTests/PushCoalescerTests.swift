import Delivery
import Testing

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

    @Test func `forgets a partition that is no longer ours`() {
        var push = PushCoalescer(windowMs: 10)
        push.add(user: user(1), chat: chat(1), partition: 0, offset: 5, event: [], nowMs: 0)
        push.add(user: user(2), chat: chat(1), partition: 1, offset: 6, event: [], nowMs: 0)
        push.remove(partition: 0)
        #expect(push.take(nowMs: 10, limit: 10).map(\.entry.user) == [user(2)])
    }
}
