/// ApiVersions (18), versions 0–4: what the broker speaks.
///
/// Gaps: no features are announced. The client's software name is read and not used.
struct ApiVersionsRequest: Request {
    static let api = API(18, "ApiVersions", 0...4, flexibleFrom: 3)

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        if version >= 3 {
            _ = try reader.string()
            _ = try reader.string()
        }
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        Self.write(reply, version: reply.version, error: .none)
    }

    /// A client newer than the broker gets an answer that every client can read: version 0, with the versions to choose
    /// from.
    static func refuseVersion(_ reply: Reply) { write(reply, version: 0, error: .unsupportedVersion) }

    private static func write(_ reply: Reply, version: Int16, error: ErrorCode) {
        var writer = ResponseWriter(
            correlationID: reply.header.correlationID, flexible: version >= api.flexibleFrom, flexibleHeader: false,
            capacity: 512)
        writer.error(error)
        writer.array(API.requests) { writer, type in
            writer.int16(type.api.key)
            writer.int16(type.api.versions.lowerBound)
            writer.int16(type.api.versions.upperBound)
            writer.noTags()
        }
        if version >= 1 { writer.int32(0) }
        writer.noTags()
        reply.send(writer)
    }
}
