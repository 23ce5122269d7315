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
        _ user: UserID, _ chat: ChatID, offset: Int64, seq: Int64, at nowMs: Int64, mention: Bool = false,
        partition: Int32 = 0
    ) {
        add(
            Notice.ChatPart(
                chat: chat, count: 1, last: Array("{\"seq\":\(seq)}".utf8), lastSeq: seq, newestMs: nowMs,
                isMention: mention, record: RecordPosition(partition: partition, offset: offset)),
            for: user, nowMs: nowMs)
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

    @Test func `what waits on purpose is not overdue, what is due and not taken is, since it was due`() {
        var coalescer = Coalescer()
        #expect(coalescer.overdueSinceMs(nowMs: 1000) == nil)
        coalescer.add(ada, chatA, offset: 1, seq: 1, at: 1000)
        #expect(coalescer.overdueSinceMs(nowMs: 5999) == nil)
        #expect(coalescer.overdueSinceMs(nowMs: 60_000) == 6000)
        let taken = coalescer.take(nowMs: 60_000, limit: 1)
        #expect(taken.count == 1 && coalescer.overdueSinceMs(nowMs: 60_000) == nil, "it is on its way")
        coalescer.finish(ada, wasTold: true, nowMs: 60_000)
        coalescer.add(ada, chatA, offset: 2, seq: 2, at: 61_000)
        #expect(coalescer.overdueSinceMs(nowMs: 89_000) == nil, "they are left alone for thirty seconds")
        #expect(coalescer.overdueSinceMs(nowMs: 95_000) == 90_000)
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
            let got = coalescer.cancel(bob, seenMs: 1)
            #expect(got == [RecordPosition(partition: 0, offset: 2)])
        }
        let notices = coalescer.take(nowMs: 5000, limit: 9)
        #expect(notices.map(\.user) == [ada] && notices[0].chats.map(\.chat) == [chatB])
    }

    @Test func `old presence cancels nothing: only who was seen after a message has it`() {
        var coalescer = Coalescer()
        coalescer.add(ada, chatA, offset: 0, seq: 1, at: 1000)
        coalescer.add(ada, chatB, offset: 1, seq: 2, at: 3000)
        do {
            let got = coalescer.cancel(ada, seenMs: 1000)
            #expect(got.isEmpty, "seen when the message came, and perhaps gone just before")
        }
        do {
            let got = coalescer.cancel(ada, seenMs: 2000)
            #expect(got == [RecordPosition(partition: 0, offset: 0)])
        }
        let notices = coalescer.take(nowMs: 9000, limit: 1)
        #expect(notices.map { $0.chats.map(\.chat) } == [[chatB]])
    }

    @Test func `a mention that comes while a notice is under way does not wait out the quiet time`() {
        var coalescer = Coalescer()
        coalescer.add(ada, chatA, offset: 0, seq: 0, at: 0)
        coalescer.add(bob, chatA, offset: 1, seq: 0, at: 0)
        do {
            let got = coalescer.take(nowMs: 5000, limit: 2)
            #expect(got.count == 2)
        }
        coalescer.add(ada, chatB, offset: 2, seq: 1, at: 5100, mention: true)
        coalescer.add(bob, chatB, offset: 3, seq: 1, at: 5100)
        coalescer.finish(ada, wasTold: true, nowMs: 6000)
        coalescer.finish(bob, wasTold: true, nowMs: 6000)
        do {
            let got = coalescer.take(nowMs: 10_100, limit: 2)
            #expect(got.map(\.user) == [ada] && got[0].isMention)
        }
        do {
            let got = coalescer.take(nowMs: 36_000, limit: 2)
            #expect(got.map(\.user) == [bob])
        }
    }

    @Test func `a repeat after a crash has the same name, and with more in it another`() {
        func name(_ offsets: [Int64], at nowMs: Int64) -> String {
            var coalescer = Coalescer()
            for offset in offsets {
                coalescer.add(ada, offset % 2 == 0 ? chatA : chatB, offset: offset, seq: 0, at: nowMs)
            }
            let notices = coalescer.take(nowMs: nowMs + 9000, limit: 1)
            return notices[0].idempotencyKey
        }
        #expect(name([4, 7], at: 0) == name([4, 7], at: 99))
        #expect(name([4, 7], at: 0) == "\(ada)/0/4-7")
        // Record 7 came after the crash: a receiver that drops what it knows must not drop it.
        #expect(name([4], at: 0) != name([4, 7], at: 0))
        var mixed = Coalescer()
        mixed.add(ada, chatA, offset: 9, seq: 0, at: 0, partition: 1)
        mixed.add(ada, chatA, offset: 4, seq: 0, at: 0)
        let notices = mixed.take(nowMs: 9000, limit: 1)
        #expect(notices[0].idempotencyKey == "\(ada)/0/4-4,1/9-9")
    }

    @Test func `what is kept is counted, and none of it remains when all is settled`() {
        var coalescer = Coalescer()
        for index in 0..<100 as Range<Int64> { coalescer.add(ada, chatA, offset: index, seq: index, at: 0) }
        let one = coalescer.bytes
        #expect(one < 1000, "a hundred messages of one chat are one text")
        coalescer.add(ada, chatB, offset: 100, seq: 0, at: 0)
        coalescer.add(bob, chatB, offset: 101, seq: 0, at: 0)
        #expect(coalescer.bytes > one)
        _ = coalescer.read(ada, chat: chatB, seq: 0)
        do {
            let got = coalescer.take(nowMs: 9000, limit: 9)
            #expect(got.count == 2)
        }
        #expect(coalescer.bytes > 0)
        for user in [ada, bob] { coalescer.finish(user, wasTold: true, nowMs: 9000) }
        #expect(coalescer.bytes == 0 && coalescer.count == 0)
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
                        user, Bool.random(using: &generator) ? chatA : chatB, offset: offset, seq: offset, at: nowMs,
                        mention: .random(using: &generator), partition: partition)
                case 3: settle(coalescer.cancel(user, seenMs: nowMs - .random(in: 0...2000, using: &generator)))
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
            #expect(coalescer.count == 0 && coalescer.bytes == 0 && tracker.open == 0 && tracker.spanMax == 0)
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
        func call(_ nowMs: Int64) -> CircuitBreaker.Call? { breaker.call(nowMs: nowMs) }
        for _ in 0..<19 { breaker.failed(.normal, nowMs: 0) }
        #expect(call(0) == .normal)
        breaker.failed(.normal, nowMs: 0)
        #expect(call(4999) == nil)
        #expect(call(5000) == .probe)
        #expect(call(5000) == nil, "one probe at a time")
        breaker.failed(.normal, nowMs: 5000)
        #expect(call(5000) == nil, "a call that began before says nothing about the probe")
        breaker.failed(.probe, nowMs: 5000)
        #expect(call(14_999) == nil)
        #expect(call(15_000) == .probe)
        breaker.abandoned(.probe)
        #expect(call(15_000) == .probe, "a probe that was never made is made by another")
        breaker.answered()
        #expect(call(15_000) == .normal)
        #expect(call(15_000) == .normal)
    }
}

@Suite struct SeenTableTests {
    @Test func `people are remembered as long as the log remembers their messages`() {
        var seen = SeenTable()
        let day: Int64 = 86_400_000
        seen.saw(ada, atMs: 10 * day - 5, nowMs: 10 * day)
        seen.saw(ada, atMs: 10 * day - 9, nowMs: 10 * day)
        #expect(seen.wasSeen(ada, afterMs: 10 * day - 6) && !seen.wasSeen(ada, afterMs: 10 * day - 5))
        // A replay of everybody who was ever here fills no memory.
        seen.saw(bob, atMs: 8 * day, nowMs: 10 * day)
        #expect(seen.count == 1)
        seen.saw(bob, atMs: 12 * day, nowMs: 12 * day)
        #expect(seen.count == 1 && !seen.wasSeen(ada, afterMs: 0))
    }
}
