/// CreatePartitions (37), versions 0–3: a topic gets more partitions. Gaps: manual assignments must name this broker.
struct CreatePartitionsRequest: Request {
    static let api = API(37, "CreatePartitions", 0...3, flexibleFrom: 2)

    struct Topic {
        var name: String
        var count: Int32
        var assignments: [[Int32]]?
    }

    let topics: [Topic]
    let validatesOnly: Bool

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        topics = try reader.array { reader throws(BrokerError) in
            let name = try reader.string()
            let count = try reader.int32()
            let assignments = try reader.nullableArray { reader throws(BrokerError) in
                let brokers = try reader.int32Array()
                try reader.skipTags()
                return brokers
            }
            try reader.skipTags()
            return Topic(name: name, count: count, assignments: assignments)
        }
        _ = try reader.int32()
        validatesOnly = try reader.bool()
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        var outcomes: [(name: String, error: BrokerError?)] = []
        let timesNamed = Dictionary(topics.map { ($0.name, 1) }, uniquingKeysWith: +)
        for wanted in topics {
            do throws(BrokerError) {
                guard timesNamed[wanted.name] == 1 else { throw .refused(.invalidRequest, "a topic is named twice") }
                try apply(wanted, broker)
                outcomes.append((wanted.name, nil))
            } catch {
                outcomes.append((wanted.name, error))
            }
        }
        reply.send { writer in
            writer.int32(0)
            writer.array(outcomes) { writer, outcome in
                writer.string(outcome.name)
                writer.error(outcome.error?.protocolCode ?? .none)
                writer.nullableString(outcome.error?.description)
                writer.noTags()
            }
            writer.noTags()
        }
    }

    private func apply(_ wanted: Topic, _ broker: BrokerCore) throws(BrokerError) {
        guard let topic = broker.storage.topics[wanted.name] else { throw .refused(.unknownTopicOrPartition) }
        guard !topic.isInternal else { throw .refused(.invalidTopic, "the topic is internal") }
        let more = Int(wanted.count) - topic.logs.count
        guard more > 0 else {
            throw .refused(.invalidPartitions, "the topic has \(topic.logs.count) partitions already")
        }
        guard broker.totalPartitions + more <= broker.configuration.partitionsMax else {
            throw .refused(.invalidPartitions, "more than \(broker.configuration.partitionsMax) partitions in all")
        }
        if let assignments = wanted.assignments {
            guard assignments.count == more, assignments.allSatisfy({ $0 == [BrokerCore.nodeID] }) else {
                throw .refused(.invalidReplicaAssignment, "every partition is on broker \(BrokerCore.nodeID)")
            }
        }
        if !validatesOnly { try broker.storage.addPartitions(topic, upTo: wanted.count) }
    }
}
