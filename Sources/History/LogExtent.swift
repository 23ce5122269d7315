internal import KafkaClient

/// How far one partition of the log reaches.
struct LogExtent: Equatable {
    /// The offset that its next record will get.
    var end: Int64
    /// Whether the log has let go of all there was.
    var isEmpty: Bool

    /// What is to be done about a stored position.
    enum Verdict: Equatable {
        /// It goes on from there; if the log has let go of the next record, the first one read shows it.
        case goOn
        /// The topic was made anew, and its seqs start again, too.
        case startAtBeginning
        /// What followed is gone, and no record will come that shows it.
        case skip(to: Int64)
    }

    func judge(nextOffset: Int64) -> Verdict {
        if nextOffset > end { return .startAtBeginning }
        return isEmpty && nextOffset < end ? .skip(to: end) : .goOn
    }
}

extension Consumer {
    /// Asked of the leaders; partitions that are not there have no extent.
    func extents(of keys: [PartitionKey]) throws(KafkaError) -> [PartitionKey: LogExtent] {
        let answers = try endOffsets(keys.map { TopicPartition($0.topic, $0.partition) })
        var ends: [(key: PartitionKey, end: Int64)] = []
        for (key, answer) in zip(keys, answers) { if case .success(let end) = answer { ends.append((key, end)) } }
        let firsts = try offsets(at: ends.map { (TopicPartition($0.key.topic, $0.key.partition), timestampMs: 0) })
        var extents: [PartitionKey: LogExtent] = [:]
        for ((key, end), first) in zip(ends, firsts) { extents[key] = LogExtent(end: end, isEmpty: first == nil) }
        return extents
    }
}
