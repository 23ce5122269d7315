internal import Runtime

/// What CDC says at `/readyz` and `/healthz`.
struct CDCHealth: Sendable {
    /// Changes come from Postgres, or this is the standby of a process to which they come.
    let stream: Health.Condition
    let output: Health.Condition
    private let tables: Health.Condition
    let thread: Health.Condition

    static let isStarting = "changes are not streamed yet"
    /// Longer than two looks at the slot, each of which may wait for an answer.
    private static let streamPatienceMs = 20_000

    init(_ health: Health) {
        stream = health.condition("stream", failing: Self.isStarting)
        output = health.condition("output", failing: nil)
        tables = health.condition("tables", failing: nil)
        thread = health.thread("cdc")
    }

    /// These topics are not written because a table of theirs cannot be followed.
    func follows(exceptFor aside: some Collection<String>) {
        guard !aside.isEmpty else { return tables.met() }
        tables.failed("put aside: \(aside.sorted().joined(separator: ", "))")
    }

    /// Postgres has answered while changes are streamed.
    func streams() { stream.met(forMs: Self.streamPatienceMs, else: "Postgres does not answer") }
}
