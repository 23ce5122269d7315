internal import Runtime
internal import System

/// Metadata (3), versions 0–12: the broker's address, topics and partitions.
///
/// Every partition is led by this broker, in the epoch that it began with. Authorized operations are all that there are.
struct MetadataRequest: Request {
    static let api = API(3, "Metadata", 0...12, flexibleFrom: 9)

    struct Wanted: Hashable {
        var id: TopicID
        var name: String?
    }

    /// `nil` means all.
    let topics: [Wanted]?
    let mayCreate: Bool
    let asksForClusterOperations: Bool
    let asksForTopicOperations: Bool

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        let wanted = try reader.nullableArray { reader throws(BrokerError) in
            let id = version >= 10 ? try reader.topicID() : .zero
            let name = version >= 10 ? try reader.nullableString() : try reader.string()
            try reader.skipTags()
            return Wanted(id: id, name: name)
        }
        // Named twice, it is told once, as Apache Kafka does.
        var seen: Set<Wanted> = []
        topics = version == 0 && wanted?.isEmpty == true ? nil : wanted?.filter { seen.insert($0).inserted }
        mayCreate = version >= 4 ? try reader.bool() : true
        asksForClusterOperations = (8...10).contains(version) ? try reader.bool() : false
        asksForTopicOperations = version >= 8 ? try reader.bool() : false
    }

    private struct Found {
        var error: ErrorCode
        var name: String?
        var id: TopicID
        var topic: Topic?
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        if mayCreate, broker.configuration.createsTopics { createMissing(broker) }
        let found: [Found]
        if let topics {
            found = topics.map { wanted in
                // Who asks by id may leave the name null, or empty as Apache Kafka's own client does.
                if wanted.id == .zero, let name = wanted.name {
                    let topic = broker.storage.topics[name]
                    let error: ErrorCode = Catalog.isLegal(topic: name) ? .unknownTopicOrPartition : .invalidTopic
                    return Found(
                        error: topic == nil ? error : .none, name: name, id: topic?.entry.id ?? .zero, topic: topic)
                }
                let topic = broker.storage.topicsByID[wanted.id]
                return Found(
                    error: topic == nil ? .unknownTopicID : .none, name: topic?.name, id: wanted.id, topic: topic)
            }
        } else {
            found = broker.storage.topics.values.sorted { $0.name < $1.name }.map {
                Found(error: .none, name: $0.name, id: $0.entry.id, topic: $0)
            }
        }
        let address = broker.address(for: reply.connection)
        reply.send(capacity: 1024) { writer in write(found, address, broker, reply.version, &writer) }
    }

    private func createMissing(_ broker: BrokerCore) {
        let missing = Set((topics ?? []).compactMap { $0.id == .zero ? $0.name : nil }).filter {
            broker.storage.topics[$0] == nil && Catalog.isLegal(topic: $0)
        }
        let partitions = broker.configuration.defaultPartitions
        guard !missing.isEmpty,
            broker.totalPartitions + missing.count * Int(partitions) <= broker.configuration.partitionsMax
        else { return }
        do throws(BrokerError) {
            try broker.storage.create(
                missing.sorted().map { (name: $0, partitions: partitions, config: TopicConfig()) },
                nowMs: broker.loop.nowMs)
        } catch {
            broker.log.error("could not create a topic", ["reason": .string(error.description)])
        }
    }

    private func write(
        _ found: [Found], _ address: (host: String, port: Int32), _ broker: BrokerCore, _ version: Int16,
        _ writer: inout ResponseWriter
    ) {
        if version >= 3 { writer.int32(0) }
        writer.arrayCount(1)
        writer.int32(BrokerCore.nodeID)
        writer.string(address.host)
        writer.int32(address.port)
        if version >= 1 { writer.nullableString(nil) }
        writer.noTags()
        if version >= 2 { writer.nullableString(broker.storage.catalog.clusterID.text) }
        if version >= 1 { writer.int32(BrokerCore.nodeID) }
        writer.array(found) { writer, found in
            writer.error(found.error)
            if version >= 12 { writer.nullableString(found.name) } else { writer.string(found.name ?? "") }
            if version >= 10 { writer.topicID(found.id) }
            if version >= 1 { writer.bool(found.topic?.isInternal ?? false) }
            writer.array(found.topic?.logs ?? []) { writer, log in
                writer.error(.none)
                writer.int32(log.partition)
                writer.int32(BrokerCore.nodeID)
                if version >= 7 { writer.int32(log.leaderEpoch) }
                writer.int32Array([BrokerCore.nodeID])
                writer.int32Array([BrokerCore.nodeID])
                if version >= 5 { writer.int32Array([]) }
                writer.noTags()
            }
            if version >= 8 {
                writer.int32(asksForTopicOperations ? AuthorizedOperations.topic : AuthorizedOperations.notRequested)
            }
            writer.noTags()
        }
        if (8...10).contains(version) {
            writer.int32(asksForClusterOperations ? AuthorizedOperations.cluster : AuthorizedOperations.notRequested)
        }
        writer.noTags()
    }
}
