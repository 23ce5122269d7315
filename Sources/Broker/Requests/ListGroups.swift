/// ListGroups (16), versions 0–5.
struct ListGroupsRequest: Request {
    static let api = API(16, "ListGroups", 0...5, flexibleFrom: 3)

    let states: [String]
    let types: [String]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        states = version >= 4 ? try reader.stringArray() : []
        types = version >= 5 ? try reader.stringArray() : []
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let version = reply.version
        let groups = broker.groups.coordinator.groups.values.filter { group in
            (states.isEmpty || states.contains { $0.lowercased() == group.state.rawValue.lowercased() })
                && (types.isEmpty || types.contains { $0.lowercased() == "classic" })
        }
        reply.send { writer in
            if version >= 1 { writer.int32(0) }
            writer.error(.none)
            writer.array(groups.sorted { $0.id < $1.id }) { writer, group in
                writer.string(group.id)
                writer.string(group.protocolType ?? "")
                if version >= 4 { writer.string(group.state.rawValue) }
                if version >= 5 { writer.string("classic") }
                writer.noTags()
            }
            writer.noTags()
        }
    }
}
