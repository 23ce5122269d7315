/// SyncGroup (14), versions 0–5: the leader brings the assignment, everyone gets their part of it.
struct SyncGroupRequest: Request {
    static let api = API(14, "SyncGroup", 0...5, flexibleFrom: 4)

    let request: SyncRequest

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        let group = try reader.string()
        let generation = try reader.int32()
        let member = try reader.string()
        let instance = version >= 3 ? try reader.nullableString() : nil
        let type = version >= 5 ? try reader.nullableString() : nil
        let name = version >= 5 ? try reader.nullableString() : nil
        let assignments = try reader.array { reader throws(BrokerError) in
            let assignment = (try reader.string(), try reader.byteArray())
            try reader.skipTags()
            return assignment
        }
        request = SyncRequest(
            group: group, generation: generation, member: member, instance: instance, protocolType: type,
            protocolName: name, assignments: Dictionary(assignments) { _, last in last })
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let version = reply.version
        broker.groups.sync(request) { result in
            reply.send { writer in
                if version >= 1 { writer.int32(0) }
                writer.error(result.error)
                if version >= 5 {
                    writer.nullableString(result.protocolType)
                    writer.nullableString(result.protocolName)
                }
                writer.byteArray(result.assignment)
                writer.noTags()
            }
        }
    }
}
