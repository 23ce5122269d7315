import Wire

/// A partition that another process has, followed by a standby so that it can be taken over at once.
///
/// Its part of the table is kept where the group's commit is, and no further: what is beyond has not been worked through,
/// and whoever takes over must tell it. That waits here.
final class FollowedPartition {
    let partition: Int32
    private(set) var committed: Int64
    private var changes = MembershipChanges()
    private var next: Int64
    private(set) var waiting = Backlog()
    /// So much waits that nothing more is read.
    var isPaused = false

    init(_ partition: Int32, from position: Int64, committed: Int64) {
        (self.partition, next, self.committed) = (partition, position, committed)
    }

    /// From where whoever takes over must read.
    var position: Int64 { changes.position(next: next) }

    func take(key: Span<UInt8>?, value: Span<UInt8>?, offset: Int64, _ table: inout MembershipTable) {
        if waiting.isEmpty, offset < committed {
            apply(key: key, value: value, offset: offset, &table)
            changes.settle(&table)
        } else {
            waiting.append(key: key, value: value, offset: offset, timestampMs: 0)
        }
    }

    /// The group has committed this.
    func committed(_ position: Int64, _ table: inout MembershipTable) {
        guard position > committed else { return }
        committed = position
        var backlog = Backlog()
        swap(&backlog, &waiting)
        backlog.drain { key, value, offset, _ in
            guard offset < committed else { return false }
            apply(key: key, value: value, offset: offset, &table)
            return true
        }
        swap(&backlog, &waiting)
        changes.settle(&table)
    }

    /// Everything below the commit has been read.
    func restored(_ table: inout MembershipTable) { changes.restored(into: &table) }

    func apply(key: Span<UInt8>?, value: Span<UInt8>?, offset: Int64, _ table: inout MembershipTable) {
        guard offset >= next else { return }
        next = offset + 1
        changes.restore(key: key, value: value, offset: offset, into: &table)
    }
}
