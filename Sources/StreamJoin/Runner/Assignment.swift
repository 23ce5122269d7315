import KafkaClient
import PostgresClient
import Runtime
import Wire

extension JoinWorker {
    /// The group has given these partitions: their tasks are brought to where the last ones were, then they go live. What
    /// the log does not answer for a moment is asked again; the group waits meanwhile.
    func assigned(_ partitions: [Int32]) throws {
        metrics.restoring.set(max(1, partitions.count))
        health.partitions.failed("its partitions are being restored")
        defer { metrics.restoring.set(0) }
        while true {
            do {
                try restore(partitions)
                metrics.member.set(1)
                health.partitions.met()
                return
            } catch let error as KafkaError where error.passes {
                forget()
                guard error.code != .rebalanced else {
                    log.warning("the group decides anew", ["error": "\(error)"])
                    return try consumer.unassign()
                }
                try tryAgain(error)
            } catch let error as PostgresError where error.isTransient {
                // Under a generation that is not known nothing is numbered.
                forget()
                try tryAgain(error)
            } catch let error as JoinError where error.code == .log {
                // A topic was made again meanwhile.
                forget()
                try tryAgain(error)
            } catch is NumberedAbove {
                forget()
            }
        }
    }

    private static let retryMs = 500

    private func tryAgain(_ error: any Error) throws {
        log.warning("partitions cannot be restored; trying again", ["error": "\(error)"])
        try producer.poll(timeoutMs: Self.retryMs, acknowledge)
        health.cameRound(inFlight: producer.inFlight)
        if isStopping() { throw Interrupted() }
    }

    /// What was restored in part is of no use.
    private func forget() {
        slots = Array(repeating: nil, count: slots.count)
        followed = [:]
        checkpoints.retained = [:]
        table = MembershipTable(deliveryPartitions: setup.deliveryPartitions, listedMax: table.listedMax)
    }

    private func restore(_ partitions: [Int32]) throws {
        let names = configuration.names
        let startedNs = clock.monotonicNs
        retain()
        let reader = try LogReader(configuration.kafka, metrics.faults)
        defer { reader.close() }
        let isOwn = Set(partitions)
        let kept = configuration.isStandby ? Array(0..<setup.chatPartitions) : partitions
        let committed = try committedPositions(of: kept)
        let present = try presentLogs()
        let restored = restoredPositions(of: present.members)
        logs = present
        for partition in restored.keys where !kept.contains(partition) {
            table.removeChats(ofPartition: partition, of: setup.chatPartitions)
        }
        var unsaved: [JoinProgress.Mark] = []
        var members: [LogReader.Stretch] = []
        var untold: [LogReader.Stretch] = []
        var messages: [LogReader.Stretch] = []
        var dropped: [String] = []
        var points: [Int32: StartingPoint] = [:]
        for partition in partitions {
            points[partition] = StartingPoint.decide(
                committed[partition] ?? StartingPoint.Committed(),
                incoming: try reader.watermarks(TopicPartition(names[.incoming], partition)),
                members: try reader.watermarks(TopicPartition(names[.members], partition)),
                signals: try reader.watermarks(TopicPartition(names[.signals], partition)), logs: present,
                cutAt: cuts[partition])
        }
        try settleGenerations(&points)
        for partition in kept {
            let changes = TopicPartition(names[.members], partition)
            let changesMarks = try reader.watermarks(changes)
            let end: Int64
            if let point = points[partition] {
                for note in point.notes { log.warning("\(note)", ["partition": .init(partition)]) }
                tell(point.lost, partition)
                let slot = try begin(partition, at: point, reader)
                if point.mustCommit { unsaved.append(slot.mark) }
                messages.append(try acceptedMessages(of: partition, reader))
                end = point.positions.members
                untold.append(
                    .init(partition: changes, start: max(end, changesMarks.low), end: point.positions.memberships))
            } else {
                end = min(committed[partition]?.noted(present.members) ?? changesMarks.low, changesMarks.high)
            }
            let known = keeps(partition, restored, committed: end, changesMarks, &dropped)
            let start = max(known, changesMarks.low)
            members.append(.init(partition: changes, start: start, end: end))
            if !isOwn.contains(partition) {
                followed[partition] = FollowedPartition(partition, from: start, committed: end)
            }
        }
        if !dropped.isEmpty {
            log.warning(
                "what was kept of the membership table is not used, the log is read instead",
                ["partitions": "\(dropped.joined(separator: ", "))"])
        }
        let changeCount = try readChanges(members, reader) + catchUp(untold, reader)
        let messageCount = try readMessages(messages, reader)
        // Before anything is joined: a crash before the first commit must begin at the same place.
        if !unsaved.isEmpty { try consumer.commit(unsaved.flatMap { offsets(of: $0) }) }
        cuts = [:]
        try consumer.assign(starts)
        metrics.partitions.set(slots.count { $0 != nil })
        metrics.followed.set(followed.count)
        metrics.restoredChanges.add(changeCount)
        if changeCount > 0 { checkpoints.hasChanged = true }
        log.info(
            "partitions assigned",
            [
                "count": .init(partitions.count), "followed": .init(followed.count),
                "changes_read": .init(changeCount), "memberships": .init(table.memberCount),
                "messages_recalled": .init(messageCount), "ms": .init((clock.monotonicNs - startedNs) / 1_000_000),
            ])
    }

