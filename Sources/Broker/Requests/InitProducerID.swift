/// InitProducerId (22), versions 0–5: an identity for an idempotent producer.
///
/// Every call gets a fresh id in epoch 0, as from Apache Kafka, also one that names its old id and epoch (KIP-360): those
/// count only for transactional ids. An idempotent producer goes on in its next epoch without asking, and the partitions
/// that it writes to fence the older ones (`ProducerTable`). Gaps: transactional ids are refused.
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
        let isRefused = transactionalID != nil
        let id = isRefused ? -1 : broker.nextProducerID()
        reply.send { writer in
            writer.int32(0)
            writer.error(isRefused ? .transactionalIDAuthorizationFailed : .none)
            writer.int64(id)
            writer.int16(id < 0 ? -1 : 0)
            writer.noTags()
        }
    }
}
