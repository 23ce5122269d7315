internal import System

/// OffsetCommit (8), versions 2–9: how far a group has got. Answered when that is durable.
///
/// Gaps: the retention time of versions 2–4 is read and not used; offsets are kept while the group lives, and for the
/// broker's own retention after that. Version 9's member epochs belong to the new group protocol, which is not spoken.
struct OffsetCommitRequest: Request {
    static let api = API(8, "OffsetCommit", 2...9, flexibleFrom: 8)

    private static let metadataBytesMax = 4096

    struct Partition {
        var index: Int32
        var offset: Int64
        var leaderEpoch: Int32
        var metadata: String?
    }

    struct Topic {
        var name: String
        var partitions: [Partition]
    }

    let group: String
    let generation: Int32
    let identity: MemberIdentity
    let topics: [Topic]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        group = try reader.string()
        generation = try reader.int32()
        identity = MemberIdentity(
            member: try reader.string(), instance: version >= 7 ? try reader.nullableString() : nil)
        if version <= 4 { _ = try reader.int64() }
        topics = try reader.array { reader throws(BrokerError) in
            let name = try reader.string()
            let partitions = try reader.array { reader throws(BrokerError) in
                let partition = Partition(
                    index: try reader.int32(), offset: try reader.int64(),
                    leaderEpoch: version >= 6 ? try reader.int32() : -1, metadata: try reader.nullableString())
                try reader.skipTags()
                return partition
            }
            try reader.skipTags()
            return Topic(name: name, partitions: partitions)
        }
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let refusal = broker.groups.authorizeCommit(group, identity, generation: generation)
        var errors: [[ErrorCode]] = []
        var accepted: [(OffsetStore.Place, OffsetStore.Committed)] = []
        let nowMs = broker.loop.nowMs
        for topic in topics {
            errors.append(
                topic.partitions.map { partition in
                    guard refusal == .none else { return refusal }
                    guard broker.partition(topic.name, partition.index) != nil else { return .unknownTopicOrPartition }
                    let metadata = partition.metadata ?? ""
                    guard metadata.utf8.count <= Self.metadataBytesMax else { return .offsetMetadataTooLarge }
                    accepted.append(
                        (
                            OffsetStore.Place(topic: topic.name, partition: partition.index),
                            OffsetStore.Committed(
                                offset: partition.offset, leaderEpoch: partition.leaderEpoch, metadata: metadata,
                                committedMs: nowMs)
                        ))
                    return .none
                })
        }
        let decided = errors
        broker.groups.commit(group, accepted) { failure in
            reply.send { writer in
                if reply.version >= 3 { writer.int32(0) }
                writer.arrayCount(topics.count)
                for (topic, errors) in zip(topics, decided) {
                    writer.string(topic.name)
                    writer.arrayCount(errors.count)
                    for (partition, error) in zip(topic.partitions, errors) {
                        writer.int32(partition.index)
                        writer.error(failure != nil && error == .none ? .coordinatorNotAvailable : error)
                        writer.noTags()
                    }
                    writer.noTags()
                }
                writer.noTags()
            }
        }
    }
}
