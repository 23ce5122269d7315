internal import Wire

/// Marks of readers ("I have everything up to seq") that are ahead of what is stored.
///
/// Messages and signals are two topics, so a mark may come before its message. A mark may also name a message that will
/// never be: kept as it is, it would hide from its reader whatever comes. Which of the two it is shows when all messages
/// that the log had before the mark are stored: until then the mark waits here, and then it counts as far as there
/// is something. The position of its partition waits with it, so that a crash loses none.
struct EarlyMarks {
    private struct Entry {
        var reading: SinkBatch.Reading
        /// The first signal in it, and when the log took the last.
        var offset: Int64
        var recordMs: Int64
    }

    /// How far the messages of a partition are stored.
    struct Reached: Equatable {
        var seq: Int64
        /// All that the log took before this is stored.
        var ms: Int64
    }

    private var waiting: [SinkBatch.Reader: Entry] = [:]

    /// Marks and messages are stamped by different brokers.
    static let slackMs: Int64 = 1000

    var isEmpty: Bool { waiting.isEmpty }
    /// With so many readers no more signals are read until some of their marks are stored.
    var isFull: Bool { waiting.count >= Self.readersMax }
    static let readersMax = 100_000

    mutating func removeAll() { waiting.removeAll() }

    /// Keeps a signal of the log.
    mutating func hold(_ reader: SinkBatch.Reader, _ reading: SinkBatch.Reading, offset: Int64, recordMs: Int64) {
        guard var entry = waiting[reader] else {
            waiting[reader] = Entry(reading: reading, offset: offset, recordMs: recordMs)
            return
        }
        entry.reading.add(reading)
        entry.recordMs = max(entry.recordMs, recordMs)
        waiting[reader] = entry
    }

    /// Takes out what may be stored now: what is there, and of what will not come as much as there is.
    mutating func take(_ reached: (Int32) -> Reached?) -> [(reader: SinkBatch.Reader, reading: SinkBatch.Reading)] {
        var ready: [(reader: SinkBatch.Reader, reading: SinkBatch.Reading)] = []
        for (reader, entry) in waiting {
            guard let reached = reached(entry.reading.partition) else { continue }
            let isThere = entry.reading.highest <= reached.seq
            guard isThere || reached.ms >= entry.recordMs + Self.slackMs else { continue }
            ready.append((reader, isThere ? entry.reading : entry.reading.limited(to: reached.seq)))
            waiting[reader] = nil
        }
        return ready
    }

    /// Where the signals of each partition must be read again, should this be lost.
    var positions: [Int32: Int64] {
        waiting.values.reduce(into: [:]) { $0[$1.reading.partition] = min($0[$1.reading.partition] ?? .max, $1.offset) }
    }
}

extension SinkBatch.Reading {
    var highest: Int64 { max(readSeq, deliveredSeq) }

    mutating func add(_ other: Self) {
        readSeq = max(readSeq, other.readSeq)
        deliveredSeq = max(deliveredSeq, other.deliveredSeq)
        limitSeq = min(limitSeq, other.limitSeq)
    }

    func limited(to seq: Int64) -> Self {
        var limited = self
        limited.limitSeq = seq
        return limited
    }
}
