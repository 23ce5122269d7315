import Push
import TestSupport
import Testing
import Wire

private let ada = UserID(UUID(high: 1, low: 1))
private let bob = UserID(UUID(high: 1, low: 2))
private let chatA = ChatID(UUID(high: 2, low: 1))
private let chatB = ChatID(UUID(high: 2, low: 2))

extension Coalescer {
    fileprivate mutating func add(
        _ user: UserID, _ chat: ChatID, offset: Int64, seq: Int64, at nowMs: Int64, mention: Bool = false
    ) {
        add(
            user: user, chat: chat, count: 1, last: Array("{\"seq\":\(seq)}".utf8), lastSeq: seq, isMention: mention,
            record: RecordPosition(partition: 0, offset: offset), nowMs: nowMs)
    }
}

@Suite struct CoalescerTests {
    @Test func `ten messages within the window are one notice with the newest text`() {
        var coalescer = Coalescer()
        for index in 0..<10 as Range<Int64> { coalescer.add(ada, chatA, offset: index, seq: index, at: index * 100) }
        do {
            let got = coalescer.take(nowMs: 4999, limit: 10)
            #expect(got.isEmpty)
        }
        let notices = coalescer.take(nowMs: 5000, limit: 10)
        #expect(notices.count == 1)
        #expect(notices[0].count == 10)
        #expect(notices[0].chats[0].last == Array("{\"seq\":9}".utf8))
        #expect(notices[0].records.count == 10)
    }

    @Test func `a person is told at most once each thirty seconds, unless mentioned`() {
        var coalescer = Coalescer()
        coalescer.add(ada, chatA, offset: 0, seq: 0, at: 0)
        do {
            let got = coalescer.take(nowMs: 5000, limit: 1)
            #expect(got.count == 1)
        }
        coalescer.finish(ada, wasTold: true, nowMs: 5000)
        coalescer.add(ada, chatA, offset: 1, seq: 1, at: 6000)
        do {
            let got = coalescer.take(nowMs: 34_999, limit: 1)
            #expect(got.isEmpty)
        }
        coalescer.add(ada, chatB, offset: 2, seq: 5, at: 20_000, mention: true)
        let notices = coalescer.take(nowMs: 25_000, limit: 1)
        #expect(notices.first?.chats.count == 2)
        coalescer.finish(ada, wasTold: true, nowMs: 25_000)
        coalescer.add(ada, chatA, offset: 3, seq: 6, at: 26_000)
        do {
            let got = coalescer.take(nowMs: 54_999, limit: 1)
            #expect(got.isEmpty)
        }
        do {
            let got = coalescer.take(nowMs: 55_000, limit: 1)
            #expect(got.count == 1)
        }
    }

    @Test func `one notice of a person is under way at a time, so they arrive in order`() {
        var coalescer = Coalescer()
        coalescer.add(ada, chatA, offset: 0, seq: 0, at: 0)
        do {
            let got = coalescer.take(nowMs: 5000, limit: 9)
            #expect(got.count == 1)
        }
        coalescer.add(ada, chatA, offset: 1, seq: 1, at: 5000)
        do {
            let got = coalescer.take(nowMs: 60_000, limit: 9)
            #expect(got.isEmpty)
        }
        coalescer.finish(ada, wasTold: false, nowMs: 60_000)
        do {
            let got = coalescer.take(nowMs: 60_000, limit: 9)
            #expect(got.count == 1)
        }
    }

    @Test func `whoever comes online or reads is not told`() {
        var coalescer = Coalescer()
        coalescer.add(ada, chatA, offset: 0, seq: 7, at: 0)
        coalescer.add(ada, chatB, offset: 1, seq: 8, at: 0)
        coalescer.add(bob, chatA, offset: 2, seq: 7, at: 0)
        do {
            let got = coalescer.read(ada, chat: chatA, seq: 6)
            #expect(got.isEmpty)
        }
        do {
            let got = coalescer.read(ada, chat: chatA, seq: 7)
            #expect(got == [RecordPosition(partition: 0, offset: 0)])
        }
        do {
            let got = coalescer.cancel(bob)
            #expect(got == [RecordPosition(partition: 0, offset: 2)])
        }
        let notices = coalescer.take(nowMs: 5000, limit: 9)
        #expect(notices.map(\.user) == [ada] && notices[0].chats.map(\.chat) == [chatB])
    }

    @Test func `a repeat after a crash has the same name`() {
        var first = Coalescer()
        first.add(ada, chatA, offset: 4, seq: 0, at: 0)
        first.add(ada, chatB, offset: 6, seq: 0, at: 10)
        var second = Coalescer()
        second.add(ada, chatA, offset: 4, seq: 0, at: 99)
        second.add(ada, chatB, offset: 6, seq: 0, at: 99)
        let names = [
            first.take(nowMs: 9000, limit: 1)[0].idempotencyKey, second.take(nowMs: 9000, limit: 1)[0].idempotencyKey,
        ]
        #expect(names[0] == names[1])
    }

