import Delivery
import PushLink
import Testing

struct PresenceTests {
    private typealias Change = Presence.Change

    private func take(_ presence: inout Presence, _ nowMs: Int64, limit: Int = 100) -> [Presence.Change] {
        presence.takeChanges(nowMs: nowMs, limit: limit)
    }

    @Test func `is online at once and offline after the grace period`() {
        var presence = Presence(graceMs: 25_000)
        presence.firstSessionOpened(user: 3, nowMs: 1_000)
        #expect(take(&presence, 1_000) == [Change(user: 3, status: .online, lastSeen: 1_000)])
        presence.lastSessionClosed(user: 3, nowMs: 5_000)
        #expect(take(&presence, 29_999).isEmpty)
        #expect(presence.status(of: 3).status == .online)
        #expect(take(&presence, 30_000) == [Change(user: 3, status: .offline, lastSeen: 5_000)])
        #expect(take(&presence, 90_000).isEmpty)
    }

    @Test func `does not see a quick reconnect`() {
        var presence = Presence(graceMs: 25_000)
        presence.firstSessionOpened(user: 3, nowMs: 0)
        _ = take(&presence, 0)
        for round in 0..<10 as Range<Int64> {
            presence.lastSessionClosed(user: 3, nowMs: round * 10_000)
            presence.firstSessionOpened(user: 3, nowMs: round * 10_000 + 5_000)
        }
        #expect(take(&presence, 200_000).isEmpty)
        #expect(presence.status(of: 3).status == .online)
    }

    @Test func `a change of owner goes unseen by those who come back, and is noticed of those who do not`() {
        var presence = Presence(graceMs: 25_000)
        for user in 0..<3 { presence.restore(user: user, status: .online, lastSeen: 500, nowMs: 1_000) }
        presence.restore(user: 3, status: .offline, lastSeen: 400, nowMs: 1_000)
        presence.firstSessionOpened(user: 1, nowMs: 2_000)
        presence.firstSessionOpened(user: 3, nowMs: 2_000)
        #expect(take(&presence, 2_000) == [Change(user: 3, status: .online, lastSeen: 2_000)])
        let changes = take(&presence, 26_000)
        #expect(changes.map(\.user) == [0, 2] && changes.allSatisfy { $0.status == .offline && $0.lastSeen == 500 })
    }

    @Test func `takes a storm in slices`() {
        var presence = Presence(graceMs: 25_000)
        for user in 0..<100_000 { presence.firstSessionOpened(user: user, nowMs: 0) }
        while !take(&presence, 0, limit: 1_000).isEmpty {}
        for user in 0..<100_000 { presence.lastSessionClosed(user: user, nowMs: 0) }
        #expect(take(&presence, 24_999).isEmpty)
        var seen = 0
        var slices = 0
        while true {
            let changes = take(&presence, 25_000, limit: 1_000)
            guard !changes.isEmpty else { break }
            #expect(changes.count <= 1_000)
            seen += changes.count
            slices += 1
        }
        #expect(seen == 100_000 && slices >= 100)
    }

    @Test func `tells one change where several came between two slices`() {
        var presence = Presence(graceMs: 10)
        presence.firstSessionOpened(user: 1, nowMs: 0)
        presence.lastSessionClosed(user: 1, nowMs: 5)
        #expect(take(&presence, 100).map(\.status) == [.offline])
    }

    @Test func `knows who watches`() {
        var watchers = Watchers()
        watchers.add(4, of: user(1))
        watchers.add(4, of: user(1))
        watchers.add(5, of: user(1))
        #expect(watchers.of(user(1)) == [4, 5])
        watchers.remove(4, of: user(1))
        #expect(watchers.of(user(1)) == [5])
        watchers.remove(5)
        #expect(watchers.of(user(1)).isEmpty)
        #expect(watchers.of(user(99)).isEmpty)
    }

    @Test(arguments: 0..<20)
    func `ends at the truth, whatever the order of things`(round: Int) {
        let seed = UInt64.random(in: 0...UInt64.max) &+ UInt64(round)
        var random = SplitMix(seed: seed)
        var presence = Presence(graceMs: 50)
        var sessions = [Int](repeating: 0, count: 10)
        var told = [PresenceStatus](repeating: .offline, count: 10)
        var closedAt = [Int64](repeating: 0, count: 10)
        var now: Int64 = 0
        for _ in 0..<3_000 {
            now += Int64(random.below(10))
            let user = random.below(10)
            if random.chance(50), sessions[user] > 0 {
                sessions[user] -= 1
                if sessions[user] == 0 {
                    closedAt[user] = now
                    presence.lastSessionClosed(user: user, nowMs: now)
                }
            } else if sessions[user] < 2 {
                sessions[user] += 1
                if sessions[user] == 1 { presence.firstSessionOpened(user: user, nowMs: now) }
            }
            for change in take(&presence, now, limit: 1 + random.below(5)) {
                #expect(told[change.user] != change.status || change.status == .online, "seed \(seed)")
                told[change.user] = change.status
                if change.status == .offline {
                    #expect(sessions[change.user] == 0 && now - closedAt[change.user] >= 50, "seed \(seed)")
                }
            }
        }
        now += 100
        for change in take(&presence, now, limit: 1_000) { told[change.user] = change.status }
        #expect(told == sessions.map { $0 > 0 ? .online : .offline }, "seed \(seed)")
    }
}
