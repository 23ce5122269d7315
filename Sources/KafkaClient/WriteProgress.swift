public import Runtime

/// Tells the condition `output`: whether the log takes what is written to it. It goes by acknowledgements, whatever the
/// reason that they do not come: a log that is away, that refuses, or that stands still.
public struct WriteProgress {
    private let condition: Health.Condition
    private var hasMoved = false

    /// As `LogProbe`: a leader that moves is no reason to call a stage unready.
    private static let patienceMs = 5000

    public init(_ health: Health, name: String = "output") {
        condition = health.condition(name, failing: nil)
    }

    /// A record was acknowledged.
    public mutating func acknowledged() { hasMoved = true }

    /// To be called about every second, or more often.
    /// - Parameter isSettled: the log has everything that was written.
    public mutating func look(isSettled: Bool) {
        guard isSettled || hasMoved else { return }
        hasMoved = false
        condition.met(forMs: Self.patienceMs, else: "the log acknowledges nothing that is written")
    }
}
