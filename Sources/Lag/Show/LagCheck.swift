/// `fanout lag --check`: one line and an exit code, in the way of monitoring plugins.
public struct LagCheck: Sendable {
    public enum Verdict: Int32, Sendable { case ok = 0, warning = 1, critical = 2, unknown = 3 }

    /// Above these is critical; above half of them, a warning.
    public var secondsMax: Double?
    public var messagesMax: Int64?

    public init() {}

    public func verdict(on status: LagStatus) -> (Verdict, line: String) {
        var verdict = Verdict.ok
        var reasons: [String] = []
        func raise(_ to: Verdict, _ reason: String) {
            if to.rawValue > verdict.rawValue { verdict = to }
            reasons.append(reason)
        }
        for row in status.totals {
            let name = "\(row.group) on \(row.topic)"
            if let secondsMax, let seconds = row.seconds, seconds > secondsMax / 2 {
                raise(seconds > secondsMax ? .critical : .warning, "\(name) is \(LagTable.time(seconds)) behind")
            }
            if let messagesMax, row.messages > messagesMax / 2 {
                raise(row.messages > messagesMax ? .critical : .warning, "\(row.messages) messages wait for \(name)")
            }
            switch row.state {
            case .ok: break
            case .behind: raise(.warning, "\(name) falls behind")
            case .empty: raise(row.messages > 0 ? .critical : .warning, "nobody consumes for \(name)")
            case .stalled, .danger: raise(.critical, "\(name) does not move")
            }
        }
        for (slot, state) in status.slots where state != .ok {
            raise(
                state == .danger ? .critical : .warning,
                "slot \(slot.name) is \(slot.walStatus) and keeps \(LagTable.bytes(slot.retainedBytes))")
        }
        // A check that could not see everything cannot say that all is well.
        let unseen = (status.clusterError.map { ["no answer from the cluster: \($0)"] } ?? []) + status.missing
        if !unseen.isEmpty {
            if verdict == .ok { return (.unknown, "UNKNOWN: \(unseen.joined(separator: "; "))") }
            reasons.append("missing: \(unseen.joined(separator: "; "))")
        }
        let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][Int(verdict.rawValue)]
        return (
            verdict,
            reasons.isEmpty ? "\(word): \(status.totals.count) rows" : "\(word): \(reasons.joined(separator: "; "))"
        )
    }
}
