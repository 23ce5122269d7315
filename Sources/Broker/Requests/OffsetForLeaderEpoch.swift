/// OffsetForLeaderEpoch (23), versions 0–4: where what was written up to an epoch ends.
struct OffsetForLeaderEpochRequest: Request {
    static let api = API(23, "OffsetForLeaderEpoch", 0...4, flexibleFrom: 4)

    struct Partition {
        var index: Int32
        var currentEpoch: Int32
        var epoch: Int32
    }

    struct Topic {
        var name: String
        var partitions: [Partition]
    }

    let topics: [Topic]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        if version >= 3 { _ = try reader.int32() }
        topics = try reader.array { reader throws(BrokerError) in
            let name = try reader.string()
            let partitions = try reader.array { reader throws(BrokerError) in
                let index = try reader.int32()
                let current = version >= 2 ? try reader.int32() : -1
                let epoch = try reader.int32()
                try reader.skipTags()
                return Partition(index: index, currentEpoch: current, epoch: epoch)
            }
            try reader.skipTags()
            return Topic(name: name, partitions: partitions)
        }
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let version = reply.version
        reply.send { writer in
            if version >= 2 { writer.int32(0) }
            writer.array(topics) { writer, topic in
                writer.string(topic.name)
                writer.array(topic.partitions) { writer, partition in
                    let log = broker.partition(topic.name, partition.index)
                    let error = log?.check(leaderEpoch: partition.currentEpoch) ?? .unknownTopicOrPartition
                    let end = error == .none ? log?.end(ofEpoch: partition.epoch) : nil
                    writer.error(error)
                    writer.int32(partition.index)
                    if version >= 1 { writer.int32(end?.epoch ?? -1) }
                    writer.int64(end?.offset ?? -1)
                    writer.noTags()
                }
                writer.noTags()
            }
            writer.noTags()
        }
    }
}
