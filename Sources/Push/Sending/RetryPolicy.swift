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
    /// - Parameters:
    ///   - chance: from 0 to 1, spreads the retries of many notices that failed together.
    ///   - isProbe: it says something about the receiver and nothing about the notice, so it is never the last.
    public func verdict(attempt: Int, _ outcome: Outcome, chance: Double, isProbe: Bool = false) -> Verdict {
        switch outcome {
        case .status(200..<300, _): return .told
        case .status(let status, let retryAfterMs) where status == 429 || status >= 500 || status == 408:
            return again(attempt, atLeastMs: retryAfterMs ?? 0, reason: "HTTP \(status)", chance, isProbe)
        case .status(let status, _):
            return .dead(reason: "HTTP \(status)")
        case .noAnswer(let reason):
            return again(attempt, atLeastMs: 0, reason: reason, chance, isProbe)
        }
    }

    public enum Outcome: Equatable, Sendable {
        case status(Int, retryAfterMs: Int64?)
        case noAnswer(String)
    }

    private func again(
        _ attempt: Int, atLeastMs: Int64, reason: String, _ chance: Double, _ isProbe: Bool
    ) -> Verdict {
        guard isProbe || attempt < attemptsMax else { return .dead(reason: "\(reason), \(attempt) attempts") }
        let full = min(delayMsMax, firstDelayMs << Int64(min(attempt - 1, 20)))
        // Between half of the delay and the whole.
        let jittered = full / 2 + Int64(Double(full / 2) * chance)
        return .retry(afterMs: max(jittered, min(atLeastMs, 10 * delayMsMax)))
    }
}
