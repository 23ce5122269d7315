import Testing
import Wire

@testable import Bench

/// A reckoning that finds nothing wrong would be worth nothing if it could find nothing.
@Suite struct PresenceReckoningTests {
    private let ada = UserID(UUID(high: 1, low: 1))
    private let bob = UserID(UUID(high: 1, low: 2))

    /// Ada is here since 100, Bob left at 500; it is 900.
    private var reckoning: PresenceReckoning {
        PresenceReckoning([
            ada: .init(isHere: true, lastSeenMs: 100...900), bob: .init(isHere: false, lastSeenMs: 490...510),
        ])
    }

    private func said(_ adaIs: PresenceRecord.Status, _ bobIs: PresenceRecord.Status, bobAt lastSeen: Int64 = 500)
        -> [UserID: PresenceRecord]
    {
        [
            ada: PresenceRecord(user: ada, status: adaIs, lastSeen: 100),
            bob: PresenceRecord(user: bob, status: bobIs, lastSeen: lastSeen),
        ]
    }

    @Test func `what is true is found true, of whoever says it`() {
        var reckoning = reckoning
        reckoning.check(toldTo: ada, watching: [bob], said(.offline, .offline))
        reckoning.check(log: said(.online, .offline))
        #expect(reckoning.violations.isEmpty)
        #expect(reckoning.told == 1 && reckoning.logged == 2)
    }

    @Test func `somebody who is here and is said to be away, and the other way round, is found`() {
        var reckoning = reckoning
        reckoning.check(log: said(.offline, .offline))
        reckoning.check(toldTo: ada, watching: [bob], said(.online, .online))
        #expect(reckoning.violations.count == 2)
    }

    @Test func `a time at which nobody was there is found`() {
        var reckoning = reckoning
        for lastSeen: Int64 in [0, 489, 511] {
            reckoning.check(toldTo: ada, watching: [bob], said(.online, .offline, bobAt: lastSeen))
        }
        #expect(reckoning.violations.count == 3)
    }

    @Test func `a watcher that is told nothing, and a user of whom the log says nothing, are found`() {
        var reckoning = reckoning
        reckoning.check(toldTo: ada, watching: [ada, bob], [:])
        reckoning.check(log: [:])
        #expect(reckoning.violations.count == 4)
    }
}
