/// Heartbeat (12), versions 0–4: still here, and is there anything new?
struct HeartbeatRequest: Request {
    static let api = API(12, "Heartbeat", 0...4, flexibleFrom: 4)

    let group: String
    let generation: Int32
    let identity: MemberIdentity

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        group = try reader.string()
        generation = try reader.int32()
        identity = MemberIdentity(
            member: try reader.string(), instance: version >= 3 ? try reader.nullableString() : nil)
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let error = broker.groups.heartbeat(group, identity, generation: generation)
        reply.send { writer in
            if reply.version >= 1 { writer.int32(0) }
            writer.error(error)
            writer.noTags()
        }
    }
}