    /// Every record is settled exactly once, whatever happens in whatever order, and only then committed.
    @Test func `no record is lost or settled twice`() {
        var generator = SeededGenerator.announced("coalescer")
        for _ in 0..<200 {
            var coalescer = Coalescer()
            var tracker = CommitTracker()
            var settled: [RecordPosition: Int] = [:]
            var underWay: [Notice] = []
            var committed: [Int32: Int64] = [:]
            var nowMs: Int64 = 0
            var next: [Int32: Int64] = [0: 0, 1: 100]
            func settle(_ records: [RecordPosition]) {
                for record in records {
                    settled[record, default: 0] += 1
                    tracker.settle(record)
                }
            }
            for _ in 0..<200 {
                nowMs += .random(in: 0...2000, using: &generator)
                let user = Bool.random(using: &generator) ? ada : bob
                switch Int.random(in: 0..<6, using: &generator) {
                case 0...2:
                    let partition = Int32.random(in: 0...1, using: &generator)
                    let offset = (next[partition] ?? 0) + Int64.random(in: 0...2, using: &generator)
                    next[partition] = offset + 1
                    let record = RecordPosition(partition: partition, offset: offset)
                    tracker.begin(record)
                    settled[record] = 0
                    coalescer.add(
                        user: user, chat: Bool.random(using: &generator) ? chatA : chatB, count: 1, last: [],
                        lastSeq: offset, isMention: .random(using: &generator), record: record, nowMs: nowMs)
                case 3: settle(coalescer.cancel(user))
                case 4: settle(coalescer.read(user, chat: chatA, seq: .random(in: 0...200, using: &generator)))
                default:
                    if let notice = underWay.popLast() {
                        settle(notice.records)
                        coalescer.finish(notice.user, wasTold: .random(using: &generator), nowMs: nowMs)
                    }
                    underWay += coalescer.take(nowMs: nowMs, limit: 2)
                }
                for (partition, offset) in tracker.takeCommittable() {
                    committed[partition] = offset
                    let open = settled.filter {
                        $0.key.partition == partition && $0.key.offset < offset && $0.value == 0
                    }
                    #expect(open.isEmpty, "committed \(offset) over \(open)")
                }
            }
            nowMs += 1_000_000
            for _ in 0..<10 {
                for notice in underWay {
                    settle(notice.records)
                    coalescer.finish(notice.user, wasTold: false, nowMs: nowMs)
                }
                underWay = coalescer.take(nowMs: nowMs, limit: 9)
                nowMs += 100_000
            }
            #expect(settled.values.allSatisfy { $0 == 1 })
            #expect(coalescer.count == 0)
        }
    }
}

@Suite struct SendingTests {
    @Test func `retries grow with jitter, honour Retry-After, and end`() {
        let policy = RetryPolicy()
        #expect(policy.verdict(attempt: 1, .status(204, retryAfterMs: nil), chance: 0) == .told)
        #expect(policy.verdict(attempt: 1, .status(503, retryAfterMs: nil), chance: 0) == .retry(afterMs: 250))
        #expect(policy.verdict(attempt: 3, .noAnswer("refused"), chance: 1) == .retry(afterMs: 2000))
        #expect(policy.verdict(attempt: 1, .status(429, retryAfterMs: 9000), chance: 0) == .retry(afterMs: 9000))
        #expect(policy.verdict(attempt: 1, .status(400, retryAfterMs: nil), chance: 0) == .dead(reason: "HTTP 400"))
        #expect(policy.verdict(attempt: 1, .status(302, retryAfterMs: nil), chance: 0) == .dead(reason: "HTTP 302"))
        #expect(
            policy.verdict(attempt: 8, .noAnswer("refused"), chance: 0) == .dead(reason: "refused, 8 attempts"))
    }

    @Test func `a receiver that is gone is left alone, and one probe finds it back`() {
        var breaker = CircuitBreaker()
        func mayCall(_ nowMs: Int64) -> Bool { breaker.mayCall(nowMs: nowMs) }
        for _ in 0..<19 { breaker.failed(nowMs: 0) }
        #expect(mayCall(0))
        breaker.failed(nowMs: 0)
        #expect(!mayCall(4999))
        #expect(mayCall(5000))
        #expect(!mayCall(5000), "one probe at a time")
        breaker.failed(nowMs: 5000)
        #expect(!mayCall(14_999))
        #expect(mayCall(15_000))
        breaker.answered()
        #expect(mayCall(15_000))
        #expect(mayCall(15_000))
    }
}
