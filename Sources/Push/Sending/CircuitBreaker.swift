/// Stops calling a receiver that does not answer, so that the backlog stays in the log instead of being worn out in
/// attempts; lets one call through now and then to see whether it is back.
public struct CircuitBreaker: Sendable, Equatable {
    public var failuresMax = 20
    public var pauseMs: Int64 = 5000
    public var pauseMsMax: Int64 = 60_000

    private var failures = 0
    private var openUntilMs: Int64?
    private var currentPauseMs: Int64 = 0
    private var isProbing = false

    public init() {}

    public var isOpen: Bool { openUntilMs != nil }

    public enum Call: Equatable, Sendable {
        case normal
        /// The one call that finds out whether the receiver is back.
        case probe
    }

    /// Whether, and as what, a call may be made now. While open, one probe at a time after each pause.
    public mutating func call(nowMs: Int64) -> Call? {
        guard let openUntilMs else { return .normal }
        guard nowMs >= openUntilMs, !isProbing else { return nil }
        isProbing = true
        return .probe
    }

    /// The receiver answered, whatever it said.
    public mutating func answered() {
        failures = 0
        openUntilMs = nil
        currentPauseMs = 0
        isProbing = false
    }

    /// No answer, or one that says the receiver is broken (5xx). Calls that began before it opened may end after.
    public mutating func failed(_ call: Call, nowMs: Int64) {
        failures += 1
        if call == .probe, openUntilMs != nil {
            isProbing = false
            currentPauseMs = min(currentPauseMs * 2, pauseMsMax)
            openUntilMs = nowMs + currentPauseMs
        } else if openUntilMs == nil, failures >= failuresMax {
            currentPauseMs = pauseMs
            openUntilMs = nowMs + currentPauseMs
        }
    }

    /// The call was never made, and tells nothing of the receiver.
    public mutating func abandoned(_ call: Call) {
        if call == .probe { isProbing = false }
    }
}
