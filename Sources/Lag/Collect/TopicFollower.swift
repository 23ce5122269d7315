import KafkaClient
import Runtime

/// The newest records of some partitions, and then, from one look to the next, whatever is added to them.
final class TopicFollower {
    private let consumer: Consumer
    /// How far back the first look goes, and every look that finds more than this unread.
    private let tail: Int64
    private let clock: any Clock
    private var next: [TopicPartition: Int64] = [:]

    init(_ kafka: KafkaConfiguration, tail: Int64, clock: any Clock) throws(KafkaError) {
        self.tail = tail
        self.clock = clock
        var options = ConsumerOptions()
        options.fetchWaitMs = 50
        // What was compacted away or marks a transaction never comes; the end does.
        options.reportsEndOfPartition = true
        consumer = try Consumer(kafka, options)
    }

    func close(deadlineMs: Int) { consumer.close(deadlineMs: deadlineMs) }

    /// Reads on to these ends. Whether it came there in time; the next call goes on where this one stopped.
    func catchUp(
        to ends: [TopicPartition: Watermarks], deadlineNs: UInt64, _ each: (TopicPartition, borrowing Message) -> Void
    ) throws(KafkaError) -> Bool {
        try assign(ends)
        while true {
            let isBehind = ends.contains { partition, marks in (next[partition] ?? marks.high) < marks.high }
            guard isBehind else { return true }
            guard clock.monotonicNs < deadlineNs else { return false }
            let batch = consumer.poll(maxMessages: 1000, timeoutMs: 20)
            for index in 0..<batch.count {
                let message = batch[index]
                let place = TopicPartition(consumer.name(of: message.topic), message.partition)
                next[place] = message.offset + 1
                each(place, message)
            }
            switch batch.event {
            case .endOfPartition(let place, let offset): next[place] = offset
            // The next look starts over: it is in the list no more.
            case .lostPlace(let place):
                next[place.partition] = nil
                return false
            case .error(let error, _) where !error.isRetriable: throw error
            default: break
            }
        }
    }

    /// Starts over wherever the log is not the one that was read before: a new partition, one that was made anew, one
    /// whose records went faster than we came.
    private func assign(_ ends: [TopicPartition: Watermarks]) throws(KafkaError) {
        var isChanged = ends.count != next.count
        for (partition, marks) in ends {
            let first = max(marks.low, marks.high - tail)
            if let place = next[partition], place >= first, place <= marks.high { continue }
            next[partition] = first
            isChanged = true
        }
        guard isChanged else { return }
        next = next.filter { ends[$0.key] != nil }
        try consumer.assign(next.map { PartitionStart($0.key, at: .offset($0.value)) })
    }
}
