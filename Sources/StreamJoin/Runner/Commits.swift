import KafkaClient
import Runtime
import Wire

/// What is to be committed, and what is on its way.
struct CommitSchedule {
    var waiting: [Int32: JoinProgress.Mark] = [:]
    var inFlight: [JoinProgress.Mark] = []
}

extension JoinWorker {
    /// Commits if something can be and it is time. Only one commit is under way at any time.
    func commitIfDue(isTick: Bool = false) throws {
        progress.complete { mark in
            guard slots[Int(mark.partition)]?.life == mark.life else { return }
            commits.waiting[mark.partition] = mark
        }
        guard commits.inFlight.isEmpty, !commits.waiting.isEmpty, isTick || isCommitUrgent else { return }
        let marks = commits.waiting.values.filter { slots[Int($0.partition)]?.task.committed != $0.positions }
        commits.waiting.removeAll(keepingCapacity: true)
        guard !marks.isEmpty else { return }
        commits.inFlight = Array(marks)
        try consumer.commitLater(marks.flatMap { offsets(of: $0) })
        metrics.commits.add()
    }

    private var isCommitUrgent: Bool {
        for mark in commits.waiting.values {
            guard let slot = slots[Int(mark.partition)] else { continue }
            if slot.task.hasUncommittedChanges || slot.task.wait == .commit { return true }
            if mark.positions.incoming - slot.task.committed.incoming > Int64(setup.limits.uncommittedMax / 2) {
                return true
            }
        }
        return false
    }

    /// The log has the positions, or refuses them.
    func committed(_ error: KafkaError?) throws {
        let marks = commits.inFlight
        commits.inFlight = []
        if let error {
            // After a rebalance the event that says so is on its way; anything else is tried again.
            log.warning("positions were not committed", ["error": "\(error)"])
            for mark in marks where commits.waiting[mark.partition] == nil { commits.waiting[mark.partition] = mark }
            return
        }
        for mark in marks {
            guard let slot = slots[Int(mark.partition)], slot.life == mark.life else { continue }
            try commitSucceeded(slot, mark.positions)
            if !slot.incoming.isEmpty { try drain(slot) }
        }
        try goOnWithChanges()
        closeEpoch()
        try commitIfDue()
    }

    /// Tells what is to be told of the changes that are committed now.
    func commitSucceeded(_ slot: PartitionSlot, _ positions: Positions) throws {
        slot.task.commitSucceeded(positions, output: &output)
        if let floor = floors[slot.partition], positions.runs.incoming.generation >= floor {
            floors[slot.partition] = nil
        }
        guard !output.records.isEmpty else { return }
        touch(slot)
        try write()
    }

    /// The three positions go in one request, and beside them together in one note: whoever reads them back gets all of
    /// one commit or none of it.
    func offsets(of mark: JoinProgress.Mark) -> [CommittedOffset] {
        let names = configuration.names
        let positions = mark.positions
        let note = CommitNote.text(positions)
        return [
            CommittedOffset(
                TopicPartition(names[.incoming], mark.partition), offset: positions.incoming, metadata: note),
            // Here too, because the brokers forget a position with its topic.
            CommittedOffset(
                TopicPartition(names[.members], mark.partition), offset: positions.members, metadata: note),
            CommittedOffset(TopicPartition(names[.signals], mark.partition), offset: positions.signals),
        ]
    }
}

/// The note on a committed position of `chat.incoming`: `members=12 signals=34 logs=<run>,<run>,<run>` (of `chat.incoming`,
/// `chat.members`, `chat.signals`), and where they are of use `applied=13`, `memberships=15` and `decision=unavailable`.
enum CommitNote {
    static func text(_ positions: Positions) -> String {
        var text = "members=\(positions.members) signals=\(positions.signals)"
        if positions.applied != positions.members { text += " applied=\(positions.applied)" }
        if positions.memberships != positions.applied { text += " memberships=\(positions.memberships)" }
        if let decision = positions.decision { text += " decision=\(decision.rawValue)" }
        let runs = positions.runs
        if runs != LogRuns() { text += " logs=\(runs.incoming),\(runs.members),\(runs.signals)" }
        return text
    }

    static func positions(incoming: Int64, note: String) -> Positions? {
        var values: [Substring: Int64] = [:]
        var decision: JoinDecision?
        var runs = LogRuns()
        for part in note.split(separator: " ") {
            let pair = part.split(separator: "=", maxSplits: 1)
            guard pair.count == 2 else { return nil }
            switch pair[0] {
            case "decision":
                decision = JoinDecision(rawValue: String(pair[1]))
                if decision == nil { return nil }
            case "logs":
                let list = pair[1].split(separator: ",").compactMap { LogRun($0) }
                guard list.count == 3 else { return nil }
                runs = LogRuns(incoming: list[0], members: list[1], signals: list[2])
            default:
                guard let value = Int64(pair[1]), value >= 0 else { return nil }
                values[pair[0]] = value
            }
        }
        guard let members = values["members"], let signals = values["signals"] else { return nil }
        return Positions(
            incoming: incoming, members: members, signals: signals, applied: values["applied"],
            memberships: values["memberships"], decision: decision, runs: runs)
    }
}
