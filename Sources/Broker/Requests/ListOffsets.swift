import Wire

/// ListOffsets (2), versions 1–10: the earliest offset, the latest, or the first at or after a time.
///
/// A time is answered to the record: its batch is decoded, through the system's libraries when it is compressed. Gaps:
/// tiered storage's special times are answered as if nothing were tiered.
struct ListOffsetsRequest: Request {
    static let api = API(2, "ListOffsets", 1...10, flexibleFrom: 6)

    struct Partition {
        var index: Int32
        var leaderEpoch: Int32
        var timestamp: Int64
    }

    struct Topic {
        var name: String
        var partitions: [Partition]
    }

    let topics: [Topic]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        _ = try reader.int32()
        if version >= 2 { _ = try reader.int8() }
        topics = try reader.array { reader throws(BrokerError) in
            let name = try reader.string()
            let partitions = try reader.array { reader throws(BrokerError) in
                let index = try reader.int32()
                let epoch = version >= 4 ? try reader.int32() : -1
                let timestamp = try reader.int64()
                try reader.skipTags()
                return Partition(index: index, leaderEpoch: epoch, timestamp: timestamp)
            }
            try reader.skipTags()
            return Topic(name: name, partitions: partitions)
        }
        if version >= 10 { _ = try reader.int32() }
    }

    private enum Special {
        static let latest: Int64 = -1
        static let earliest: Int64 = -2
        static let maxTimestamp: Int64 = -3
        static let earliestLocal: Int64 = -4
        static let latestTiered: Int64 = -5
    }

    private struct Found {
        var error = ErrorCode.none
        var timestamp: Int64 = -1
        var offset: Int64 = -1
        var leaderEpoch: Int32 = -1
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let version = reply.version
        reply.send { writer in
            if version >= 2 { writer.int32(0) }
            writer.array(topics) { writer, topic in
                writer.string(topic.name)
                writer.array(topic.partitions) { writer, partition in
                    let found = find(topic.name, partition, broker)
                    writer.int32(partition.index)
                    writer.error(found.error)
                    writer.int64(found.timestamp)
                    writer.int64(found.offset)
                    if version >= 4 { writer.int32(found.leaderEpoch) }
                    writer.noTags()
                }
                writer.noTags()
            }
            writer.noTags()
        }
    }

    private func find(_ topic: String, _ partition: Partition, _ broker: BrokerCore) -> Found {
        guard let log = broker.partition(topic, partition.index) else { return Found(error: .unknownTopicOrPartition) }
        let error = log.check(leaderEpoch: partition.leaderEpoch)
        guard error == .none else { return Found(error: error) }
        var found = find(partition, in: log, broker)
        if found.offset >= 0 {
            let isEnd = partition.timestamp == Special.latest
            found.leaderEpoch = (isEnd ? nil : log.epochs.epoch(at: found.offset)) ?? log.leaderEpoch
        }
        return found
    }

    private func find(_ partition: Partition, in log: PartitionLog, _ broker: BrokerCore) -> Found {
        switch partition.timestamp {
        case Special.latest: return Found(offset: log.highWatermark)
        case Special.earliest, Special.earliestLocal: return Found(offset: log.startOffset)
        case Special.latestTiered: return Found()
        default:
            do throws(BrokerError) {
                if partition.timestamp == Special.maxTimestamp { return try Self.newest(in: log) }
                guard partition.timestamp >= 0 else { return Found() }
                return try log.search(notBefore: partition.timestamp) { batch, bytes in
                    Self.find(partition.timestamp, in: batch, bytes, from: log.startOffset)
                } ?? Found()
            } catch {
                broker.reportStorage(error)
                return Found(error: error.protocolCode)
            }
        }
    }

    /// The record with the largest timestamp: usually where the log's own largest is.
    private static func newest(in log: PartitionLog) throws(BrokerError) -> Found {
        let first = try log.search(notBefore: log.maxTimestamp) { batch, bytes in
            find(log.maxTimestamp, in: batch, bytes, from: log.startOffset)
        }
        if let first { return first }
        // The record that had it is gone.
        var newest = Found()
        _ = try log.search(notBefore: 0) { (batch, bytes) -> Found? in
            guard batch.maxTimestamp > newest.timestamp else { return nil }
            for record in records(in: batch, bytes, from: log.startOffset) where record.timestamp > newest.timestamp {
                newest = record
            }
            return nil
        }
        return newest
    }

    private static func find(_ timestamp: Int64, in batch: RecordBatch, _ bytes: [UInt8], from start: Int64) -> Found? {
        records(in: batch, bytes, from: start).first { $0.timestamp >= timestamp }
    }

    /// The places and times of a batch's records. Of one whose codec cannot be decoded, or that was stamped as a whole, it
    /// is one entry for all: nothing that is asked for comes before the batch.
    private static func records(in batch: RecordBatch, _ bytes: [UInt8], from start: Int64) -> [Found] {
        guard !batch.usesLogAppendTime, let records = try? batch.records(of: bytes) else {
            return [Found(timestamp: batch.maxTimestamp, offset: max(batch.baseOffset, start))]
        }
        var found: [Found] = []
        var position = 0
        while let record = Record(records.span, at: position) {
            position = record.range.upperBound
            let offset = batch.baseOffset + Int64(record.offsetDelta)
            // A producer may have written any numbers.
            if offset >= start {
                found.append(Found(timestamp: batch.baseTimestamp &+ record.timestampDelta, offset: offset))
            }
        }
        return found
    }
}
