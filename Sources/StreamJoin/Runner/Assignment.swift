import KafkaClient
import Runtime
import Wire

extension JoinWorker {
    /// The group has given these partitions: their tasks are brought to where the last ones were, then they go live.
    func assigned(_ partitions: [Int32]) throws {
        let names = configuration.names
        let startedNs = clock.monotonicNs
        metrics.restoring.set(partitions.count)
        defer { metrics.restoring.set(0) }
        let reader = try LogReader(configuration.kafka, log: nil)
        defer { reader.close() }

        let committed = try consumer.committed(partitions.map { TopicPartition(names[.incoming], $0) })
        var first: [JoinProgress.Mark] = []
        var members: [LogReader.Stretch] = []
        var messages: [LogReader.Stretch] = []
        let restored = restoredPositions()
        for partition in restored.keys where !partitions.contains(partition) {
            table.removeChats(ofPartition: partition, of: setup.chatPartitions)
        }
        for (index, partition) in partitions.enumerated() {
            let incoming = TopicPartition(names[.incoming], partition)
            let marks = try reader.watermarks(incoming)
            let changes = TopicPartition(names[.members], partition)
            let changesMarks = try reader.watermarks(changes)
            var positions: Positions
            if let last = committed[index], let noted = CommitNote.positions(incoming: last.offset, note: last.metadata)
            {
                positions = noted
                if positions.incoming < marks.low || positions.incoming > marks.high {
                    log.error(
                        "the committed position is not in the log; starting at its beginning",
                        ["partition": "\(incoming)", "position": .init(positions.incoming)])
                    positions.incoming = marks.low
                }
            } else {
                // The first start ever: all messages that are there, with the membership as it is now.
                let signals = try reader.watermarks(TopicPartition(names[.signals], partition))
                positions = Positions(incoming: marks.low, members: changesMarks.high, signals: signals.high)
            }
            lives += 1
            let task = JoinTask(
                partition: partition, setup: setup, committed: positions,
                replayEnd: committed[index] == nil ? positions.incoming : marks.high)
            let slot = PartitionSlot(task, life: lives)
            slots[Int(partition)] = slot
            if committed[index] == nil { first.append(slot.mark) }
            let known = keeps(partition, restored, committed: positions.members, low: changesMarks.low)
            members.append(.init(partition: changes, start: max(known, changesMarks.low), end: positions.members))
            let accepted = TopicPartition(names[.messages], partition)
            let acceptedMarks = try reader.watermarks(accepted)
            let count = Int64(setup.limits.recentMessages + 2 * setup.limits.uncommittedMax)
            messages.append(
                .init(
                    partition: accepted, start: max(acceptedMarks.low, acceptedMarks.high - count),
                    end: acceptedMarks.high))
        }
        var changeCount = 0
        table.beginLoading()
        try reader.read(members) { message throws(KafkaError) in
            changeCount += 1
            slots[Int(message.partition)]?.task.restore(
                key: message.key, value: message.value, offset: message.offset, into: &table)
        }
        table.endLoading()
        var messageCount = 0
        try reader.read(messages) { message throws(KafkaError) in
            guard let value = message.value, let accepted = try? AcceptedMessage(decoding: value) else { return }
            messageCount += 1
            slots[Int(message.partition)]?.task.recall(accepted)
        }
        if !first.isEmpty { try consumer.commit(first.flatMap { offsets(of: $0) }) }
        try consumer.assign(
            partitions.flatMap { partition -> [PartitionStart] in
                guard let positions = slots[Int(partition)]?.task.next else { return [] }
                return [
                    PartitionStart(TopicPartition(names[.incoming], partition), at: .offset(positions.incoming)),
                    PartitionStart(TopicPartition(names[.members], partition), at: .offset(positions.members)),
                    PartitionStart(TopicPartition(names[.signals], partition), at: .offset(positions.signals)),
                ]
            })
        metrics.partitions.set(slots.count { $0 != nil })
        if changeCount > 0 { checkpoints.hasChanged = true }
        log.info(
            "partitions assigned",
            [
                "count": .init(partitions.count), "changes_read": .init(changeCount),
                "memberships": .init(table.memberCount), "messages_recalled": .init(messageCount),
                "ms": .init((clock.monotonicNs - startedNs) / 1_000_000),
            ])
    }

    /// All partitions go: what is done is committed, unless others may have them already.
    func release(isLost: Bool) throws {
        if !isLost {
            closeEpoch()
            _ = try flush(deadlineMs: 5000)
            progress.complete { mark in
                guard slots[Int(mark.partition)]?.life == mark.life else { return }
                commits.waiting[mark.partition] = mark
            }
            let offsets = commits.waiting.values.flatMap { self.offsets(of: $0) }
            do {
                try consumer.commit(offsets)
                for mark in commits.waiting.values {
                    slots[Int(mark.partition)]?.task.commitSucceeded(mark.positions)
                }
            } catch {
                log.warning("positions were not committed; they will be worked through again", ["error": "\(error)"])
            }
        }
        let count = slots.count { $0 != nil }
        if count > 0 { log.info("partitions released", ["count": .init(count), "lost": .bool(isLost)]) }
        // The table stays: what this process gets back it need not read again.
        checkpoints.retained = [:]
        for case let slot? in slots {
            table.dropShadows(ofPartition: slot.partition, of: setup.chatPartitions)
            checkpoints.retained[slot.partition] = slot.task.position.members
        }
        commits = CommitSchedule()
        slots = Array(repeating: nil, count: slots.count)
        metrics.partitions.set(0)
    }
}
