internal import System
import Wire

/// What start-up need not find out again: for every partition with data, up to where its files were verified and
/// synchronized, and which producers wrote there. One file, replaced as a whole.
///
///     magic "FNTCKP2\n" · checksum of the rest · journal generation that is included · partitions
struct Checkpoint {
    struct Partition {
        var topic: UInt32
        var partition: Int32
        var recovered: PartitionLog.Recovered
    }

    /// Journal files up to this generation hold nothing that the segment files do not.
    var generation: UInt64
    var partitions: [Partition] = []

    private static let magic: [UInt8] = Array("FNTCKP2\n".utf8)
    /// Before there were leaders' epochs: all was written in epoch 0.
    private static let oldMagic: [UInt8] = Array("FNTCKP1\n".utf8)

    func encoded() -> [UInt8] {
        var file = Self.magic
        file.appendBigEndian(UInt32(0))
        file.appendBigEndian(generation)
        file.appendBigEndian(UInt32(partitions.count))
        for entry in partitions {
            let known = entry.recovered
            file.appendBigEndian(entry.topic)
            file.appendBigEndian(entry.partition)
            file.appendBigEndian(known.startOffset)
            let verified =
                known.verified ?? LogPosition(offset: known.startOffset, segment: known.startOffset, position: 0)
            file.appendBigEndian(verified.offset)
            file.appendBigEndian(verified.segment)
            file.appendBigEndian(Int64(verified.position))
            file.appendBigEndian(known.segmentMaxTimestamp)
            file.appendBigEndian(known.cleanedOffset)
            file.appendBigEndian(known.tombstones?.below ?? -1)
            file.appendBigEndian(known.tombstones?.sinceMs ?? 0)
            file.appendBigEndian(UInt32(known.epochs.entries.count))
            for entry in known.epochs.entries {
                file.appendBigEndian(entry.epoch)
                file.appendBigEndian(entry.start)
            }
            // Batches beyond the verified place may yet be taken back; they are found again when the log is checked.
            let producers = known.producers.producers.compactMap { id, producer in
                let batches = producer.batches.filter { $0.lastOffset < verified.offset }
                return batches.isEmpty ? nil : (id, producer, batches)
            }
            file.appendBigEndian(UInt32(producers.count))
            for (id, producer, batches) in producers {
                file.appendBigEndian(id)
                file.appendBigEndian(producer.epoch)
                file.appendBigEndian(producer.lastSeenMs)
                file.appendBigEndian(UInt32(batches.count))
                for batch in batches {
                    file.appendBigEndian(batch.firstSequence)
                    file.appendBigEndian(batch.lastSequence)
                    file.appendBigEndian(batch.firstOffset)
                    file.appendBigEndian(batch.lastOffset)
                    file.appendBigEndian(batch.timestamp)
                }
            }
        }
        file.setBigEndian(CRC32C.checksum(file.span.extracting(12..<file.count)), at: 8)
        return file
    }

    init(generation: UInt64) { self.generation = generation }

    init(decoding file: [UInt8]) throws(BrokerError) {
        let isOld = file.starts(with: Self.oldMagic)
        guard file.count >= 12, isOld || file.starts(with: Self.magic),
            CRC32C.checksum(file.span.extracting(12..<file.count)) == file.span.bigEndian(at: 8)
        else { throw BrokerError(.corrupt, "the checkpoint is damaged") }
        var reader = RequestReader(file.span.extracting(12..<file.count))
        generation = UInt64(bitPattern: try reader.int64())
        partitions = try reader.array { reader throws(BrokerError) in
            let topic = UInt32(bitPattern: try reader.int32())
            let partition = try reader.int32()
            var known = PartitionLog.Recovered()
            known.startOffset = try reader.int64()
            known.verified = LogPosition(
                offset: try reader.int64(), segment: try reader.int64(), position: Int(try reader.int64()))
            known.segmentMaxTimestamp = try reader.int64()
            known.cleanedOffset = try reader.int64()
            let tombstones = (below: try reader.int64(), sinceMs: try reader.int64())
            if tombstones.below >= 0 { known.tombstones = tombstones }
            if isOld {
                known.epochs.note(0, at: known.startOffset)
            } else {
                known.epochs = LeaderEpochs(
                    try reader.array { reader throws(BrokerError) in
                        LeaderEpochs.Entry(epoch: try reader.int32(), start: try reader.int64())
                    })
            }
            let producers = try reader.array { reader throws(BrokerError) in
                let id = try reader.int64()
                let epoch = try reader.int16()
                let lastSeenMs = try reader.int64()
                let batches = try reader.array { reader throws(BrokerError) in
                    ProducerTable.Batch(
                        firstSequence: try reader.int32(), lastSequence: try reader.int32(),
                        firstOffset: try reader.int64(), lastOffset: try reader.int64(),
                        timestamp: try reader.int64())
                }
                return (id, ProducerTable.Producer(epoch: epoch, batches: batches, lastSeenMs: lastSeenMs))
            }
            for (id, producer) in producers { known.producers.restore(id, producer) }
            return Partition(topic: topic, partition: partition, recovered: known)
        }
        try reader.finish()
    }
}
