/// AlterConfigs (33), versions 0–2: replaces all settings of a topic; what is not named goes back to its default.
struct AlterConfigsRequest: Request {
    static let api = API(33, "AlterConfigs", 0...2, flexibleFrom: 2)

    struct Resource {
        var type: Int8
        var name: String
        var configs: [(name: String, value: String?)]
    }

    let resources: [Resource]
    let validatesOnly: Bool

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        resources = try reader.array { reader throws(BrokerError) in
            let type = try reader.int8()
            let name = try reader.string()
            let configs = try reader.array { reader throws(BrokerError) in
                let config = (name: try reader.string(), value: try reader.nullableString())
                try reader.skipTags()
                return config
            }
            try reader.skipTags()
            return Resource(type: type, name: name, configs: configs)
        }
        validatesOnly = try reader.bool()
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        ConfigChange.answer(
            reply,
            resources.map { resource in
                ConfigChange(type: resource.type, name: resource.name) { _ in
                    var overrides: [String: String] = [:]
                    for config in resource.configs { overrides[config.name] = config.value }
                    return overrides
                }
            }, validatesOnly: validatesOnly, broker)
    }
}

/// The change of one topic's settings, however it was asked for.
struct ConfigChange {
    var type: Int8
    var name: String
    /// The settings there are, to the settings there shall be.
    var apply: ([String: String]) throws(BrokerError) -> [String: String]

    init(type: Int8, name: String, apply: @escaping ([String: String]) throws(BrokerError) -> [String: String]) {
        self.type = type
        self.name = name
        self.apply = apply
    }

    private func perform(_ broker: BrokerCore, isOnlyOne: Bool, validatesOnly: Bool) throws(BrokerError) {
        // Each is a write of the catalog.
        guard isOnlyOne else { throw .refused(.invalidRequest, "it is named twice") }
        guard type == DescribeConfigsRequest.ResourceType.topic else {
            throw .refused(.invalidRequest, "only topics have settings that can be changed")
        }
        guard let topic = broker.storage.topics[name] else { throw .refused(.unknownTopicOrPartition) }
        let overrides = try apply(topic.entry.config.overrides)
        let config: TopicConfig
        do throws(TopicConfig.Invalid) {
            config = try TopicConfig(overrides: overrides)
        } catch {
            throw .refused(.invalidConfig, error.message)
        }
        if !validatesOnly { try broker.storage.configure(topic, config) }
    }

    static func answer(_ reply: Reply, _ changes: [ConfigChange], validatesOnly: Bool, _ broker: BrokerCore) {
        let timesNamed = Dictionary(changes.map { ("\($0.type) \($0.name)", 1) }, uniquingKeysWith: +)
        let outcomes = changes.map { change -> BrokerError? in
            do throws(BrokerError) {
                let isOnlyOne = timesNamed["\(change.type) \(change.name)"] == 1
                try change.perform(broker, isOnlyOne: isOnlyOne, validatesOnly: validatesOnly)
                return nil
            } catch {
                return error
            }
        }
        reply.send { writer in
            writer.int32(0)
            writer.arrayCount(changes.count)
            for (change, error) in zip(changes, outcomes) {
                writer.error(error?.protocolCode ?? .none)
                writer.nullableString(error?.description)
                writer.int8(change.type)
                writer.string(change.name)
                writer.noTags()
            }
            writer.noTags()
        }
    }
}
