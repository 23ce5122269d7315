/// Which offset of each partition may be committed: the first whose record is not settled. Records settle in any order;
/// a crash repeats only what lies behind the first unsettled one.
public struct CommitTracker {
    private struct Partition {
        /// The offset of `settled[start]`.
        var base: Int64
        var settled: [Bool] = []
        var start = 0
        var committed: Int64
        /// How many are not settled.
        var open = 0
        var next: Int64 { base + Int64(span) }
        var span: Int { settled.count - start }
    }

    private var partitions: [Int32: Partition] = [:]
    /// Records that are not settled: what the stage holds in memory.
    public private(set) var open = 0

    public init() {}

    /// The most offsets that any partition remembers behind an unsettled one: one record that takes long keeps all that
    /// were settled after it from being committed.
    public var spanMax: Int { partitions.values.reduce(0) { max($0, $1.span) } }

    public mutating func begin(_ record: RecordPosition) {
        var partition =
            partitions.removeValue(forKey: record.partition)
            ?? Partition(base: record.offset, committed: record.offset)
        // Offsets that the log skips (compaction, control records) are settled from the start.
        while partition.next < record.offset { partition.settled.append(true) }
        if partition.next == record.offset {
            partition.settled.append(false)
            partition.open += 1
            open += 1
        }
        partitions[record.partition] = partition
    }

    public mutating func settle(_ record: RecordPosition) {
        guard var partition = partitions.removeValue(forKey: record.partition) else { return }
        let index = partition.start + Int(record.offset - partition.base)
        if index >= partition.start, index < partition.settled.count, !partition.settled[index] {
            partition.settled[index] = true
            partition.open -= 1
            open -= 1
        }
        while partition.start < partition.settled.count, partition.settled[partition.start] {
            partition.start += 1
            partition.base += 1
        }
        if partition.start > 4096, partition.start * 2 > partition.settled.count {
            partition.settled.removeFirst(partition.start)
            partition.start = 0
        }
        partitions[record.partition] = partition
    }

    public mutating func remove(partition: Int32) {
        open -= partitions.removeValue(forKey: partition)?.open ?? 0
    }

    /// A commit failed: the next one tells everything again.
    public mutating func commitAgain() {
        for number in partitions.keys { partitions[number]?.committed = -1 }
    }

    /// What has become committable since the last call.
    /// - Parameter withWaiting: also where partitions stand that have not moved but have something open, for the note that goes
    ///   with a commit.
    public mutating func takeCommittable(withWaiting: Bool = false) -> [(partition: Int32, offset: Int64)] {
        var result: [(partition: Int32, offset: Int64)] = []
        for (number, partition) in partitions
        where partition.base > partition.committed || withWaiting && partition.open > 0 {
            result.append((number, partition.base))
            partitions[number]?.committed = partition.base
        }
        return result
    }
}
