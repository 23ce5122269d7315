// What a group has committed, and where partitions begin and end.
internal import CRdKafka

extension Consumer {
    /// What this consumer's group has committed; nil where nothing was.
    public func committed(
        _ partitions: [TopicPartition], timeoutMs: Int = 5000
    ) throws(KafkaError) -> [CommittedOffset?] {
        let list = PartitionList(partitions)
        let raw = try unsafe handle.raw
        let code = unsafe rd_kafka_committed(raw, list.raw, Int32(clamping: timeoutMs))
        if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError(code, place: "committed") }
        if let error = list.firstError(place: "committed") { throw error }
        return list.entries.map { entry in
            entry.offsetIfAny.map { CommittedOffset(entry.partition, offset: $0, metadata: entry.metadata) }
        }
    }

    /// Sends positions (each the offset of the *next* record to read) without waiting; the result arrives as
    /// `ConsumerEvent.committed`.
    public func commitLater(_ offsets: [CommittedOffset]) throws(KafkaError) {
        if let fatalError { throw fatalError }
        let list = PartitionList(offsets)
        let handle = try handle
        // The plain asynchronous commit answers nobody unless a callback is set; this one answers to our queue.
        let code = unsafe rd_kafka_commit_queue(handle.raw, list.raw, handle.queue, nil, nil)
        if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError(code, place: "commit") }
    }

    /// Commits and waits for the group coordinator's answer, no longer than `timeoutMs`.
    ///
    /// librdkafka's own blocking commit has no timeout and outlives a coordinator that does not answer.
    public func commit(_ offsets: [CommittedOffset], timeoutMs: Int = 5000) throws(KafkaError) {
        guard !offsets.isEmpty else { return }
        if let fatalError { throw fatalError }
        let list = PartitionList(offsets)
        let deadline = Deadline(afterMs: timeoutMs)
        let raw = try unsafe handle.raw
        let answers = unsafe rd_kafka_queue_new(raw)
        defer { unsafe rd_kafka_queue_destroy(answers) }
        let code = unsafe rd_kafka_commit_queue(raw, list.raw, answers, nil, nil)
        if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError(code, place: "commit") }
        guard let event = unsafe rd_kafka_queue_poll(answers, max(1, deadline.remainingMs)) else {
            throw KafkaError(.timedOut, "the group coordinator did not answer within \(timeoutMs) ms", place: "commit")
        }
        defer { unsafe rd_kafka_event_destroy(event) }
        let failure = unsafe rd_kafka_event_error(event)
        noteFencing(failure, place: "commit")
        if failure != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError(failure, place: "commit") }
        guard let results = unsafe rd_kafka_event_topic_partition_list(event) else { return }
        for entry in unsafe PartitionList.entries(of: results) where entry.error != RD_KAFKA_RESP_ERR_NO_ERROR {
            throw KafkaError(entry.error, place: "commit \(entry.partition)")
        }
    }

    /// The first and next offsets of one partition, asked of its leader.
    public func watermarks(_ partition: TopicPartition, timeoutMs: Int = 5000) throws(KafkaError) -> Watermarks {
        try handle.watermarks([partition], timeoutMs: timeoutMs)[0].get()
    }

    /// The offset that each partition's next record will get, asked of the leaders in one request each.
    public func endOffsets(
        _ partitions: [TopicPartition], timeoutMs: Int = 5000
    ) throws(KafkaError) -> [Result<Int64, KafkaError>] {
        try handle.offsets(partitions.map { ($0, -1) }, timeoutMs: timeoutMs)
    }

    /// For each partition the offset of the first record at or after a time; nil where there is none.
    public func offsets(
        at times: [(TopicPartition, timestampMs: Int64)], timeoutMs: Int = 5000
    ) throws(KafkaError) -> [Int64?] {
        try handle.offsets(times.map { ($0.0, max(0, $0.timestampMs)) }, timeoutMs: timeoutMs).map {
            result throws(KafkaError) in
            let offset = try result.get()
            return offset >= 0 ? offset : nil
        }
    }
}

/// A partition's first offset, and the offset which its next record will get.
public struct Watermarks: Hashable, Sendable {
    public let low: Int64
    public let high: Int64

    public init(low: Int64, high: Int64) {
        self.low = low
        self.high = high
    }
}