    private func committedPositions(of partitions: [Int32]) throws(KafkaError) -> [Int32: StartingPoint.Committed] {
        let names = configuration.names
        let topics: [Topic] = [.incoming, .members, .signals]
        let committed = try consumer.committed(
            topics.flatMap { topic in partitions.map { TopicPartition(names[topic], $0) } })
        var positions: [Int32: StartingPoint.Committed] = [:]
        for (index, partition) in partitions.enumerated() {
            positions[partition] = StartingPoint.Committed(
                incoming: committed[index], members: committed[index + partitions.count],
                signals: committed[index + 2 * partitions.count]?.offset)
        }
        return positions
    }

    private func begin(_ partition: Int32, at point: StartingPoint, _ reader: borrowing LogReader) throws
        -> PartitionSlot
    {
        lives += 1
        let end = try reader.watermarks(TopicPartition(configuration.names[.incoming], partition)).high
        let task = JoinTask(
            partition: partition, setup: setup, committed: point.positions,
            replayEnd: point.isFirst ? point.positions.incoming : end)
        let slot = PartitionSlot(task, life: lives)
        slots[Int(partition)] = slot
        return slot
    }

    private func acceptedMessages(of partition: Int32, _ reader: borrowing LogReader) throws -> LogReader.Stretch {
        let accepted = TopicPartition(configuration.names[.messages], partition)
        let marks = try reader.watermarks(accepted)
        let count = Int64(setup.limits.recentMessages + 2 * setup.limits.uncommittedMax)
        return .init(partition: accepted, start: max(marks.low, marks.high - count), end: marks.high)
    }

    private func readChanges(_ stretches: [LogReader.Stretch], _ reader: borrowing LogReader) throws -> Int {
        var count = 0
        table.beginLoading()
        defer { table.endLoading() }
        try reader.read(stretches, keepUp) { message throws(KafkaError) in
            count += 1
            if let slot = slots[Int(message.partition)] {
                slot.task.restore(key: message.key, value: message.value, offset: message.offset, into: &table)
            } else {
                followed[message.partition]?.apply(
                    key: message.key, value: message.value, offset: message.offset, &table)
            }
        }
        for case let slot? in slots { slot.task.restored(into: &table) }
        for follower in followed.values { follower.restored(&table) }
        return count
    }

    /// Between what the last tasks have told and what they have applied there is mostly nothing.
    private func catchUp(_ stretches: [LogReader.Stretch], _ reader: borrowing LogReader) throws -> Int {
        var count = 0
        try reader.read(stretches, keepUp) { message throws(KafkaError) in
            count += 1
            slots[Int(message.partition)]?.task.catchUp(
                key: message.key, value: message.value, offset: message.offset, table: &table)
        }
        for case let slot? in slots {
            slot.task.caughtUp(table: &table, output: &output)
            guard !output.records.isEmpty else { continue }
            touch(slot)
            try write()
        }
        return count
    }

