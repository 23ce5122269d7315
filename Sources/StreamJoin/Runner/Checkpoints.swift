import KafkaClient
import Runtime
import Synchronization
import System
import Wire

/// When the table is saved, and where.
struct CheckpointSchedule {
    let path: String?
    let intervalMs: Int
    var lastNs: UInt64 = 0
    /// Since the last checkpoint the table has changed.
    var hasChanged = false
    /// How far the table has been brought, while no task owns it: between two assignments.
    var retained: [Int32: Retained] = [:]
    /// At most one is being written.
    let isWriting = WritingFlag()

    struct Retained {
        var position: Int64
        /// Until when nothing can have been missed.
        var atMs: Int64
    }

    init(_ configuration: JoinConfiguration) {
        path = configuration.stateDirectory.map { "\($0)/members-\(configuration.instance ?? "join").checkpoint" }
        intervalMs = configuration.checkpointIntervalMs
    }
}

final class WritingFlag: Sendable {
    private let flag = Atomic(false)

    var isSet: Bool { flag.load(ordering: .acquiring) }
    func set(_ value: Bool) { flag.store(value, ordering: .releasing) }
}

extension JoinWorker {
    /// Saves the table on a thread of its own, if it is time. Each partition's part is as of the position that is saved with
    /// it. Mostly that is committed when the file is complete; whoever finds it ahead of the commit does not use that part.
    func saveCheckpointIfDue() {
        guard let path = checkpoints.path, checkpoints.hasChanged, !checkpoints.isWriting.isSet else { return }
        guard slots.allSatisfy({ $0?.task.position.isOne ?? true }) else { return }
        let now = clock.monotonicNs
        if checkpoints.lastNs == 0 { checkpoints.lastNs = now }
        guard now &- checkpoints.lastNs >= UInt64(checkpoints.intervalMs) * 1_000_000 else { return }
        var positions: [Int32: Int64] = [:]
        for case let slot? in slots { positions[slot.partition] = slot.task.position.applied }
        for follower in followed.values { positions[follower.partition] = follower.position }
        guard !positions.isEmpty else { return }
        checkpoints.lastNs = now
        checkpoints.hasChanged = false
        let snapshot = table.snapshot(positions: positions, of: logs.members, savedAtMs: clock.wallMs)
        let (flag, log, clock) = (checkpoints.isWriting, log, clock)
        flag.set(true)
        _ = Thread.start(name: "join-checkpoint") {
            save(snapshot, to: path, log, clock)
            flag.set(false)
        }
    }

    /// Saves what is left when the work ends.
    func saveLastCheckpoint() {
        guard let path = checkpoints.path, checkpoints.hasChanged, !checkpoints.retained.isEmpty else { return }
        checkpoints.hasChanged = false
        // One that is still being written would replace this one.
        while checkpoints.isWriting.isSet { loop.runOnce(timeoutMs: 10) }
        let positions = checkpoints.retained.mapValues(\.position)
        save(table.snapshot(positions: positions, of: logs.members, savedAtMs: clock.wallMs), to: path, log, clock)
    }

    /// The positions of `chat.members` to which the table has been brought. What was kept in memory goes before what is in
    /// the file; what cannot be used is dropped, and read again from the log.
    func restoredPositions(of present: LogIdentity?) -> [Int32: Int64] {
        if !checkpoints.retained.isEmpty {
            defer { checkpoints.retained = [:] }
            guard logs.members == nil || present == nil || logs.members == present else {
                table = MembershipTable(deliveryPartitions: setup.deliveryPartitions, listedMax: table.listedMax)
                return [:]
            }
            // A process that was long without partitions has the same gap as an old file.
            guard checkpoints.retained.values.allSatisfy({ isRecent($0.atMs) }) else {
                log.warning("the membership table is too old to be used, the log is read instead")
                table = MembershipTable(deliveryPartitions: setup.deliveryPartitions, listedMax: table.listedMax)
                return [:]
            }
            return checkpoints.retained.mapValues(\.position)
        }
        guard let path = checkpoints.path, File.exists(path) else { return [:] }
        let startedNs = clock.monotonicNs
        do {
            let snapshot = try MembershipSnapshot(
                loading: path, deliveryPartitions: setup.deliveryPartitions, listedMax: table.listedMax)
            guard isRecent(snapshot.savedAtMs) else { throw MembershipSnapshot.Unusable.old(path) }
            guard snapshot.log == nil || present == nil || snapshot.log == present else {
                throw MembershipSnapshot.Unusable.otherLog(path)
            }
            let positions = snapshot.positions
            table = MembershipTable(snapshot)
            log.info(
                "checkpoint loaded",
                [
                    "memberships": .init(table.memberCount), "partitions": .init(positions.count),
                    "ms": .init((clock.monotonicNs - startedNs) / 1_000_000),
                ])
            return positions
        } catch {
            log.warning("the checkpoint is not used, the log is read instead", ["reason": "\(error)"])
            return [:]
        }
    }

    /// Whether the log still tells all that was deleted since. A clock that was set back tells nothing either way.
    private func isRecent(_ savedAtMs: Int64) -> Bool { clock.wallMs - savedAtMs <= settings.tableAgeMaxMs }

    /// Where the reading of a partition's changes may begin, because the table is as it was at this position; 0 if it is
    /// not, and the partition's chats are dropped.
    func keeps(
        _ partition: Int32, _ restored: [Int32: Int64], committed: Int64, _ marks: Watermarks,
        _ dropped: inout [String]
    ) -> Int64 {
        guard let position = restored[partition] else { return 0 }
        let reason: String
        if position > committed {
            // It would swallow the events of the changes between the two.
            reason = "ahead of the commit"
        } else if position > marks.high {
            reason = "beyond the log's end"
        } else if position < marks.low {
            reason = "before the log's beginning"
        } else {
            return position
        }
        dropped.append("\(partition) (\(reason))")
        table.removeChats(ofPartition: partition, of: setup.chatPartitions)
        return 0
    }
}

private func save(_ snapshot: MembershipSnapshot, to path: String, _ log: Log, _ clock: any Clock) {
    let startedNs = clock.monotonicNs
    do {
        try Directory.create(Directory.parent(of: path))
        try snapshot.save(to: path)
        log.info(
            "checkpoint saved",
            [
                "memberships": .init(snapshot.memberCount), "ms": .init((clock.monotonicNs - startedNs) / 1_000_000),
            ])
    } catch {
        log.error("the checkpoint was not saved", ["error": "\(error)"])
    }
}
