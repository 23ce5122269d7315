/// When a worker takes part in its group (docs/decisions/014).
///
/// A worker that cannot reach a chat server can give its users nothing. So it joins when it has links to all that are there;
/// or after a moment, when no other worker is better off, and then holds what it cannot place. While another is, it stays
/// out, or leaves. The one with the most links never stays out for long, so that somebody always delivers, if anybody can.
public struct GroupGate: Equatable, Sendable {
    public enum Decision: Equatable, Sendable {
        case join
        case leave
    }

    private enum State: Equatable, Sendable {
        /// - Parameters:
        ///   - sinceMs: when it began to wait.
        ///   - wholeMs: since when nothing is missing.
        ///   - hasLeft: after it had left: what came back is to last before partitions move again.
        case out(sinceMs: Int64, wholeMs: Int64?, hasLeft: Bool)
        /// - Parameter uselessMs: since when it is of no use.
        case member(uselessMs: Int64?)
    }

    private var state: State

    /// How long a worker waits for links before it joins without some of them.
    public static let waitMs: Int64 = 3_000
    /// How long one is kept that is of no use: longer than a lost link is taken for an open one at its other end.
    public static let leaveMs: Int64 = 10_000
    public static let steadyMs: Int64 = 5_000

    public init(nowMs: Int64) { state = .out(sinceMs: nowMs, wholeMs: nil, hasLeft: false) }

    public var isIn: Bool { if case .member = state { true } else { false } }

    public mutating func decide(_ reach: Reach, nowMs: Int64) -> Decision? {
        switch state {
        case .out(let sinceMs, let whole, let hasLeft):
            let wholeMs = reach.missing.isEmpty ? whole ?? nowMs : nil
            let isWhole = wholeMs.map { nowMs - $0 >= (hasLeft ? Self.steadyMs : 0) } ?? false
            let mayHelp = wholeMs == nil && !reach.isUseless && nowMs - sinceMs >= Self.waitMs
            guard isWhole || mayHelp else {
                state = .out(sinceMs: sinceMs, wholeMs: wholeMs, hasLeft: hasLeft)
                return nil
            }
            state = .member(uselessMs: nil)
            return .join
        case .member(let useless):
            guard reach.isUseless else {
                state = .member(uselessMs: nil)
                return nil
            }
            let uselessMs = useless ?? nowMs
            guard nowMs - uselessMs >= Self.leaveMs, reach.isLessThanOthers else {
                state = .member(uselessMs: uselessMs)
                return nil
            }
            state = .out(sinceMs: nowMs, wholeMs: nil, hasLeft: true)
            return .leave
        }
    }
}
