import OneMachine
import Testing

@Suite struct RestartPolicyTests {
    @Test func `a service that keeps ending waits longer and longer, up to a limit`() {
        var policy = RestartPolicy()
        let delays = (0..<10).map { _ in policy.ended(afterMs: 5) }
        #expect(delays == [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000])
        #expect(policy.restarts == 10)
    }

    @Test func `a long life is forgiven`() {
        var policy = RestartPolicy()
        for _ in 0..<5 { _ = policy.ended(afterMs: 5) }
        #expect(policy.ended(afterMs: RestartPolicy.stableAfterMs) == RestartPolicy.firstDelayMs)
    }
}
