import KafkaClient

/// Reads stretches of partitions to their ends, as fast as the log gives them: what a task needs before it begins.
struct LogReader: ~Copyable {
    private let consumer: Consumer
    private let faults: ReadFaults

    init(_ kafka: KafkaConfiguration, _ faults: ReadFaults) throws(KafkaError) {
        var options = ConsumerOptions()
        options.reportsEndOfPartition = true
        options.queuedMessagesMin = 100_000
        options.queuedBytesMax = 64 << 20
        options.partitionFetchBytesMax = 4 << 20
        options.fetchBytesMax = 32 << 20
        consumer = try Consumer(kafka, options)
        self.faults = faults
    }

    /// When nothing has come for so long, the queue has been emptied.
    private static let idleMs = 2

    struct Stretch {
        var partition: TopicPartition
        var start: Int64
        /// The first offset that is not wanted.
        var end: Int64
    }

    func watermarks(_ partition: TopicPartition) throws(KafkaError) -> Watermarks {
        try consumer.watermarks(partition, timeoutMs: 10_000)
    }

    /// Hands over each record of the stretches, those of a partition in order. `keepUp` is called now and then, also while
    /// nothing comes, and may throw to give up.
    func read(
        _ stretches: [Stretch], _ keepUp: () throws -> Void, _ body: (borrowing Message) throws(KafkaError) -> Void
    ) throws {
        var ends: [Int32: [String: Int64]] = [:]
        var left = 0
        var idlePolls = 0
        for stretch in stretches where stretch.start < stretch.end {
            ends[stretch.partition.partition, default: [:]][stretch.partition.topic] = stretch.end
            left += 1
        }
        guard left > 0 else { return }
        try consumer.assign(
            stretches.filter { $0.start < $0.end }.map { PartitionStart($0.partition, at: .offset($0.start)) })
        while left > 0 {
            try keepUp()
            let batch = consumer.poll(maxMessages: 2000, timeoutMs: Self.idleMs)
            if batch.count == 0, batch.event == nil {
                idlePolls += 1
                let waiting = stretches.filter { ends[$0.partition.partition]?[$0.partition.topic] != nil }
                consumer.hurry(waiting[idlePolls % waiting.count].partition)
            }
            var lastPartition: Int32 = -1
            var lastTopic: ConsumerTopic?
            var end: Int64 = -1
            for index in 0..<batch.count {
                let message = batch[index]
                if message.partition != lastPartition || message.topic != lastTopic {
                    (lastPartition, lastTopic) = (message.partition, message.topic)
                    end = ends[message.partition]?[consumer.name(of: message.topic)] ?? -1
                }
                guard end >= 0 else { continue }
                if message.offset < end { try body(message) }
                if message.offset >= end - 1 {
                    ends[message.partition]?[consumer.name(of: message.topic)] = nil
                    end = -1
                    left -= 1
                }
            }
            faults.tell(batch.event)
            switch batch.event {
            case .lostPlace(let place): throw JoinError(.log, "\(place)")
            case .endOfPartition(let partition, _):
                if ends[partition.partition]?.removeValue(forKey: partition.topic) != nil { left -= 1 }
            case .error(let error, _) where !error.isRetriable: throw error
            default: break
            }
        }
        try consumer.unassign()
    }

    func close() { consumer.close(deadlineMs: 2000) }
}
