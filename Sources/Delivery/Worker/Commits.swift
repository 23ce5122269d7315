import PushLink
public import Wire

/// The dedupe as of an offset at or before what is committed: what a commit's metadata can carry without making the next
/// owner drop records that were routed but not acknowledged.
struct DedupeSnapshot {
    /// May be told: everything before its offset is acknowledged.
    var settled: (text: String, offset: Int64)?
    /// Waits until it is.
    var candidate: (text: String, offset: Int64)?
}

/// How far a partition may be committed, with the note for its next owner.
public struct CommitPosition: Equatable, Sendable {
    public let partition: Int32
    /// The next record to read.
    public let offset: Int64
    public let note: CommitNote
}

/// The metadata of a committed offset: `term=7 log=<topic id> at=1200 chat.incoming@1a2b3c4d=0:17,3:22;chat.signals…`. The
/// term tells owners apart, the log is what the offset is of; the rest is rule 3's state as of an offset at or before the
/// committed one.
public struct CommitNote: Equatable, Sendable {
    public let term: UInt64
    public let log: LogIdentity?
    public let dedupe: String
    public let at: Int64

    /// Kafka's default limit on metadata is 4096 bytes.
    static let byteCountMax = 4_000

    public init(term: UInt64, log: LogIdentity? = nil, dedupe: String = "", at: Int64 = 0) {
        self.term = term
        self.log = log
        self.dedupe = dedupe
        self.at = at
    }

    public var text: String {
        let owner = "term=\(term)" + (log.map { " log=\($0.topicID)" } ?? "")
        let full = "\(owner) at=\(at) \(dedupe)"
        // Too many sources to tell: the records before the committed offset tell most of it.
        return dedupe.isEmpty || full.utf8.count > Self.byteCountMax ? owner : full
    }

    /// What is not a note (of another tool, or none) is as good as the first owner's.
    public init(text: String) {
        var term: UInt64 = 0
        var log: LogIdentity?
        var at: Int64?
        var dedupe = ""
        for part in text.split(separator: " ") {
            if part.hasPrefix("term=") {
                term = UInt64(part.dropFirst(5)) ?? 0
            } else if part.hasPrefix("log=") {
                log = UUID(part.dropFirst(4)).flatMap { LogIdentity(topicID: $0) }
            } else if part.hasPrefix("at=") {
                at = Int64(part.dropFirst(3))
            } else {
                dedupe = String(part)
            }
        }
        self.init(term: term, log: log, dedupe: at == nil ? "" : dedupe, at: at ?? 0)
    }

    /// The dedupe it carries, if it can be read.
    public var saved: (state: SourceDedupe, offset: Int64)? {
        guard !dedupe.isEmpty, let state = SourceDedupe(text: dedupe) else { return nil }
        return (state, at)
    }
}

extension DeliveryWorker {
    /// Where each live partition may be committed: behind everything that is acknowledged by every instance, and whose
    /// pushes and refusals are in the log.
    public func commitPositions() -> [CommitPosition] {
        var lowest: [Int32: Int64] = [:]
        for partition in partitions where partition.phase == .live {
            lowest[partition.number] = partition.routed.offset + 1
        }
        func limit(_ partition: Int32, _ offset: Int64) {
            if let known = lowest[partition], offset < known { lowest[partition] = offset }
        }
        for case let instance? in instances { instance.link?.forEachInFlight { limit($0, $1) } }
        for partition in partitions {
            for offset in partition.heldFrom.values { limit(partition.number, offset) }
        }
        push.forEachPending { limit($0, $1) }
        for refused in rejected { limit(refused.partition, refused.offset) }
        for (partition, offset) in outputsInFlight.values { limit(partition, offset) }
        return partitions.compactMap { partition in
            guard let offset = lowest[partition.number] else { return nil }
            return CommitPosition(
                partition: partition.number, offset: offset, note: note(for: partition, committing: offset))
        }
    }

    private func note(for partition: DeliveryPartition, committing offset: Int64) -> CommitNote {
        var snapshot = dedupeSnapshots[partition.number] ?? DedupeSnapshot()
        if let candidate = snapshot.candidate, candidate.offset <= offset {
            snapshot.settled = candidate
            snapshot.candidate = nil
        }
        if snapshot.candidate == nil, snapshot.settled?.offset != partition.routed.offset + 1 {
            snapshot.candidate = (partition.dedupeState.text, partition.routed.offset + 1)
            if partition.routed.offset + 1 <= offset {
                snapshot.settled = snapshot.candidate
                snapshot.candidate = nil
            }
        }
        dedupeSnapshots[partition.number] = snapshot
        guard let settled = snapshot.settled else { return CommitNote(term: partition.term, log: partition.log) }
        return CommitNote(term: partition.term, log: partition.log, dedupe: settled.text, at: settled.offset)
    }
}
