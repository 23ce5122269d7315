/// IncrementalAlterConfigs (44), versions 0–1: sets, deletes, appends to or subtracts from single settings of topics.
struct IncrementalAlterConfigsRequest: Request {
    static let api = API(44, "IncrementalAlterConfigs", 0...1, flexibleFrom: 1)

    struct Operation {
        var name: String
        var kind: Int8
        var value: String?
    }

    struct Resource {
        var type: Int8
        var name: String
        var operations: [Operation]
    }

    let resources: [Resource]
    let validatesOnly: Bool

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        resources = try reader.array { reader throws(BrokerError) in
            let type = try reader.int8()
            let name = try reader.string()
            let operations = try reader.array { reader throws(BrokerError) in
                let operation = Operation(
                    name: try reader.string(), kind: try reader.int8(), value: try reader.nullableString())
                try reader.skipTags()
                return operation
            }
            try reader.skipTags()
            return Resource(type: type, name: name, operations: operations)
        }
        validatesOnly = try reader.bool()
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let changes = resources.map { resource in
            ConfigChange(type: resource.type, name: resource.name) { (overrides) throws(BrokerError) in
                var overrides = overrides
                for operation in resource.operations { try Self.apply(operation, to: &overrides) }
                return overrides
            }
        }
        ConfigChange.answer(reply, changes, validatesOnly: validatesOnly, broker)
    }

    private static func apply(_ operation: Operation, to overrides: inout [String: String]) throws(BrokerError) {
        let name = operation.name
        switch operation.kind {
        case 0:
            guard let value = operation.value else { throw .refused(.invalidRequest, "\(name) has no value") }
            overrides[name] = value
        case 1: overrides[name] = nil
        case 2, 3:
            guard let setting = TopicConfig.settings.first(where: { $0.name == name }), setting.type == .list else {
                throw .refused(.invalidConfig, "\(name) is not a list")
            }
            let given = (operation.value ?? "").split(separator: ",").map(String.init)
            var list = (overrides[name] ?? setting.defaultValue).split(separator: ",").map(String.init)
            list.removeAll { given.contains($0) }
            if operation.kind == 2 { list += given }
            overrides[name] = list.joined(separator: ",")
        default: throw .refused(.invalidRequest, "operation \(operation.kind)")
        }
    }
}
