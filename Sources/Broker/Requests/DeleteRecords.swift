/// DeleteRecords (21), versions 0–2: everything before an offset goes; -1 means all there is. Answered when that is durable.
struct DeleteRecordsRequest: Request {
    static let api = API(21, "DeleteRecords", 0...2, flexibleFrom: 2)

    struct Partition {
        var index: Int32
        var offset: Int64
    }

    struct Topic {
        var name: String
        var partitions: [Partition]
    }

    let topics: [Topic]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        topics = try reader.array { reader throws(BrokerError) in
            let name = try reader.string()
            let partitions = try reader.array { reader throws(BrokerError) in
                let partition = Partition(index: try reader.int32(), offset: try reader.int64())
                try reader.skipTags()
                return partition
            }
            try reader.skipTags()
            return Topic(name: name, partitions: partitions)
        }
        _ = try reader.int32()
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        var outcomes: [[(index: Int32, start: Int64, error: ErrorCode)]] = []
        for topic in topics {
            outcomes.append(
                topic.partitions.map { partition in
                    do throws(BrokerError) {
                        return (partition.index, try delete(topic.name, partition, broker), .none)
                    } catch {
                        return (partition.index, -1, error.protocolCode)
                    }
                })
        }
        let decided = outcomes
        broker.commits.whenDurable { failure in
            reply.send { writer in
                writer.int32(0)
                writer.arrayCount(topics.count)
                for (topic, outcomes) in zip(topics, decided) {
                    writer.string(topic.name)
                    writer.array(outcomes) { writer, outcome in
                        let lost = failure != nil && outcome.error == .none
                        writer.int32(outcome.index)
                        writer.int64(lost ? -1 : outcome.start)
                        writer.error(lost ? .kafkaStorageError : outcome.error)
                        writer.noTags()
                    }
                    writer.noTags()
                }
                writer.noTags()
            }
        }
    }

    private func delete(_ topic: String, _ partition: Partition, _ broker: BrokerCore) throws(BrokerError) -> Int64 {
        guard let known = broker.storage.topics[topic], let log = known.log(partition.index) else {
            throw .refused(.unknownTopicOrPartition)
        }
        guard !known.isInternal else { throw .refused(.invalidTopic) }
        let offset = partition.offset == -1 ? log.highWatermark : partition.offset
        guard offset >= 0, offset <= log.highWatermark else { throw .refused(.offsetOutOfRange) }
        broker.commits.moveStart(of: log, to: offset)
        try log.moveStart(to: offset)
        return log.startOffset
    }
}
