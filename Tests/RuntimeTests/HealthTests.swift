import Runtime
import Synchronization
import Testing

@Suite struct HealthTests {
    private let clock = ManualClock()

    /// A process with one condition, its log and its metrics.
    private final class Process: Sendable {
        private let said: Said
        let metrics = Metrics()
        let health: Health

        private final class Said: Sendable {
            let bytes = Guarded<[UInt8]>([])
        }

        init(_ clock: ManualClock) {
            let said = Said()
            self.said = said
            let log = Log(component: "test", clock: clock) { line in said.bytes.withLock { $0 += line } }
            health = Health(log: log, metrics: metrics, clock: clock)
        }

        var text: String { said.bytes.withLock { String(decoding: $0, as: UTF8.self) } }
    }

    @Test func `a process is ready when nothing fails, and says what fails and for how long`() {
        let health = Health(clock: clock)
        let users = health.condition("users", failing: "reading chat.users")
        let log = health.condition("log", failing: nil)
        #expect(health.look().text == "not ready\nusers: reading chat.users (for 0 s)\n")
        clock.advance(ms: 2500)
        #expect(health.look().text == "not ready\nusers: reading chat.users (for 2 s)\n")
        users.met()
        #expect(health.look().isReady && health.look().text == "ready\n")
        log.failed("the log refuses")
        #expect(!health.look().isReady)
        #expect(health.look().isAlive)
    }

    @Test func `a process that has said nothing yet is not ready`() {
        let health = Health(clock: clock)
        #expect(!health.look().isReady && health.look().isAlive)
        _ = health.condition("log", failing: nil)
        #expect(health.look().isReady)
    }

    @Test func `what goes by progress fails by itself when it is not met again, as of when it should have been`() {
        let health = Health(clock: clock)
        let log = health.condition("log", failing: nil)
        log.met(forMs: 5000, else: "the log does not answer")
        clock.advance(ms: 4999)
        #expect(health.look().isReady)
        log.met(forMs: 5000, else: "the log does not answer")
        clock.advance(ms: 4999)
        #expect(health.look().isReady)
        clock.advance(ms: 3001)
        #expect(health.look().text == "not ready\nlog: the log does not answer (for 3 s)\n")
        log.met(forMs: 5000, else: "the log does not answer")
        #expect(health.look().isReady)
    }

    @Test func `an impaired process is ready all the same, and says so behind what is worse`() {
        let health = Health(clock: clock)
        let postgres = health.condition("postgres", failing: nil)
        let log = health.condition("log", failing: nil)
        postgres.impaired("no new sessions")
        #expect(health.look().isReady)
        #expect(health.look().text == "ready\npostgres: no new sessions (for 0 s; ready all the same)\n")
        log.failed("the log refuses")
        #expect(
            health.look().text == """
                not ready
                log: the log refuses (for 0 s)
                postgres: no new sessions (for 0 s; ready all the same)

                """)
    }

    @Test func `a thread that does not come round makes its process unready, and after a minute it is stuck`() {
        let health = Health(clock: clock)
        let thread = health.thread("join")
        clock.advance(ms: 1_000_000)
        #expect(health.look().isReady, "one that has not begun, or that waits for something on purpose, claims nothing")
        thread.beat()
        clock.advance(ms: 9_999)
        #expect(health.look().isReady)
        clock.advance(ms: 2)
        #expect(!health.look().isReady && health.look().isAlive)
        clock.advance(ms: 50_000)
        #expect(!health.look().isAlive)
        #expect(health.look().text == "not ready\nthread join: does not come round (for 50 s)\n")
        thread.beat()
        #expect(health.look().isReady && health.look().isAlive)
    }

    @Test func `each change is one log line, with the reason and how long it took`() {
        let process = Process(clock)
        let log = process.health.condition("log", failing: "starting")
        process.health.look()
        #expect(process.text == "", "that a process which starts is not ready is no news")
        log.met()
        process.health.look()
        #expect(process.text.hasSuffix("info    test      condition met condition=log after_ms=0\n"))
        log.failed("refuses")
        for _ in 0..<3 { process.health.look() }
        log.failed("is away")
        process.health.look()
        clock.advance(ms: 1500)
        log.met()
        for _ in 0..<3 { process.health.look() }
        let lines = process.text.split(separator: "\n").map { $0.dropFirst("22:13:20.000 ".count) }
        #expect(
            lines == [
                "info    test      condition met condition=log after_ms=0",
                "warning test      not ready condition=log reason=refuses",
                "warning test      not ready condition=log reason=\"is away\"",
                "info    test      condition met condition=log after_ms=1500",
            ], "\(process.text)")
    }

    @Test func `the metrics say the same`() {
        let process = Process(clock)
        let log = process.health.condition("log", failing: nil)
        let postgres = process.health.condition("postgres", failing: nil)
        let text = { String(decoding: process.metrics.render(), as: UTF8.self) }
        #expect(text().contains("\nfanout_ready 1\n"))
        postgres.impaired("away")
        #expect(text().contains("\nfanout_ready 1\n"))
        #expect(text().contains("\nfanout_condition_met{condition=\"postgres\"} 0\n"))
        #expect(text().contains("\nfanout_condition_met{condition=\"log\"} 1\n"))
        log.failed("away")
        #expect(text().contains("\nfanout_ready 0\n"))
        #expect(text().contains("\nfanout_condition_met{condition=\"log\"} 0\n"))
    }
}
