internal import KafkaClient
internal import Wire

/// How far one partition of the log reaches, and which log it is.
struct LogExtent: Equatable {
    /// The first record that it still has; its end if it has let go of all there was.
    var begin: Int64
    /// The offset that its next record will get.
    var end: Int64
    /// nil where brokers do not tell.
    var log: LogIdentity?

    var isEmpty: Bool { begin == end }

    /// What is to be done about a stored position.
    enum Verdict: Equatable {
        /// It goes on from there; if the log has let go of the next record, the first one read shows it.
        case goOn
        /// The topic was made anew, and offsets start again. Seqs go on, where the join knows which log it is.
        case startAtBeginning
        /// The log has lost its end: what follows stands where other records stood.
        case goBack(to: Int64)
        /// What followed is gone, and no record will come that shows it.
        case skip(to: Int64)
    }

    /// - Parameter cutAt: where the log was cut off, as far as its leader has told.
    func judge(nextOffset: Int64, of known: LogIdentity? = nil, cutAt: Int64? = nil) -> Verdict {
        if let known, let log, known != log { return .startAtBeginning }
        if let cutAt, nextOffset > cutAt { return .goBack(to: min(cutAt, end)) }
        if nextOffset > end { return known != nil && log != nil ? .goBack(to: end) : .startAtBeginning }
        return isEmpty && nextOffset < end ? .skip(to: end) : .goOn
    }
}

extension Consumer {
    /// Asked of the leaders; partitions that are not there have no extent.
    func extents(
        of keys: [PartitionKey], logs: [String: LogIdentity]
    ) throws(KafkaError) -> [PartitionKey: LogExtent] {
        let answers = try endOffsets(keys.map { TopicPartition($0.topic, $0.partition) })
        var ends: [(key: PartitionKey, end: Int64)] = []
        for (key, answer) in zip(keys, answers) { if case .success(let end) = answer { ends.append((key, end)) } }
        let firsts = try offsets(at: ends.map { (TopicPartition($0.key.topic, $0.key.partition), timestampMs: 0) })
        var extents: [PartitionKey: LogExtent] = [:]
        for ((key, end), first) in zip(ends, firsts) {
            extents[key] = LogExtent(begin: first ?? end, end: end, log: logs[key.topic])
        }
        return extents
    }
}
