/// InitProducerId (22), versions 0–5: an identity for an idempotent producer.
///
/// Every call gets a fresh id in epoch 0, also a producer that asks to go on with an old one after an error: its
/// sequence numbers start again at zero either way. Gaps: transactional ids are refused.
struct InitProducerIDRequest: Request {
    static let api = API(22, "InitProducerId", 0...5, flexibleFrom: 2)

    let transactionalID: String?

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        transactionalID = try reader.nullableString()
        _ = try reader.int32()
        if version >= 3 {
            _ = try reader.int64()
            _ = try reader.int16()
        }
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        var id: Int64 = -1
        var error = ErrorCode.none
        if transactionalID != nil {
            error = .transactionalIDAuthorizationFailed
        } else {
            do throws(BrokerError) {
                id = try broker.nextProducerID()
            } catch let failure {
                broker.reportStorage(failure)
                // A code that clients try again; they give up on others.
                error = .coordinatorNotAvailable
            }
        }
        reply.send { writer in
            writer.int32(0)
            writer.error(error)
            writer.int64(id)
            writer.int16(id < 0 ? -1 : 0)
            writer.noTags()
        }
    }
}
