internal import System

/// CreateTopics (19), versions 2–7: all topics of a request are made with one write of the catalog.
///
/// The replication factor is 1; clients that ask for more are refused, -1 means the default. Gaps: manual assignments must
/// name this broker.
struct CreateTopicsRequest: Request {
    static let api = API(19, "CreateTopics", 2...7, flexibleFrom: 5)

    struct Topic {
        var name: String
        var partitions: Int32
        var replicationFactor: Int16
        var assignments: [Int32: [Int32]]
        var configs: [(name: String, value: String?)]
    }

    let topics: [Topic]
    let validatesOnly: Bool

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        topics = try reader.array { reader throws(BrokerError) in
            let name = try reader.string()
            let partitions = try reader.int32()
            let replicationFactor = try reader.int16()
            let assignments = try reader.array { reader throws(BrokerError) in
                let assignment = (try reader.int32(), try reader.int32Array())
                try reader.skipTags()
                return assignment
            }
            let configs = try reader.array { reader throws(BrokerError) in
                let config = (name: try reader.string(), value: try reader.nullableString())
                try reader.skipTags()
                return config
            }
            try reader.skipTags()
            return Topic(
                name: name, partitions: partitions, replicationFactor: replicationFactor,
                assignments: Dictionary(assignments) { _, last in last }, configs: configs)
        }
        _ = try reader.int32()
        validatesOnly = try reader.bool()
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        var errors: [BrokerError?] = []
        var new: [(name: String, partitions: Int32, config: TopicConfig)] = []
        var partitions = broker.totalPartitions
        let timesNamed = Dictionary(topics.map { ($0.name, 1) }, uniquingKeysWith: +)
        for topic in topics {
            do throws(BrokerError) {
                guard timesNamed[topic.name] == 1 else {
                    throw .refused(.invalidRequest, "\(topic.name) is named twice")
                }
                let checked = try check(topic, broker)
                partitions += Int(checked.partitions)
                guard partitions <= broker.configuration.partitionsMax else {
                    throw .refused(
                        .invalidPartitions, "more than \(broker.configuration.partitionsMax) partitions in all")
                }
                new.append((name: topic.name, partitions: checked.partitions, config: checked.config))
                errors.append(nil)
            } catch {
                errors.append(error)
            }
        }
        if !validatesOnly, !new.isEmpty {
            do throws(BrokerError) {
                try broker.storage.create(new, nowMs: broker.loop.nowMs)
            } catch {
                broker.reportStorage(error)
                errors = errors.map { $0 ?? error }
            }
        }
        send(reply, broker, errors, Dictionary(uniqueKeysWithValues: new.map { ($0.name, ($0.partitions, $0.config)) }))
    }

    private func check(
        _ topic: Topic, _ broker: BrokerCore
    ) throws(BrokerError) -> (partitions: Int32, config: TopicConfig) {
        guard Catalog.isLegal(topic: topic.name) else {
            throw .refused(.invalidTopic, "a topic's name is 1 to 249 of a-z A-Z 0-9 . _ -, and not . or ..")
        }
        guard broker.storage.topics[topic.name] == nil else {
            throw .refused(.topicAlreadyExists, "the topic \(topic.name) exists")
        }
        var partitions = topic.partitions
        if topic.assignments.isEmpty {
            if partitions == -1 { partitions = broker.configuration.unsaidPartitions }
            guard partitions > 0 else { throw .refused(.invalidPartitions, "a topic has at least one partition") }
            guard topic.replicationFactor == 1 || topic.replicationFactor == -1 else {
                throw .refused(.invalidReplicationFactor, "there is one broker: the replication factor is 1")
            }
        } else {
            partitions = Int32(topic.assignments.count)
            guard
                topic.assignments.allSatisfy({ $0.key >= 0 && $0.key < partitions && $0.value == [BrokerCore.nodeID] })
            else { throw .refused(.invalidReplicaAssignment, "every partition is on broker \(BrokerCore.nodeID)") }
        }
        var overrides: [String: String] = [:]
        for config in topic.configs {
            guard let value = config.value else { throw .refused(.invalidConfig, "\(config.name) has no value") }
            overrides[config.name] = value
        }
        do throws(TopicConfig.Invalid) {
            return (partitions, try TopicConfig(overrides: overrides))
        } catch {
            throw .refused(.invalidConfig, error.message)
        }
    }

    private func send(
        _ reply: Reply, _ broker: BrokerCore, _ errors: [BrokerError?], _ made: [String: (Int32, TopicConfig)]
    ) {
        let version = reply.version
        reply.send { writer in
            writer.int32(0)
            writer.arrayCount(topics.count)
            for (topic, error) in zip(topics, errors) {
                let result = error == nil ? made[topic.name] : nil
                writer.string(topic.name)
                if version >= 7 { writer.topicID(broker.storage.topics[topic.name]?.entry.id ?? .zero) }
                writer.error(error?.protocolCode ?? .none)
                writer.nullableString(error?.description)
                if version >= 5 {
                    writer.int32(result?.0 ?? -1)
                    writer.int16(result == nil ? -1 : 1)
                    if let config = result?.1 {
                        writer.array(TopicConfig.settings) { writer, setting in
                            writer.string(setting.name)
                            writer.nullableString(config.value(of: setting))
                            writer.bool(false)
                            writer.int8(config.overrides[setting.name] == nil ? 5 : 1)
                            writer.bool(false)
                            writer.noTags()
                        }
                    } else {
                        writer.arrayCount(0)
                    }
                }
                writer.noTags()
            }
            writer.noTags()
        }
    }
}
