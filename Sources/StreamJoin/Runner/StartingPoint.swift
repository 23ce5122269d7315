import KafkaClient
import Wire

/// Where the task of a partition begins, given what the group has committed and what the log holds.
///
/// The note on the position of `chat.incoming` has all three positions of one commit, and goes before the positions of the
/// other topics. A position without a note was set by somebody: it is taken, with the other two as they were committed.
struct StartingPoint: Equatable {
    struct Committed {
        var incoming: CommittedOffset?
        var members: Int64?
        var signals: Int64?
    }

    var positions: Positions
    /// It must be committed before anything is joined, or a crash before the first commit would begin elsewhere.
    var mustCommit = false
    /// No task has been here: nothing is to be worked through as a predecessor may have done.
    var isFirst = false
    /// What an operator should know.
    var notes: [String] = []

    static func decide(
        _ committed: Committed, incoming: Watermarks, members: Watermarks, signals: Watermarks
    ) -> StartingPoint {
        guard let last = committed.incoming else {
            // The first start ever: all messages that are there, with the membership as it is now.
            return StartingPoint(
                positions: Positions(incoming: incoming.low, members: members.high, signals: signals.high),
                mustCommit: true, isFirst: true)
        }
        var point: StartingPoint
        if let noted = CommitNote.positions(incoming: last.offset, note: last.metadata) {
            point = StartingPoint(positions: noted)
            for (name, position, other) in [
                ("chat.members", noted.members, committed.members), ("chat.signals", noted.signals, committed.signals),
            ] where other.map({ $0 != position }) ?? false {
                point.notes.append(
                    "the committed position of \(name) was changed, which has no effect; change that of chat.incoming")
            }
        } else {
            point = StartingPoint(
                positions: Positions(
                    incoming: last.offset, members: committed.members ?? members.high,
                    signals: committed.signals ?? signals.high), mustCommit: true)
            point.notes.append(
                "the committed position of chat.incoming was set to \(last.offset) by somebody; going on from there")
        }
        if point.positions.incoming < incoming.low || point.positions.incoming > incoming.high {
            point.notes.append(
                "position \(point.positions.incoming) of chat.incoming is not in the log; starting at its beginning")
            point.positions.incoming = incoming.low
            point.positions.decision = nil
            point.mustCommit = true
        }
        // Records up to a position beyond the end would be taken for known ones.
        if point.positions.members > members.high {
            point.notes.append("position \(point.positions.members) of chat.members is beyond its end")
            point.positions.members = members.high
            point.mustCommit = true
        }
        point.positions.applied = min(point.positions.applied, members.high)
        if point.positions.memberships > members.high { point.positions.memberships = members.high }
        if point.positions.signals > signals.high {
            point.positions.signals = signals.high
            point.mustCommit = true
        }
        return point
    }
}
