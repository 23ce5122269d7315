import KafkaClient
import Wire

/// Where the task of a partition begins, given what the group has committed and what the log holds.
///
/// The note on the position of `chat.incoming` has all three positions of one commit, and goes before the positions of the
/// other topics. A position without a note was set by somebody: it is taken, with the other two as they were committed.
///
/// A position is worth something only in the log that it is of. Where a topic was made again, work begins anew with what is
/// there: `chat.incoming` and `chat.signals` from their start, `chat.members` as at the first start ever.
struct StartingPoint: Equatable {
    struct Committed {
        var incoming: CommittedOffset?
        var members: CommittedOffset?
        var signals: Int64?
    }

    /// The logs that stand under the topics' names now; nil where brokers do not tell.
    struct Logs: Equatable {
        var incoming: LogIdentity?
        var members: LogIdentity?
        var signals: LogIdentity?
    }

    /// A topic was made again: what is known of the old log is of no use any more.
    struct Lost: Equatable {
        var topic: Topic
        var was: LogIdentity
        var now: LogIdentity
        /// From here on nothing of the old log was worked through.
        var position: Int64
    }

    var positions: Positions
    /// It must be committed before anything is joined, or a crash before the first commit would begin elsewhere.
    var mustCommit = false
    /// No task has been here: nothing is to be worked through as a predecessor may have done.
    var isFirst = false
    /// What an operator should know.
    var notes: [String] = []
    var lost: [Lost] = []

    static func decide(
        _ committed: Committed, incoming: Watermarks, members: Watermarks, signals: Watermarks, logs: Logs = Logs(),
        cutAt: Int64? = nil
    ) -> StartingPoint {
        var point: StartingPoint
        if let last = committed.incoming, let noted = CommitNote.positions(incoming: last.offset, note: last.metadata) {
            point = StartingPoint(positions: noted)
            for (name, position, other) in [
                ("chat.members", noted.members, committed.members?.offset),
                ("chat.signals", noted.signals, committed.signals),
            ] where other.map({ $0 != position }) ?? false {
                point.notes.append(
                    "the committed position of \(name) was changed, which has no effect; change that of chat.incoming")
            }
        } else if let last = committed.incoming {
            point = StartingPoint(
                positions: Positions(
                    incoming: last.offset, members: committed.members?.offset ?? members.high,
                    signals: committed.signals ?? signals.high), mustCommit: true)
            point.notes.append(
                "the committed position of chat.incoming was set to \(last.offset) by somebody; going on from there")
        } else if let other = committed.members, let known = CommitNote.positions(incoming: 0, note: other.metadata),
            isOther(known.runs.incoming.log, logs.incoming)
        {
            // A topic's committed positions go with it; the note stands beside those of chat.members, too.
            point = StartingPoint(positions: known)
        } else {
            // The first start ever: all messages that are there, with the membership as it is now.
            point = StartingPoint(
                positions: Positions(incoming: incoming.low, members: members.high, signals: signals.high),
                mustCommit: true, isFirst: true)
        }
        point.compare(logs, incoming: incoming, members: members, signals: signals, cutAt: cutAt)
        return point
    }

    private static func isOther(_ known: LogIdentity?, _ present: LogIdentity?) -> Bool {
        known != nil && present != nil && known != present
    }

    private mutating func compare(
        _ logs: Logs, incoming: Watermarks, members: Watermarks, signals: Watermarks, cutAt: Int64?
    ) {
        let end = min(incoming.high, cutAt ?? .max)
        let isKnown = positions.runs.incoming.log != nil && positions.runs.incoming.log == logs.incoming
        if begins(.incoming, positions.incoming, logs.incoming, \.incoming) {
            positions.incoming = incoming.low
            positions.decision = nil
            isFirst = true
        } else if isKnown, positions.incoming > end {
            notes.append(
                "chat.incoming has lost its end from \(end) on; position \(positions.incoming) goes back there, and what "
                    + "follows is numbered anew")
            positions.runs.incoming.generation += 1
            positions.incoming = max(end, incoming.low)
            positions.decision = nil
            mustCommit = true
        } else if positions.incoming < incoming.low || positions.incoming > incoming.high {
            notes.append(
                "position \(positions.incoming) of chat.incoming is not in the log; starting at its beginning")
            // What ended before has lost its end, or is another: its offsets are given again.
            if positions.incoming > incoming.high { positions.runs.incoming.generation += 1 }
            positions.incoming = incoming.low
            positions.decision = nil
            mustCommit = true
        }
        if begins(.members, positions.members, logs.members, \.members) {
            (positions.members, positions.applied, positions.memberships) = (members.high, members.high, members.high)
        } else if positions.members > members.high {
            // Records up to a position beyond the end would be taken for known ones.
            notes.append("position \(positions.members) of chat.members is beyond its end")
            positions.members = members.high
            positions.runs.members.generation += 1
            mustCommit = true
        }
        positions.applied = min(positions.applied, members.high)
        if positions.memberships > members.high { positions.memberships = members.high }
        if begins(.signals, positions.signals, logs.signals, \.signals) {
            positions.signals = signals.low
        } else if positions.signals > signals.high {
            positions.signals = signals.high
            positions.runs.signals.generation += 1
            mustCommit = true
        }
    }

    /// Whether the topic was made again; its run is that of the present log from here on.
    private mutating func begins(
        _ topic: Topic, _ position: Int64, _ present: LogIdentity?, _ run: WritableKeyPath<LogRuns, LogRun>
    ) -> Bool {
        guard let present else { return false }
        let known = positions.runs[keyPath: run]
        positions.runs[keyPath: run].log = present
        guard let was = known.log, was != present else { return false }
        positions.runs[keyPath: run].generation = min(known.generation + 1, LogRun.generationMax)
        lost.append(Lost(topic: topic, was: was, now: present, position: position))
        mustCommit = true
        return true
    }
}
