import KafkaClient
import Runtime
import Wire

/// What the join says at `/readyz` and `/healthz`.
final class JoinHealth {
    /// It waits for what the group gives it, or restores it. With nothing, it is there to take over.
    let partitions: Health.Condition
    /// Only what the log does not tell in time is asked there; without an answer the messages concerned wait.
    let postgres: Health.Condition
    var output: WriteProgress
    private let thread: Health.Condition

    static let isNoMember = "the group has not told which partitions it has"
    static let topics: [Topic] = [.incoming, .members, .signals, .messages, .deliveries]

    init(_ health: Health) {
        partitions = health.condition("partitions", failing: Self.isNoMember)
        postgres = health.condition("postgres", failing: nil)
        output = WriteProgress(health)
        thread = health.thread("join")
    }

    func cameRound(inFlight: Int) {
        thread.beat()
        output.look(isSettled: inFlight == 0)
    }
}
