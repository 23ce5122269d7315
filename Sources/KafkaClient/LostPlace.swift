public import Wire

/// Why a partition is not read on: its place is not one of the log that is there now.
public struct LostPlace: Hashable, Sendable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        /// The topic was deleted; with an identity, another was made under its name.
        case anotherLog(LogIdentity?)
        /// The log was cut off below the place, by a leader that did not have what was read; up to `end` it is the same. nil
        /// when its leader cannot say where.
        case truncated(end: Int64?)
        /// The place lies before the log's beginning, which retention has moved, or behind its end. nil when the leader
        /// could not be asked.
        case outOfRange(Watermarks?)
    }

    public let partition: TopicPartition
    /// What would have been read next; nil when that was not known yet.
    public let position: Int64?
    /// The log that the position belongs to, and the leader's epoch that what it follows was taken in: what to go on with at the
    /// place where a log was cut off.
    public let log: LogIdentity?
    public let leaderEpoch: Int32?
    public let reason: Reason

    public init(
        partition: TopicPartition, position: Int64?, log: LogIdentity?, leaderEpoch: Int32?, reason: Reason
    ) {
        self.partition = partition
        self.position = position
        self.log = log
        self.leaderEpoch = leaderEpoch
        self.reason = reason
    }

    /// Where what was not read of the log that is there now begins: where it was cut off, else at its beginning.
    public var unread: PartitionStart {
        guard case .truncated(let end?) = reason else { return PartitionStart(partition, at: .beginning) }
        return PartitionStart(partition, at: .offset(end), log: log, leaderEpoch: leaderEpoch)
    }

    /// A short name of the reason.
    public var kind: String {
        switch reason {
        case .anotherLog(nil): "deleted"
        case .anotherLog: "another_log"
        case .truncated: "truncated"
        case .outOfRange: "out_of_range"
        }
    }

    /// What stands where, and what is lost.
    public var description: String {
        let place = "\(partition) at \(position.map { "offset \($0)" } ?? "its start")"
        switch reason {
        case .anotherLog(let other):
            let known = log.map { " \($0.topicID)" } ?? ""
            guard let other else { return "\(place): the topic\(known) is gone; what was not read of it is lost" }
            return "\(place): the topic\(known) was deleted and made again as \(other.topicID); "
                + "what was not read of it is lost"
        case .truncated(let end?):
            return "\(place): the log was cut off at \(end); what was read from there on is not in it any more"
        case .truncated(nil):
            return "\(place): the log was cut off, nobody knows where; some of what was read is not in it any more"
        case .outOfRange(nil): return "\(place): there is no such offset in the log"
        case .outOfRange(let log?):
            guard let position else { return "\(place): the log has \(log.low)..<\(log.high)" }
            return position < log.low
                ? "\(place): the log begins at \(log.low); \(log.low - position) offsets are lost unread"
                : "\(place): the log ends at \(log.high), before what was read"
        }
    }
}
