public import Wire

/// Which worker's link owns each delivery partition, as one instance has heard it, and how far each owner's stream has
/// come. `Link` is whatever the chat server calls a link by.
public struct OwnerTable<Link: Hashable> {
    private struct Ownership {
        var term: UInt64 = 0
        var link: Link?
        var heard: Cursor?
    }

    public enum Outcome: Equatable {
        /// Send the partition's sessions and watches. `lostBy` had it until now: its sessions first lose their owner.
        case accepted(lostBy: Link?, heard: Cursor?)
        case refused(term: UInt64)
    }

    private var partitions: [Ownership] = []

    public init() {}

    /// Zero until the first claim has told it.
    public var partitionCount: Int32 { Int32(partitions.count) }

    /// A claim with another partition count than the first is refused: the topic cannot change it.
    public mutating func claim(_ claim: PartitionClaim, partitionCount: Int32, by link: Link) -> Outcome {
        if partitions.isEmpty {
            partitions = [Ownership](repeating: Ownership(), count: Int(partitionCount))
        }
        guard partitions.count == Int(partitionCount), claim.partition < partitionCount else {
            return .refused(term: .max)
        }
        let old = partitions[Int(claim.partition)]
        guard claim.term >= old.term else { return .refused(term: old.term) }
        partitions[Int(claim.partition)] = Ownership(term: claim.term, link: link, heard: nil)
        return .accepted(lostBy: old.link, heard: old.heard)
    }

    /// The link's claim is given up; answers how far its stream had come, or `nil` when it was not the owner.
    public mutating func release(_ partition: Int32, by link: Link) -> Cursor?? {
        guard isOwner(link, of: partition) else { return nil }
        let heard = partitions[Int(partition)].heard
        partitions[Int(partition)].link = nil
        partitions[Int(partition)].heard = nil
        return .some(heard)
    }

    /// The link has ended; answers the partitions it owned and how far each had come.
    public mutating func remove(_ link: Link) -> [(partition: Int32, heard: Cursor?)] {
        var lost: [(partition: Int32, heard: Cursor?)] = []
        for index in partitions.indices where partitions[index].link == link {
            lost.append((Int32(index), partitions[index].heard))
            partitions[index].link = nil
            partitions[index].heard = nil
        }
        return lost
    }

    public func isOwner(_ link: Link, of partition: Int32) -> Bool {
        partition >= 0 && partition < partitionCount && partitions[Int(partition)].link == link
    }

    /// A batch or progress report has come from a link; answers whether it owns the partition, so that it counts.
    public mutating func heard(_ cursor: Cursor, of partition: Int32, from link: Link) -> Bool {
        guard isOwner(link, of: partition) else { return false }
        if cursor.offset > partitions[Int(partition)].heard?.offset ?? -1 { partitions[Int(partition)].heard = cursor }
        return true
    }

    public func owner(of partition: Int32) -> Link? {
        partition >= 0 && partition < partitionCount ? partitions[Int(partition)].link : nil
    }

    /// The partition of a user, once the count is known.
    public func partition(of user: UserID) -> Int32? {
        partitions.isEmpty ? nil : user.partition(count: partitionCount)
    }
}
