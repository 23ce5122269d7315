/// DescribeCluster (60), versions 0–1: this broker, which is all there is. Gaps: controllers are not a kind of their own.
struct DescribeClusterRequest: Request {
    static let api = API(60, "DescribeCluster", 0...1, flexibleFrom: 0)

    let asksForOperations: Bool
    let endpointType: Int8

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        asksForOperations = try reader.bool()
        endpointType = version >= 1 ? try reader.int8() : 1
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let address = broker.address(for: reply.connection)
        let isKnown = endpointType == 1
        reply.send { writer in
            writer.int32(0)
            writer.error(isKnown ? .none : .unsupportedVersion)
            writer.nullableString(isKnown ? nil : "only brokers can be described")
            if reply.version >= 1 { writer.int8(endpointType) }
            writer.string(broker.storage.catalog.clusterID.text)
            writer.int32(BrokerCore.nodeID)
            writer.arrayCount(isKnown ? 1 : 0)
            if isKnown {
                writer.int32(BrokerCore.nodeID)
                writer.string(address.host)
                writer.int32(address.port)
                writer.nullableString(nil)
                writer.noTags()
            }
            writer.int32(asksForOperations ? AuthorizedOperations.cluster : AuthorizedOperations.notRequested)
            writer.noTags()
        }
    }
}
