/// DeleteGroups (42), versions 0–2: only groups that nobody is in.
struct DeleteGroupsRequest: Request {
    static let api = API(42, "DeleteGroups", 0...2, flexibleFrom: 2)

    let groups: [String]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        groups = try reader.stringArray()
    }

    /// Collects the outcomes of deletions that end one by one.
    private final class Outcomes {
        var errors: [ErrorCode]
        var missing: Int

        init(count: Int) {
            errors = Array(repeating: .none, count: count)
            missing = count
        }
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let outcomes = Outcomes(count: groups.count)
        func sendIfDone() {
            guard outcomes.missing == 0 else { return }
            reply.send { writer in
                writer.int32(0)
                writer.arrayCount(groups.count)
                for (group, error) in zip(groups, outcomes.errors) {
                    writer.string(group)
                    writer.error(error)
                    writer.noTags()
                }
                writer.noTags()
            }
        }
        if groups.isEmpty { sendIfDone() }
        for (index, group) in groups.enumerated() {
            broker.groups.delete(group) { error in
                outcomes.errors[index] = error
                outcomes.missing -= 1
                sendIfDone()
            }
        }
    }
}
