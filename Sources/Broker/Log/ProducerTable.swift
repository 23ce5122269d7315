/// Idempotence: which batches of which producer a partition already has.
///
/// A producer numbers its records per partition. A batch that continues the numbering is appended; one of the last
/// five batches sent again (the answer was lost with a connection) is answered with its first offset and not stored
/// twice; anything else is out of order. Five is the most a producer keeps in flight.
struct ProducerTable: Equatable {
    struct Batch: Equatable {
        var firstSequence: Int32
        var lastSequence: Int32
        var firstOffset: Int64
        var lastOffset: Int64
        var timestamp: Int64
    }

    struct Producer: Equatable {
        var epoch: Int16
        /// Oldest first, at most five, never empty.
        var batches: [Batch]
        /// When it last wrote, by the broker's clock, for expiry.
        var lastSeenMs: Int64
    }

    static let batchesKept = 5

    private(set) var producers: [Int64: Producer] = [:]

    enum Verdict: Equatable {
        case append
        case duplicate(of: Batch)
        case refuse(ErrorCode)
    }

    func check(_ batch: RecordBatch) -> Verdict {
        guard batch.producerID >= 0, let producer = producers[batch.producerID] else { return .append }
        guard batch.producerEpoch >= producer.epoch else { return .refuse(.invalidProducerEpoch) }
        guard batch.producerEpoch == producer.epoch else {
            // A new epoch of the producer starts its numbering again.
            return batch.baseSequence == 0 ? .append : .refuse(.outOfOrderSequenceNumber)
        }
        let lastSequence = batch.lastSequence
        for known in producer.batches
        where known.firstSequence == batch.baseSequence && known.lastSequence == lastSequence {
            return .duplicate(of: known)
        }
        guard let last = producer.batches.last else { return .append }
        if batch.baseSequence == RecordBatch.sequence(last.lastSequence, plus: 1) { return .append }
        // Also what is older than all that is remembered. As Apache Kafka does, it is not called a duplicate: some clients
        // take that for an acknowledgement, and it may be another producer's batch under the same id.
        return .refuse(.outOfOrderSequenceNumber)
    }

    /// Notes a batch that was appended (or found in the log at start-up).
    mutating func record(_ batch: RecordBatch, nowMs: Int64) {
        guard batch.producerID >= 0 else { return }
        let entry = Batch(
            firstSequence: batch.baseSequence, lastSequence: batch.lastSequence, firstOffset: batch.baseOffset,
            lastOffset: batch.lastOffset, timestamp: batch.maxTimestamp)
        var producer = producers.removeValue(forKey: batch.producerID)
        if producer?.epoch == batch.producerEpoch {
            producer?.batches.append(entry)
            if let count = producer?.batches.count, count > Self.batchesKept { producer?.batches.removeFirst() }
            producer?.lastSeenMs = nowMs
            producers[batch.producerID] = producer
        } else {
            producers[batch.producerID] = Producer(epoch: batch.producerEpoch, batches: [entry], lastSeenMs: nowMs)
        }
    }

    mutating func restore(_ id: Int64, _ producer: Producer) { producers[id] = producer }

    /// Forgets what was appended at or after `offset`, because the log was cut back to there.
    mutating func truncate(to offset: Int64) {
        for (id, var producer) in producers {
            guard let last = producer.batches.last, last.lastOffset >= offset else { continue }
            producer.batches.removeAll { $0.lastOffset >= offset }
            producers[id] = producer.batches.isEmpty ? nil : producer
        }
    }

    mutating func expire(before limitMs: Int64) {
        guard producers.values.contains(where: { $0.lastSeenMs < limitMs }) else { return }
        producers = producers.filter { $0.value.lastSeenMs >= limitMs }
    }
}
