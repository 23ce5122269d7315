/// In which leader's epochs the batches of a log were taken, and where each begins: what tells a reader whether the log still
/// is the one that it read. An epoch in which nothing was written has no entry.
///
/// Every start of the broker is another leader: its epoch is larger than any before, also than those of a directory that
/// this one is an older copy of (`Catalog.nextEpoch`). A log that has lost its end, or was put back to an earlier state,
/// therefore goes on in an epoch that begins below what was read of it.
struct LeaderEpochs: Equatable {
    struct Entry: Equatable {
        var epoch: Int32
        var start: Int64
    }

    private(set) var entries: [Entry] = []
    /// More starts are not told apart: the oldest of those that wrote go first, and end where the next begins.
    static let countMax = 1000

    init(_ entries: [Entry] = []) { self.entries = entries }

    /// A batch of this epoch begins here.
    mutating func note(_ epoch: Int32, at offset: Int64) {
        guard epoch > entries.last?.epoch ?? -1 else { return }
        entries.append(Entry(epoch: epoch, start: offset))
        if entries.count > Self.countMax { entries.removeFirst() }
    }

    mutating func truncate(to end: Int64) {
        while let last = entries.last, last.start >= end { entries.removeLast() }
    }

    /// The newest epoch that is not above `epoch`, and where it ends in a log that ends at `logEnd`.
    func end(of epoch: Int32, logEnd: Int64) -> (epoch: Int32, offset: Int64) {
        let next = entries.first { $0.epoch > epoch }
        let known = entries.last { $0.epoch <= epoch }
        return (known?.epoch ?? epoch, min(next?.start ?? logEnd, logEnd))
    }

    func epoch(at offset: Int64) -> Int32? { entries.last { $0.start <= offset }?.epoch }
}
