import KafkaClient
import Runtime

/// Reads the timestamps of single records at many places at once.
///
/// A consumer has one place in a partition, and librdkafka rests a second before it fetches more for one whose record
/// lies unread. So a reader is asked for at most one place of a partition, and several readers work side by side where
/// groups stand at different places of the same one. A record's time never changes, so what is asked again from one look to
/// the next, as for a group that does not move, is not read again.
final class RecordTimes {
    struct Place: Hashable {
        let partition: TopicPartition
        let offset: Int64
    }

    enum Found: Equatable {
        case timestampMs(Int64)
        /// Only markers of transactions, or what compaction left out, lie between here and the end.
        case nothing
    }

    private static let readersMax = 8

    private let kafka: KafkaConfiguration
    private let clock: any Clock
    private var readers: [Consumer] = []
    private var known: [Place: Found] = [:]

    init(_ kafka: KafkaConfiguration, clock: any Clock) {
        self.kafka = kafka
        self.clock = clock
    }

    func close(deadlineMs: Int) {
        for reader in readers { reader.close(deadlineMs: deadlineMs) }
        readers = []
    }

    /// The first record at or after each place; a place that is not in the answer could not be read in time.
    func read(_ wanted: Set<Place>, deadlineNs: UInt64) throws(KafkaError) -> [Place: Found] {
        known = known.filter { wanted.contains($0.key) }
        var waiting: [TopicPartition: [Int64]] = [:]
        for place in wanted where known[place] == nil {
            waiting[place.partition, default: []].append(place.offset)
        }
        while !waiting.isEmpty, clock.monotonicNs < deadlineNs {
            var rounds: [[TopicPartition: Int64]] = []
            for (partition, offsets) in waiting {
                for (index, offset) in offsets.prefix(Self.readersMax).enumerated() {
                    if rounds.count == index { rounds.append([:]) }
                    rounds[index][partition] = offset
                }
            }
            waiting = waiting.compactMapValues {
                $0.count > Self.readersMax ? Array($0.dropFirst(Self.readersMax)) : nil
            }
            try read(rounds, deadlineNs: deadlineNs)
        }
        return known
    }

    private func read(_ rounds: [[TopicPartition: Int64]], deadlineNs: UInt64) throws(KafkaError) {
        while readers.count < rounds.count { readers.append(try reader()) }
        var open = rounds
        for (index, places) in rounds.enumerated() {
            try readers[index].assign(places.map { PartitionStart($0.key, at: .offset($0.value)) })
        }
        while clock.monotonicNs < deadlineNs {
            let busy = open.indices.filter { !open[$0].isEmpty }
            if busy.isEmpty { break }
            for index in busy { take(from: readers[index], &open[index]) }
        }
        for index in rounds.indices { try readers[index].unassign() }
    }

    private func take(from reader: Consumer, _ open: inout [TopicPartition: Int64]) {
        let batch = reader.poll(maxMessages: 5000, timeoutMs: 2)
        for index in 0..<batch.count {
            let message = batch[index]
            let partition = TopicPartition(reader.name(of: message.topic), message.partition)
            guard let offset = open[partition], message.offset >= offset else { continue }
            known[Place(partition: partition, offset: offset)] = .timestampMs(message.timestampMs)
            open[partition] = nil
        }
        switch batch.event {
        case .endOfPartition(let partition, _):
            if let offset = open.removeValue(forKey: partition) {
                known[Place(partition: partition, offset: offset)] = .nothing
            }
        case .error(_, let partition?), .passedOver(let partition, _, _): open[partition] = nil
        // What the log has no place for has no time: the position is said to lie outside of it.
        case .lostPlace(let place): open[place.partition] = nil
        default: break
        }
    }

    private func reader() throws(KafkaError) -> Consumer {
        var options = ConsumerOptions()
        // One record a partition is wanted, but a fetch gives whole batches: too small a limit costs a round trip for
        // each time that librdkafka doubles it.
        options.partitionFetchBytesMax = 16 << 10
        options.queuedMessagesMin = 1
        options.fetchWaitMs = 50
        options.reportsEndOfPartition = true
        return try Consumer(kafka, options)
    }
}
