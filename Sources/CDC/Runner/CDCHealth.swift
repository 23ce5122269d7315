internal import Runtime

/// What CDC says at `/readyz` and `/healthz`.
struct CDCHealth: Sendable {
    /// Changes come from Postgres, or this is the standby of a process to which they come.
    let stream: Health.Condition
    let output: Health.Condition
    let thread: Health.Condition

    static let isStarting = "changes are not streamed yet"
    /// Longer than two looks at the slot, each of which may wait for an answer.
    private static let streamPatienceMs = 20_000

    init(_ health: Health) {
        stream = health.condition("stream", failing: Self.isStarting)
        output = health.condition("output", failing: nil)
        thread = health.thread("cdc")
    }

    /// Postgres has answered while changes are streamed.
    func streams() { stream.met(forMs: Self.streamPatienceMs, else: "Postgres does not answer") }
}
