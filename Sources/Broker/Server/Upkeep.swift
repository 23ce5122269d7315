internal import Runtime
internal import System

/// What the broker does by the clock: retention, compaction, and forgetting.
extension BrokerCore {
    func scheduleUpkeep() {
        loop.schedule(afterMs: configuration.retentionCheckMs) { [weak self] in
            guard let self else { return }
            self.keepUp()
            self.scheduleUpkeep()
        }
    }

    /// What is a sum over everything is not kept up with each change.
    func scheduleMeasurement() {
        var partitions = 0
        var bytes = 0
        for topic in storage.topics.values {
            partitions += topic.logs.count
            for log in topic.logs { bytes += log.sizeBytes }
        }
        metrics.partitions.set(partitions)
        metrics.logBytes.set(bytes)
        metrics.heldBytes.set(held.total)
        metrics.unansweredRequests.set(held.requests)
        metrics.waitingBytes.set(commits.waitingBytes)
        loop.schedule(afterMs: Self.measurementMs) { [weak self] in self?.scheduleMeasurement() }
    }

    private static let measurementMs = 2000

    func keepUp() {
        let nowMs = loop.nowMs
        for topic in storage.topics.values {
            for partition in topic.logs where !partition.segments.isEmpty {
                partition.producers.expire(before: nowMs - configuration.producerExpiryMs)
                enforceRetention(topic, partition, nowMs: nowMs)
            }
        }
        groups.expireOffsets(nowMs: nowMs)
        compactNext()
    }

    private func enforceRetention(_ topic: Topic, _ partition: PartitionLog, nowMs: Int64) {
        do throws(BrokerError) {
            try partition.rollIfOld(nowMs: nowMs)
            let deleted = try partition.enforceRetention(nowMs: nowMs)
            guard deleted > 0 else { return }
            log.info(
                "deleted old segments",
                [
                    "topic": .string(topic.name), "partition": .int(Int64(partition.partition)),
                    "segments": .int(Int64(deleted)), "start": .int(partition.startOffset),
                ])
        } catch {
            log.error("retention failed", ["topic": .string(topic.name), "reason": .string(error.description)])
        }
    }

    /// Compacts the partitions that are worth it, one after the other, on the maintenance thread.
    private func compactNext() {
        guard !isCompacting, !isStopping else { return }
        for topic in storage.topics.values where topic.entry.config.isCompacted {
            for partition in topic.logs {
                guard let pass = partition.compaction(nowMs: loop.nowMs) else { continue }
                return start(pass, of: partition, in: topic)
            }
        }
    }

    private func start(_ pass: Compaction, of partition: PartitionLog, in topic: Topic) {
        isCompacting = true
        partition.isCompacting = true
        let remote = loop.remote
        let finish = LoopBound(
            { [weak self] (result: Result<Compaction.Outcome, BrokerError>) in
                partition.isCompacting = false
                self?.finish(pass, result, of: partition, in: topic)
            }, on: loop)
        maintenance.remote.execute { _ in
            let result = Result { () throws(BrokerError) in try pass.run() }
            remote.execute { finish.value(on: $0)(result) }
        }
    }

    private func finish(
        _ pass: Compaction, _ result: Result<Compaction.Outcome, BrokerError>, of partition: PartitionLog,
        in topic: Topic
    ) {
        isCompacting = false
        // The topic may have been deleted meanwhile, and its directory with what was written.
        guard storage.topicsByID[topic.entry.id] === topic else { return }
        do throws(BrokerError) {
            let outcome = try result.get()
            try partition.adopt(outcome, of: pass, nowMs: loop.nowMs)
            log.info(
                "compacted",
                [
                    "topic": .string(topic.name), "partition": .int(Int64(partition.partition)),
                    "records": .int(Int64(outcome.recordsRead)), "kept": .int(Int64(outcome.recordsKept)),
                ])
            compactNext()
        } catch {
            log.error("compaction failed", ["topic": .string(topic.name), "reason": .string(error.description)])
        }
    }
}
