internal import PostgresClient

/// How far everything has been acknowledged by Kafka, and so what may be confirmed to Postgres.
///
/// Records are counted, not listed: one entry for each transaction, whatever its size. Acknowledgements come in any
/// order; the position moves over a transaction when it has ended and none of its records is outstanding, and never
/// past one that still has some.
struct PositionTracker {
    private struct Entry {
        var end: LSN?
        var outstanding = 0
    }

    private var entries: [Entry] = []
    private var first = 0
    /// The tag of `entries[first]`.
    private var firstTag: UInt64 = 1
    /// All up to here is in Kafka.
    private(set) var confirmable: LSN

    init(from position: LSN) { confirmable = position }

    var isIdle: Bool { first == entries.count }
    /// Transactions that are not fully acknowledged.
    var pendingCount: Int { entries.count - first }

    /// Begins a transaction and answers the tag of its records.
    mutating func begin() -> UInt64 {
        entries.append(Entry())
        return firstTag + UInt64(entries.count - first - 1)
    }

    /// A record of the last transaction begun was handed to Kafka.
    @inline(__always)
    mutating func sent() { entries[entries.count - 1].outstanding &+= 1 }

    mutating func acknowledged(_ tag: UInt64) {
        let index = first + Int(tag - firstTag)
        precondition(tag >= firstTag && index < entries.count, "an acknowledgement of an unknown transaction")
        entries[index].outstanding -= 1
        if index == first { advance() }
    }

    /// The last transaction begun has ended; `end` is where the log goes on after it.
    mutating func end(at end: LSN) {
        entries[entries.count - 1].end = end
        advance()
    }

    /// The server has sent everything up to there, and no transaction is under way.
    mutating func reached(_ position: LSN) {
        if isIdle {
            confirmable = max(confirmable, position)
        } else if let end = entries[entries.count - 1].end {
            entries[entries.count - 1].end = max(end, position)
        }
    }

    private mutating func advance() {
        while first < entries.count, entries[first].outstanding == 0, let end = entries[first].end {
            confirmable = max(confirmable, end)
            first += 1
            firstTag += 1
        }
        if first == entries.count || first > 4096 {
            entries.removeFirst(first)
            first = 0
        }
    }
}
