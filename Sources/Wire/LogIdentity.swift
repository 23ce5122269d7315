/// Which log a position belongs to. An offset is worth something only in the log that it was taken from: a topic that
/// is deleted and made again under its name is another log, whose offsets begin again at 0.
///
/// It is the topic's id, which brokers give a topic for life (Apache Kafka from 2.8). Whoever keeps a position keeps
/// this beside it, and compares it before the position is used.
public struct LogIdentity: Hashable, Sendable {
    public let topicID: UUID

    /// nil for the id that brokers without topic ids name: nothing can be said of such a log.
    public init?(topicID: UUID) {
        guard topicID.high != 0 || topicID.low != 0 else { return nil }
        self.topicID = topicID
    }

    /// A short form, where every byte counts: in header `src`, in cursors. Two logs of one name have the same with a
    /// probability of one in four thousand million.
    public var tag: UInt32 {
        var mixed = topicID.high ^ topicID.low
        mixed ^= mixed >> 33
        mixed = mixed &* 0xff51_afd7_ed55_8ccd
        mixed ^= mixed >> 33
        return UInt32(truncatingIfNeeded: mixed)
    }
}
