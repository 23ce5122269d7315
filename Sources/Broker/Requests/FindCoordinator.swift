/// FindCoordinator (10), versions 0–6: where a group is run, which is here.
///
/// Gaps: transactional ids are refused with an authorization error, the one that makes clients give up at once.
struct FindCoordinatorRequest: Request {
    static let api = API(10, "FindCoordinator", 0...6, flexibleFrom: 3)

    let keys: [String]
    let keyType: Int8

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        var keys = version < 4 ? [try reader.string()] : []
        keyType = version >= 1 ? try reader.int8() : 0
        if version >= 4 { keys = try reader.stringArray() }
        self.keys = keys
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let version = reply.version
        let address = broker.address(for: reply.connection)
        let error: ErrorCode =
            switch keyType {
            case 0: .none
            case 1: .transactionalIDAuthorizationFailed
            default: .invalidRequest
            }
        let message = error == .none ? nil : "only groups have a coordinator here; transactions are not supported"
        func place(_ writer: inout ResponseWriter) {
            writer.int32(error == .none ? BrokerCore.nodeID : -1)
            writer.string(error == .none ? address.host : "")
            writer.int32(error == .none ? address.port : -1)
        }
        reply.send { writer in
            if version >= 1 { writer.int32(0) }
            if version < 4 {
                writer.error(error)
                if version >= 1 { writer.nullableString(message) }
                place(&writer)
            } else {
                writer.array(keys) { writer, key in
                    writer.string(key)
                    place(&writer)
                    writer.error(error)
                    writer.nullableString(message)
                    writer.noTags()
                }
            }
            writer.noTags()
        }
    }
}
