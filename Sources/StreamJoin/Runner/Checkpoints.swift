import Runtime
import Synchronization
import System

/// When the table is saved, and where.
struct CheckpointSchedule {
    let path: String?
    let intervalMs: Int
    var lastNs: UInt64 = 0
    /// Since the last checkpoint the table has changed.
    var hasChanged = false
    /// The positions to which the table has been brought, while no task owns them: between two assignments.
    var retained: [Int32: Int64] = [:]
    /// At most one is being written.
    let isWriting = WritingFlag()

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
    /// Saves the table on a thread of its own, if it is time and everything in it is committed: a checkpoint must not be
    /// ahead of the position from which a task goes on, or its changes would not be told again.
    func saveCheckpointIfDue() {
        guard let path = checkpoints.path, checkpoints.hasChanged, !checkpoints.isWriting.isSet else { return }
        let now = clock.monotonicNs
        if checkpoints.lastNs == 0 { checkpoints.lastNs = now }
        guard now &- checkpoints.lastNs >= UInt64(checkpoints.intervalMs) * 1_000_000 else { return }
        var positions: [Int32: Int64] = [:]
        for case let slot? in slots {
            let position = slot.task.position.members
            guard position == slot.task.committed.members else { return }
            positions[slot.partition] = position
        }
        guard !positions.isEmpty else { return }
        checkpoints.lastNs = now
        checkpoints.hasChanged = false
        let snapshot = table.snapshot(positions: positions)
        let (flag, log, clock) = (checkpoints.isWriting, log, clock)
        flag.set(true)
        _ = Thread.start(name: "join-checkpoint") {
            write(snapshot, to: path, log, clock)
            flag.set(false)
        }
    }

    /// Saves what is left when the work ends.
    func saveLastCheckpoint() {
        guard let path = checkpoints.path, checkpoints.hasChanged, !checkpoints.retained.isEmpty else { return }
        checkpoints.hasChanged = false
        // One that is still being written would replace this one.
        while checkpoints.isWriting.isSet { loop.runOnce(timeoutMs: 10) }
        write(table.snapshot(positions: checkpoints.retained), to: path, log, clock)
    }

    /// The positions of `chat.members` to which the table has been brought. What was kept in memory goes before what is in
    /// the file; what cannot be used is dropped, and read again from the log.
    func restoredPositions() -> [Int32: Int64] {
        if !checkpoints.retained.isEmpty {
            defer { checkpoints.retained = [:] }
            return checkpoints.retained
        }
        guard let path = checkpoints.path, File.exists(path) else { return [:] }
        let startedNs = clock.monotonicNs
        do {
            let snapshot = try MembershipSnapshot(
                loading: path, deliveryPartitions: setup.deliveryPartitions, listedMax: table.listedMax)
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

    /// Whether the table is as it was at this position; if not, the partition's chats are dropped.
    func keeps(_ partition: Int32, _ restored: [Int32: Int64], committed: Int64, low: Int64) -> Int64 {
        guard let position = restored[partition] else { return 0 }
        // Ahead of the commit it would swallow events, and behind the log's beginning something may be missing.
        if position <= committed, position >= low { return position }
        table.removeChats(ofPartition: partition, of: setup.chatPartitions)
        return 0
    }
}

private func write(_ snapshot: MembershipSnapshot, to path: String, _ log: Log, _ clock: any Clock) {
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
