// Offsets of many partitions in few requests.
//
// librdkafka 2.0.2 has no ListOffsets call, and its watermark query costs two round trips a partition. But its offsets
// "for times" go out as one request a leader, and it passes the times through unread: -2 and -1 mean to a broker the
// first and the next offset. The library then matches answers to questions in quadratic time, hence the slices.
internal import CRdKafka

extension ClientHandle {
    private static let sliceCount = 1000

    func watermarks(
        _ partitions: [TopicPartition], timeoutMs: Int
    ) throws(KafkaError) -> [Result<Watermarks, KafkaError>] {
        let deadline = Deadline(afterMs: timeoutMs)
        let low = try offsets(partitions.map { ($0, -2) }, timeoutMs: Int(deadline.remainingMs))
        let high = try offsets(partitions.map { ($0, -1) }, timeoutMs: Int(deadline.remainingMs))
        return zip(low, high).map { low, high in
            low.flatMap { low in high.map { Watermarks(low: low, high: $0) } }
        }
    }

    /// Answers in the order of the questions.
    func offsets(
        _ questions: [(TopicPartition, time: Int64)], timeoutMs: Int
    ) throws(KafkaError) -> [Result<Int64, KafkaError>] {
        let deadline = Deadline(afterMs: timeoutMs)
        var answers: [Result<Int64, KafkaError>] = []
        answers.reserveCapacity(questions.count)
        var start = 0
        while start < questions.count {
            let end = min(start + Self.sliceCount, questions.count)
            try ask(questions[start..<end], deadline, &answers)
            start = end
        }
        return answers
    }

    private func ask(
        _ questions: ArraySlice<(TopicPartition, time: Int64)>, _ deadline: Deadline,
        _ answers: inout [Result<Int64, KafkaError>]
    ) throws(KafkaError) {
        let place = "offsets of \(questions.count) partitions"
        let list = PartitionList(capacity: questions.count)
        for (partition, time) in questions { list.add(partition, offset: time) }
        while true {
            let code = unsafe rd_kafka_offsets_for_times(raw, list.raw, max(1, deadline.remainingMs))
            if code == RD_KAFKA_RESP_ERR_NO_ERROR { break }
            let error = KafkaError(code, place: place)
            guard error.isRetriable, error.code != .timedOut, !deadline.hasPassed else { throw error }
        }
        for entry in list.entries {
            answers.append(
                entry.error == RD_KAFKA_RESP_ERR_NO_ERROR
                    ? .success(entry.offset) : .failure(KafkaError(entry.error, place: "offsets of \(entry.partition)"))
            )
        }
    }
}
