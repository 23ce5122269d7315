/// DescribeConfigs (32), versions 1–4: the settings of topics and of the broker.
///
/// Gaps: documentation is never sent; a broker's settings are few and read-only; a topic's setting has itself as its one
/// synonym.
struct DescribeConfigsRequest: Request {
    static let api = API(32, "DescribeConfigs", 1...4, flexibleFrom: 4)

    enum ResourceType {
        static let topic: Int8 = 2
        static let broker: Int8 = 4
    }

    struct Resource {
        var type: Int8
        var name: String
        var keys: [String]?
    }

    let resources: [Resource]
    let includesSynonyms: Bool

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        resources = try reader.array { reader throws(BrokerError) in
            let type = try reader.int8()
            let name = try reader.string()
            let keys = try reader.nullableArray { reader throws(BrokerError) in try reader.string() }
            try reader.skipTags()
            return Resource(type: type, name: name, keys: keys)
        }
        includesSynonyms = try reader.bool()
        if version >= 3 { _ = try reader.bool() }
    }

    private struct Entry {
        var name: String
        var value: String
        var isReadOnly: Bool
        /// Kafka's numbers: 1 set for the topic, 4 set for the broker at its start, 5 default.
        var source: Int8
        var type: Int8
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let version = reply.version
        reply.send(capacity: 2048) { writer in
            writer.int32(0)
            writer.array(resources) { writer, resource in
                let entries = entries(resource, broker)
                writer.error(entries == nil ? unknown(resource) : .none)
                writer.nullableString(entries == nil ? "there is no such resource" : nil)
                writer.int8(resource.type)
                writer.string(resource.name)
                let wanted = (entries ?? []).filter { resource.keys?.contains($0.name) ?? true }
                writer.array(wanted) { writer, entry in
                    writer.string(entry.name)
                    writer.nullableString(entry.value)
                    writer.bool(entry.isReadOnly)
                    writer.int8(entry.source)
                    writer.bool(false)
                    writer.arrayCount(includesSynonyms ? 1 : 0)
                    if includesSynonyms {
                        writer.string(entry.name)
                        writer.nullableString(entry.value)
                        writer.int8(entry.source)
                        writer.noTags()
                    }
                    if version >= 3 {
                        writer.int8(entry.type)
                        writer.nullableString(nil)
                    }
                    writer.noTags()
                }
                writer.noTags()
            }
            writer.noTags()
        }
    }

    private func unknown(_ resource: Resource) -> ErrorCode {
        resource.type == ResourceType.topic ? .unknownTopicOrPartition : .invalidRequest
    }

    private func entries(_ resource: Resource, _ broker: BrokerCore) -> [Entry]? {
        switch resource.type {
        case ResourceType.topic:
            guard let config = broker.storage.topics[resource.name]?.entry.config else { return nil }
            return TopicConfig.settings.map {
                Entry(
                    name: $0.name, value: config.value(of: $0), isReadOnly: false,
                    source: config.overrides[$0.name] == nil ? 5 : 1, type: $0.type.rawValue)
            }
        case ResourceType.broker:
            guard resource.name == "\(BrokerCore.nodeID)" || resource.name.isEmpty else { return nil }
            let settings = broker.configuration
            return [
                ("auto.create.topics.enable", "\(settings.createsTopics)", 1),
                ("broker.id", "\(BrokerCore.nodeID)", 3), ("log.dirs", settings.dataDirectory, 7),
                ("num.partitions", "\(settings.unsaidPartitions)", 3), ("default.replication.factor", "1", 3),
                ("socket.request.max.bytes", "\(settings.requestBytesMax)", 3),
                ("fetch.max.bytes", "\(settings.fetchBytesMax)", 3),
                ("log.retention.check.interval.ms", "\(settings.retentionCheckMs)", 5),
                ("offsets.retention.minutes", "\(settings.offsetsRetentionMs / 60_000)", 3),
            ].map { Entry(name: $0.0, value: $0.1, isReadOnly: true, source: 4, type: $0.2) }
        default: return nil
        }
    }
}
