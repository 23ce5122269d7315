/// LeaveGroup (13), versions 0–5: members go, and the others need not wait for their sessions to end.
struct LeaveGroupRequest: Request {
    static let api = API(13, "LeaveGroup", 0...5, flexibleFrom: 4)

    let group: String
    let members: [MemberIdentity]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        group = try reader.string()
        if version < 3 {
            members = [MemberIdentity(member: try reader.string())]
        } else {
            members = try reader.array { reader throws(BrokerError) in
                let identity = MemberIdentity(member: try reader.string(), instance: try reader.nullableString())
                if version >= 5 { _ = try reader.nullableString() }
                try reader.skipTags()
                return identity
            }
        }
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let version = reply.version
        let errors = members.map { broker.groups.leave(group, $0) }
        reply.send { writer in
            if version >= 1 { writer.int32(0) }
            if version < 3 {
                writer.error(errors.first ?? .none)
            } else {
                writer.error(.none)
                writer.arrayCount(members.count)
                for (member, error) in zip(members, errors) {
                    writer.string(member.member)
                    writer.nullableString(member.instance)
                    writer.error(error)
                    writer.noTags()
                }
            }
            writer.noTags()
        }
    }
}
