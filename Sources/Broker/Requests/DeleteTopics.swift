/// DeleteTopics (20), versions 1–6. A deleted topic's committed offsets go with it.
struct DeleteTopicsRequest: Request {
    static let api = API(20, "DeleteTopics", 1...6, flexibleFrom: 4)

    struct Wanted {
        var name: String?
        var id = TopicID.zero
    }

    let topics: [Wanted]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        if version >= 6 {
            topics = try reader.array { reader throws(BrokerError) in
                let wanted = Wanted(name: try reader.nullableString(), id: try reader.topicID())
                try reader.skipTags()
                return wanted
            }
        } else {
            topics = try reader.stringArray().map { Wanted(name: $0) }
        }
        _ = try reader.int32()
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let version = reply.version
        var outcomes: [(name: String?, id: TopicID, error: ErrorCode)] = []
        for wanted in topics {
            let topic = wanted.name.map { broker.storage.topics[$0] } ?? broker.storage.topicsByID[wanted.id]
            guard let topic else {
                outcomes.append(
                    (wanted.name, wanted.id, wanted.name == nil ? .unknownTopicID : .unknownTopicOrPartition))
                continue
            }
            guard !topic.isInternal else {
                outcomes.append((topic.name, topic.entry.id, .invalidTopic))
                continue
            }
            outcomes.append((topic.name, topic.entry.id, broker.delete(topic)))
        }
        reply.send { writer in
            if version >= 1 { writer.int32(0) }
            writer.array(outcomes) { writer, outcome in
                if version >= 6 { writer.nullableString(outcome.name) } else { writer.string(outcome.name ?? "") }
                if version >= 6 { writer.topicID(outcome.id) }
                writer.error(outcome.error)
                if version >= 5 { writer.nullableString(nil) }
                writer.noTags()
            }
            writer.noTags()
        }
    }
}
