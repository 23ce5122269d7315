/// JoinGroup (11), versions 0–9: enter a group, or stay in it for its next generation. Answered when everyone has joined.
struct JoinGroupRequest: Request {
    static let api = API(11, "JoinGroup", 0...9, flexibleFrom: 6)

    let request: JoinRequest

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        let group = try reader.string()
        let sessionTimeoutMs = Int(try reader.int32())
        let rebalanceTimeoutMs = version >= 1 ? Int(try reader.int32()) : sessionTimeoutMs
        let member = try reader.string()
        let instance = version >= 5 ? try reader.nullableString() : nil
        let type = try reader.string()
        let protocols = try reader.array { reader throws(BrokerError) in
            let offered = GroupProtocol(name: try reader.string(), metadata: try reader.byteArray())
            try reader.skipTags()
            return offered
        }
        if version >= 8 { _ = try reader.nullableString() }
        request = JoinRequest(
            group: group, member: member, instance: instance, sessionTimeoutMs: sessionTimeoutMs,
            rebalanceTimeoutMs: max(rebalanceTimeoutMs, 0), protocolType: type, protocols: protocols,
            knowsMemberIDRequired: version >= 4, knowsSkipAssignment: version >= 9)
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        var request = request
        request.clientID = reply.header.clientID ?? ""
        request.clientHost = "/" + reply.connection.clientHost
        broker.groups.join(request) { result in Self.send(result, reply) }
    }

    private static func send(_ result: JoinResult, _ reply: Reply) {
        let version = reply.version
        reply.send { writer in
            if version >= 2 { writer.int32(0) }
            writer.error(result.error)
            writer.int32(result.generation)
            if version >= 7 {
                writer.nullableString(result.protocolType)
                writer.nullableString(result.protocolName)
            } else {
                writer.string(result.protocolName ?? "")
            }
            writer.string(result.leader)
            if version >= 9 { writer.bool(result.skipAssignment) }
            writer.string(result.member)
            writer.array(result.members) { writer, member in
                writer.string(member.member)
                if version >= 5 { writer.nullableString(member.instance) }
                writer.byteArray(member.metadata)
                writer.noTags()
            }
            writer.noTags()
        }
    }
}
