import Testing

@testable import StreamJoin

@Suite struct ChangePaceTests {
    @Test func `a few changes pass at once, and many at the rate that their readers keep up with`() {
        var pace = ChangePace()
        var nowNs: UInt64 = 1_000_000_000
        var told = 0
        while pace.hasRoom(nowNs: nowNs) {
            pace.spend(100)
            told += 100
        }
        #expect(told == ChangePace.burst)
        // A second of turns, one a millisecond.
        for _ in 0..<1000 {
            nowNs += 1_000_000
            while pace.hasRoom(nowNs: nowNs) {
                pace.spend(16)
                told += 16
            }
        }
        #expect(abs(told - ChangePace.burst - ChangePace.perSecond) <= 16)
        // What was not used in a quiet hour does not come at once.
        nowNs += 3_600_000_000_000
        told = 0
        while pace.hasRoom(nowNs: nowNs) {
            pace.spend(1)
            told += 1
        }
        #expect(told == ChangePace.burst)
    }
}
