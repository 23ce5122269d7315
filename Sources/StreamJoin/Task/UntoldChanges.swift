/// What is to be told of changes of membership, until the changes are committed.
///
/// Readers follow a large chat by what they are told of its members. If they were told before, and the join died then, its
/// successor would join messages against the membership of the commit behind what is told of a later one.
struct UntoldChanges: Sendable {
    private struct Entry: Sendable {
        /// From where the log is to be read so that this is told again.
        var start: Int64
        /// What must be committed before it may be told.
        var end: Int64
        /// Its last record's number among all, from 1.
        var records: Int
    }

    var output = JoinOutput()
    private var entries: [Entry] = []

    /// With more than this, changes wait in the log.
    static let bytesMax = 256 << 10

    var isFull: Bool { output.bytes.count > Self.bytesMax }
    /// Below it everything has been told.
    var start: Int64? { entries.first?.start }

    /// What has come to the output since the last time is about changes between these positions of the table.
    mutating func note(from start: Int64, to end: Int64) {
        guard output.records.count > entries.last?.records ?? 0 else { return }
        entries.append(Entry(start: start, end: end, records: output.records.count))
    }

    /// Hands over what may be told when the changes up to there are committed.
    mutating func tell(upTo applied: Int64, to told: inout JoinOutput) {
        let count = entries.firstIndex { $0.end > applied } ?? entries.count
        guard count > 0 else { return }
        let records = entries[count - 1].records
        told.append(first: records, of: output)
        output.removeFirst(records)
        entries.removeFirst(count)
        for index in entries.indices { entries[index].records -= records }
    }
}
