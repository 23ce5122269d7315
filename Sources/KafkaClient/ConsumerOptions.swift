public struct ConsumerOptions: Sendable {
    /// The group whose positions are committed, and joined by `subscribe`. nil for a reader which only assigns.
    public var groupID: String?
    /// A stable name of this member: after a restart within the session timeout it gets its partitions back without a
    /// rebalance.
    public var groupInstanceID: String?
    public var strategy = Strategy.range
    /// Where to start in a partition with no committed position. A position that is no longer in the log is never replaced
    /// by this: it is a `ConsumerEvent.lostPlace`.
    public var startWithoutCommit = StartWithoutCommit.earliest
    /// Report when the end of a partition is reached (`ConsumerEvent.endOfPartition`).
    public var reportsEndOfPartition = false
    public var sessionTimeoutMs = 10_000
    public var heartbeatIntervalMs = 3_000
    /// The group takes the partitions away from a member which has not polled for this long. Polling any queue of
    /// the client counts as polling (librdkafka 2.0.2), so a stage that polls and is stuck keeps them.
    public var pollIntervalMaxMs = 300_000
    /// The broker answers a fetch once it has this much, or after `fetchWaitMs`.
    public var fetchBytesMin = 1
    public var fetchWaitMs = 500
    public var fetchBytesMax = 16 << 20
    public var partitionFetchBytesMax = 1 << 20
    /// How much may wait in this process, over all partitions. Nothing is fetched while there is more, and librdkafka
    /// before 2.2 looks again only after a second: where it fetches, this, and not what the consumer can do, is what a
    /// stage that is behind reads a second.
    public var queuedBytesMax = 64 << 20
    /// The same for the number of messages, where librdkafka fetches.
    public var queuedMessagesMin = 200_000
    /// Whether librdkafka compares checksums; our own fetching always does.
    public var checksCRCs = false
    public var allowsTopicCreation = false

    /// Cooperative-sticky is not here: librdkafka 2.0.2 loses its way in it. With static membership these two move
    /// no more partitions than needed in practice.
    public enum Strategy: String, Sendable, CaseIterable {
        /// Partition n of every subscribed topic goes to the same member: topics with equal counts stay co-located.
        case range
        case roundrobin
    }

    public enum StartWithoutCommit: String, Sendable { case earliest, latest, error }

    public init(groupID: String? = nil) { self.groupID = groupID }
}

extension ConsumerOptions {
    var properties: [(String, String)] {
        var all: [(String, String)] = [
            // librdkafka wants a group for every consumer; a reader which never subscribes or commits joins none.
            ("group.id", groupID ?? "fanout.reader"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("partition.assignment.strategy", strategy.rawValue),
            // What there is no commit for is decided before (`Consumer.resolved`).
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", reportsEndOfPartition ? "true" : "false"),
            ("session.timeout.ms", "\(sessionTimeoutMs)"),
            ("heartbeat.interval.ms", "\(heartbeatIntervalMs)"),
            ("max.poll.interval.ms", "\(max(pollIntervalMaxMs, sessionTimeoutMs))"),
            ("socket.nagle.disable", "true"),
            ("fetch.min.bytes", "\(fetchBytesMin)"),
            ("fetch.wait.max.ms", "\(fetchWaitMs)"),
            ("fetch.max.bytes", "\(fetchBytesMax)"),
            ("fetch.message.max.bytes", "\(partitionFetchBytesMax)"),
            ("queued.min.messages", "\(queuedMessagesMin)"),
            ("queued.max.messages.kbytes", "\(max(1, queuedBytesMax >> 10))"),
            // The default of 500 ms is how long a partition rests after any failed fetch, such as a leader's move.
            ("fetch.error.backoff.ms", "10"),
            ("reconnect.backoff.ms", "20"),
            ("reconnect.backoff.max.ms", "1000"),
            ("topic.metadata.refresh.fast.interval.ms", "50"),
            // A subscribed topic that is made later, or grows, is noticed within this; the default is five minutes.
            ("topic.metadata.refresh.interval.ms", "1000"),
            ("check.crcs", checksCRCs ? "true" : "false"),
            ("allow.auto.create.topics", allowsTopicCreation ? "true" : "false"),
        ]
        if let groupInstanceID { all.append(("group.instance.id", groupInstanceID)) }
        return all
    }
}

/// What a consumer learns beside messages.
public enum ConsumerEvent: Sendable {
    /// The group gave these partitions. Answer with `assign`, which may name partitions of other topics too.
    case assigned([TopicPartition])
    /// The group takes these away. Finish or drop what is under way, commit unless `lost`, then answer with
    /// `unassign`. When lost, others may have them already and a commit would fail.
    case revoked([TopicPartition], lost: Bool)
    /// There was nothing after this offset when the broker answered.
    case endOfPartition(TopicPartition, nextOffset: Int64)
    /// The result of `commitLater`.
    case committed([CommittedOffset], error: KafkaError?)
    /// The place of a partition is not in the log that is there now. The partition stands still until `seek` or `assign`
    /// says where to go on: whoever does names what is lost (`LostPlace.description`).
    case lostPlace(LostPlace)
    /// Batches that are damaged in the log, however often they are asked for, held these offsets, or what of them was still
    /// to be read. Reading goes on behind them.
    case passedOver(TopicPartition, Range<Int64>, reason: String)
    /// There is no committed position and `startWithoutCommit` is `.error`, a topic is not there, all brokers are down, …
    /// It goes on trying unless the error is fatal.
    case error(KafkaError, TopicPartition?)
}
