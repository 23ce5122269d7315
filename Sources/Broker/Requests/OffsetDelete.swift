/// OffsetDelete (47), version 0: forget how far a group got in some partitions.
struct OffsetDeleteRequest: Request {
    static let api = API(47, "OffsetDelete", 0...0)

    struct Topic {
        var name: String
        var partitions: [Int32]
    }

    let group: String
    let topics: [Topic]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        group = try reader.string()
        topics = try reader.array { reader throws(BrokerError) in
            Topic(name: try reader.string(), partitions: try reader.int32Array())
        }
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        guard let known = broker.groups.coordinator.groups[group] else {
            return reply.send { writer in
                writer.error(.groupIDNotFound)
                writer.int32(0)
                writer.arrayCount(0)
            }
        }
        let subscribed = known.subscribedTopics
        var places: [OffsetStore.Place] = []
        let errors: [[ErrorCode]] = topics.map { topic in
            topic.partitions.map { partition in
                guard broker.partition(topic.name, partition) != nil else { return .unknownTopicOrPartition }
                guard !subscribed.contains(topic.name) else { return .groupSubscribedToTopic }
                places.append(OffsetStore.Place(topic: topic.name, partition: partition))
                return .none
            }
        }
        broker.groups.deleteOffsets(group, places) { failure in
            reply.send { writer in
                writer.error(failure == nil ? .none : .coordinatorNotAvailable)
                writer.int32(0)
                writer.arrayCount(topics.count)
                for (topic, errors) in zip(topics, errors) {
                    writer.string(topic.name)
                    writer.arrayCount(errors.count)
                    for (partition, error) in zip(topic.partitions, errors) {
                        writer.int32(partition)
                        writer.error(error)
                    }
                }
            }
        }
    }
}
