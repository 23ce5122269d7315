/// How often and when a notice is tried again.
public struct RetryPolicy: Sendable, Equatable {
    public var attemptsMax = 8
    public var firstDelayMs: Int64 = 500
    public var delayMsMax: Int64 = 60_000

    public init() {}

    public enum Verdict: Equatable, Sendable {
        case told
        case retry(afterMs: Int64)
        /// Trying again cannot help, or has not helped often enough.
        case dead(reason: String)
    }

    /// What became of the attempt with this number (from 1).
    ///
    /// - Parameter chance: from 0 to 1, spreads the retries of many notices that failed together.
    public func verdict(attempt: Int, _ outcome: Outcome, chance: Double) -> Verdict {
        switch outcome {
        case .status(200..<300, _): return .told
        case .status(let status, let retryAfterMs) where status == 429 || status >= 500 || status == 408:
            return again(attempt, atLeastMs: retryAfterMs ?? 0, reason: "HTTP \(status)", chance)
        case .status(let status, _):
            return .dead(reason: "HTTP \(status)")
        case .noAnswer(let reason):
            return again(attempt, atLeastMs: 0, reason: reason, chance)
        }
    }

    public enum Outcome: Equatable, Sendable {
        case status(Int, retryAfterMs: Int64?)
        case noAnswer(String)
    }

    private func again(_ attempt: Int, atLeastMs: Int64, reason: String, _ chance: Double) -> Verdict {
        guard attempt < attemptsMax else { return .dead(reason: "\(reason), \(attempt) attempts") }
        let full = min(delayMsMax, firstDelayMs << Int64(min(attempt - 1, 20)))
        // Between half of the delay and the whole.
        let jittered = full / 2 + Int64(Double(full / 2) * chance)
        return .retry(afterMs: max(jittered, min(atLeastMs, 10 * delayMsMax)))
    }
}

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

    /// Whether a call may be made now. While open, only one probe at a time after each pause.
    public mutating func mayCall(nowMs: Int64) -> Bool {
        guard let openUntilMs else { return true }
        guard nowMs >= openUntilMs, !isProbing else { return false }
        isProbing = true
        return true
    }

    /// The receiver answered, whatever it said.
    public mutating func answered() {
        failures = 0
        openUntilMs = nil
        currentPauseMs = 0
        isProbing = false
    }

    /// No answer, or one that says the receiver is broken (5xx).
    public mutating func failed(nowMs: Int64) {
        failures += 1
        if isProbing {
            isProbing = false
            currentPauseMs = min(currentPauseMs * 2, pauseMsMax)
            openUntilMs = nowMs + currentPauseMs
        } else if openUntilMs == nil, failures >= failuresMax {
            currentPauseMs = pauseMs
            openUntilMs = nowMs + currentPauseMs
        }
    }
}
