/// OffsetFetch (9), versions 1–9: how far groups have got.
///
/// Gaps: `require stable` has nothing to wait for, since there are no transactions; version 9's member epochs are not used.
struct OffsetFetchRequest: Request {
    static let api = API(9, "OffsetFetch", 1...9, flexibleFrom: 6)

    struct Topic {
        var name: String
        var partitions: [Int32]
    }

    struct Group {
        var id: String
        /// `nil` asks for everything the group has committed.
        var topics: [Topic]?
    }

    let groups: [Group]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        if version < 8 {
            let id = try reader.string()
            groups = [Group(id: id, topics: try Self.topics(&reader))]
        } else {
            groups = try reader.array { reader throws(BrokerError) in
                let id = try reader.string()
                if version >= 9 {
                    _ = try reader.nullableString()
                    _ = try reader.int32()
                }
                let group = Group(id: id, topics: try Self.topics(&reader))
                try reader.skipTags()
                return group
            }
        }
        if version >= 7 { _ = try reader.bool() }
    }

    private static func topics(_ reader: inout RequestReader) throws(BrokerError) -> [Topic]? {
        try reader.nullableArray { reader throws(BrokerError) in
            let topic = Topic(name: try reader.string(), partitions: try reader.int32Array())
            try reader.skipTags()
            return topic
        }
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let version = reply.version
        reply.send { writer in
            if version >= 3 { writer.int32(0) }
            if version < 8 {
                if let group = groups.first { write(group, broker, version, &writer) }
                if version >= 2 { writer.error(.none) }
            } else {
                writer.array(groups) { writer, group in
                    writer.string(group.id)
                    write(group, broker, version, &writer)
                    writer.error(.none)
                    writer.noTags()
                }
            }
            writer.noTags()
        }
    }

    private func write(_ group: Group, _ broker: BrokerCore, _ version: Int16, _ writer: inout ResponseWriter) {
        let offsets = broker.groups.offsets.offsets(of: group.id)
        let topics =
            group.topics
            ?? Dictionary(grouping: offsets.keys, by: \.topic).sorted { $0.key < $1.key }.map {
                Topic(name: $0.key, partitions: $0.value.map(\.partition).sorted())
            }
        writer.array(topics) { writer, topic in
            writer.string(topic.name)
            writer.array(topic.partitions) { writer, partition in
                let committed = offsets[OffsetStore.Place(topic: topic.name, partition: partition)]
                writer.int32(partition)
                writer.int64(committed?.offset ?? -1)
                if version >= 5 { writer.int32(committed?.leaderEpoch ?? -1) }
                writer.nullableString(committed?.metadata ?? "")
                writer.error(.none)
                writer.noTags()
            }
            writer.noTags()
        }
    }
}