    private func readMessages(_ stretches: [LogReader.Stretch], _ reader: borrowing LogReader) throws -> Int {
        var count = 0
        var highest: [Int32: Int64] = [:]
        try reader.read(stretches, keepUp) { message throws(KafkaError) in
            guard let value = message.value, let accepted = try? AcceptedMessage(decoding: value) else { return }
            count += 1
            highest[message.partition] = max(highest[message.partition] ?? -1, accepted.seq)
            slots[Int(message.partition)]?.task.recall(accepted)
        }
        try checkNumbers(highest, reader)
        return count
    }

    private func keepUp() throws {
        health.cameRound(inFlight: producer.inFlight)
        if isStopping() { throw Interrupted() }
    }

    private var starts: [PartitionStart] {
        let names = configuration.names
        var starts: [PartitionStart] = []
        for case let slot? in slots {
            let positions = slot.task.next
            for (topic, position) in [
                (Topic.incoming, positions.incoming), (.members, positions.members), (.signals, positions.signals),
            ] {
                starts.append(
                    PartitionStart(
                        TopicPartition(names[topic], slot.partition), at: .offset(position), log: logs[topic]))
            }
        }
        for follower in followed.values {
            let place = TopicPartition(names[.members], follower.partition)
            starts.append(PartitionStart(place, at: .offset(follower.committed), log: logs.members))
        }
        return starts
    }

    /// All partitions go: what is done is committed, unless others may have them already.
    func release(isLost: Bool) throws {
        // What is told only when its change is committed is to be committed itself.
        if !isLost, try commitAll() { _ = try commitAll() }
        let count = slots.count { $0 != nil }
        if count > 0 { log.info("partitions released", ["count": .init(count), "lost": .bool(isLost)]) }
        retain()
        metrics.partitions.set(0)
        metrics.followed.set(0)
        metrics.member.set(0)
        health.partitions.failed(JoinHealth.isNoMember)
    }

    /// Commits all that is done, when it is acknowledged; answers whether that has given something to tell.
    func commitAll() throws -> Bool {
        closeEpoch()
        // A log that takes nothing takes no commit either.
        let isFlushed = try flush(deadlineMs: 5000)
        var marks: [Int32: JoinProgress.Mark] = [:]
        for mark in commits.inFlight + commits.waiting.values { marks[mark.partition] = mark }
        commits = CommitSchedule()
        progress.complete { mark in
            guard slots[Int(mark.partition)]?.life == mark.life else { return }
            marks[mark.partition] = mark
        }
        guard !marks.isEmpty else { return false }
        do {
            try consumer.commit(marks.values.flatMap { offsets(of: $0) }, timeoutMs: isFlushed ? 5000 : 1000)
        } catch {
            log.warning("positions were not committed; they will be worked through again", ["error": "\(error)"])
            return false
        }
        for mark in marks.values {
            guard let slot = slots[Int(mark.partition)] else { continue }
            try commitSucceeded(slot, mark.positions)
        }
        return !touched.isEmpty
    }

    /// The table stays: what this process gets back, or goes on following, it need not read again.
    func retain() {
        let now = clock.wallMs
        for case let slot? in slots {
            let positions = slot.task.position
            if positions.isOne {
                checkpoints.retained[slot.partition] = .init(position: positions.applied, atMs: now)
            } else {
                table.removeChats(ofPartition: slot.partition, of: setup.chatPartitions)
            }
        }
        for follower in followed.values {
            checkpoints.retained[follower.partition] = .init(position: follower.position, atMs: now)
        }
        commits = CommitSchedule()
        slots = Array(repeating: nil, count: slots.count)
        followed = [:]
    }
}

extension KafkaError {
    /// A topic that is not there is about to be made: its partitions have been given to this member.
    fileprivate var passes: Bool { !isFatal && (isRetriable || code == .unknownTopicOrPartition) }
}

extension StartingPoint.Committed {
    /// The position of `chat.members` that goes with that of `chat.incoming`; nil if it is of another log.
    func noted(_ log: LogIdentity?) -> Int64? {
        guard let incoming, let noted = CommitNote.positions(incoming: incoming.offset, note: incoming.metadata) else {
            return members?.offset
        }
        guard noted.runs.members.log == nil || log == nil || noted.runs.members.log == log else { return nil }
        return noted.members
    }
}
