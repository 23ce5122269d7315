import Runtime
import Testing

struct ClockTests {
    // MARK: - SteadyTime

    @Test func `a clock that is set does not make time jump, and is followed all the same`() {
        var time = SteadyTime(wallMs: 1_000_000, monotonicMs: 500)
        #expect(time.nowMs(monotonicMs: 700) == 1_000_200)
        // Set forward by a minute.
        var last = time.nowMs(monotonicMs: 500)
        var steps: Set<Int64> = []
        for step in 1...20_000 {
            let monotonic = UInt64(500 + step * 50)
            time.follow(wallMs: 1_060_000 + Int64(step) * 50, monotonicMs: monotonic)
            steps.insert(time.nowMs(monotonicMs: monotonic) - last)
            last = time.nowMs(monotonicMs: monotonic)
        }
        #expect(steps == [50, 56], "an eighth faster, until it is right")
        #expect(last == 1_060_000 + 20_000 * 50)
    }

    @Test func `time never runs backwards when the clock is set back`() {
        var time = SteadyTime(wallMs: 1_000_000, monotonicMs: 0)
        time.follow(wallMs: 900_000, monotonicMs: 8_000)
        #expect(time.nowMs(monotonicMs: 8_000) == 1_007_000)
    }

    // MARK: - ClockSkew

    @Test func `what is late is not taken for a clock that is wrong`() {
        var skew = ClockSkew()
        skew.note("a", aheadMs: 5_000, nowMs: 0)
        skew.note("a", aheadMs: 3, nowMs: 1_000)
        skew.note("b", aheadMs: 700, nowMs: 2_000)
        #expect(skew.take(nowMs: 9_999) == nil)
        let found = skew.take(nowMs: 10_000)
        #expect(found?.source == "b" && found?.aheadMs == 700)
        #expect(skew.take(nowMs: 30_000) == nil, "nothing was heard since")
    }

    @Test func `a clock behind ours counts as well as one ahead of it, and the gauge shows it in seconds`() {
        let metrics = Metrics()
        var watch = ClockWatch(metrics, log: .none)
        for second in 0..<12 {
            let now = Int64(second) * 1_000
            watch.note("right", writtenMs: now, wallMs: now + 2, nowMs: now)
            watch.note("fast", writtenMs: now + 15_500, wallMs: now, nowMs: now)
        }
        #expect(String(decoding: metrics.render(), as: UTF8.self).contains("fanout_clock_skew_seconds -15.5\n"))
    }
}
