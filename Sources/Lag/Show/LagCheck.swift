import Wire

/// `fanout lag --check`: one line and an exit code, in the way of monitoring plugins.
public struct LagCheck: Sendable {
    public enum Verdict: Int32, Sendable { case ok = 0, warning = 1, critical = 2, unknown = 3 }

    /// Above these is critical; above half of them, a warning.
    public var secondsMax: Double?
    /// The same for these groups; `slotsSecondsMax` for slots.
    public var groupSecondsMax: [String: Double] = [:]
    public var slotSecondsMax: Double?
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
            if let secondsMax = groupSecondsMax[row.group] ?? secondsMax, let seconds = row.seconds,
                seconds > secondsMax / 2
            {
                raise(seconds > secondsMax ? .critical : .warning, "\(name) is \(LagTable.time(seconds)) behind")
            }
            if let messagesMax, row.messages > messagesMax / 2 {
                raise(row.messages > messagesMax ? .critical : .warning, "\(row.messages) messages wait for \(name)")
            }
            switch row.state {
            case .ok: break
            case .behind: raise(.warning, "\(name) falls behind")
            case .empty: raise(row.messages > 0 ? .critical : .warning, "nobody consumes for \(name)")
            case .stalled: raise(.critical, "\(name) does not move")
            case .danger:
                raise(.critical, "\(name) has a position of another log: the topic was made again, and not begun anew")
            }
        }
        for (slot, state) in status.slots {
            if let aside = slot.asideWords {
                raise(.critical, "slot \(slot.name): \(aside)")
            } else if let secondsMax = slotSecondsMax ?? secondsMax, let seconds = slot.lateSeconds,
                seconds > secondsMax / 2
            {
                raise(seconds > secondsMax ? .critical : .warning, "slot \(slot.name): \(slot.words)")
            } else if state == .danger {
                raise(
                    .critical, "slot \(slot.name) is \(slot.walStatus) and keeps \(LagTable.bytes(slot.retainedBytes))")
            } else if state != .ok {
                raise(state == .stalled ? .critical : .warning, "slot \(slot.name): \(slot.words)")
            }
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

extension LagSample.Slot {
    /// How often CDC writes a heartbeat into the database's log: a confirmed position may be so old, and a little older.
    static let heartbeatSeconds = 5.5

    /// By how much the confirmed position is older than it is where CDC follows; `nil` when that is not known.
    public var lateSeconds: Double? { confirmedAgeSeconds.map { max(0, $0 - Self.heartbeatSeconds) } ?? behindSeconds }

    /// Which topics its reader does not write, since a table of theirs cannot be followed.
    var asideWords: String? {
        guard let aside = note?.aside, !aside.isEmpty else { return nil }
        return aside.map { "\($0.topic) stands still since \($0.position), on account of \($0.table)" }
            .joined(separator: "; ")
    }

    /// How its reader does, in words that say what is.
    var words: String {
        if let asideWords { return asideWords }
        let age = confirmedAgeSeconds.map { LagTable.time($0) }
        guard isActive else { return "nobody reads it" + (age.map { " since \($0)" } ?? "") }
        if let age {
            guard lateSeconds ?? 0 > 0 else { return "confirmed up to \(age) ago" }
            return "its reader has confirmed nothing newer than \(age): frozen, cut off, or in a large transaction"
        }
        return "confirmed \(behindSeconds.map { LagTable.time($0) } ?? "?") late"
    }
}
