/// DescribeGroups (15), versions 0–6. A group that does not exist is described as dead, and from version 6 on with an error.
struct DescribeGroupsRequest: Request {
    static let api = API(15, "DescribeGroups", 0...6, flexibleFrom: 5)

    let groups: [String]
    let asksForOperations: Bool

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        groups = try reader.stringArray()
        asksForOperations = version >= 3 ? try reader.bool() : false
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let version = reply.version
        reply.send { writer in
            if version >= 1 { writer.int32(0) }
            writer.array(groups) { writer, id in
                let group = broker.groups.coordinator.groups[id]
                let isStable = group?.state == .stable
                let isMissing = version >= 6 && group == nil
                writer.error(isMissing ? .groupIDNotFound : .none)
                if version >= 6 { writer.nullableString(isMissing ? "group \(id) is not known" : nil) }
                writer.string(id)
                writer.string(group?.state.rawValue ?? "Dead")
                writer.string(group?.protocolType ?? "")
                writer.string(isStable ? group?.protocolName ?? "" : "")
                writer.array(group?.members ?? []) { writer, member in
                    writer.string(member.id)
                    if version >= 4 { writer.nullableString(member.instance) }
                    writer.string(member.clientID)
                    writer.string(member.clientHost)
                    writer.byteArray(isStable ? member.metadata(for: group?.protocolName) : [])
                    writer.byteArray(isStable ? member.assignment : [])
                    writer.noTags()
                }
                if version >= 3 {
                    let isTold = asksForOperations && !isMissing
                    writer.int32(isTold ? AuthorizedOperations.group : AuthorizedOperations.notRequested)
                }
                writer.noTags()
            }
            writer.noTags()
        }
    }
}
