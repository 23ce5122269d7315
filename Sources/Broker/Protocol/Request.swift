/// One kind of request: which versions are spoken, how it is read, and how it is answered.
protocol Request: SendableMetatype {
    static var api: API { get }
    init(from reader: inout RequestReader, version: Int16) throws(BrokerError)
    /// Answers through `reply`, at once or later. `frame` is the request's bytes, for what it holds by place. A throw means
    /// that the peer broke the protocol, and closes the connection.
    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError)
}

struct API: Sendable {
    let key: Int16
    let name: String
    let versions: ClosedRange<Int16>
    /// From here on the compact encodings and tagged fields; `Int16.max` when no version has them.
    let flexibleFrom: Int16

    init(_ key: Int16, _ name: String, _ versions: ClosedRange<Int16>, flexibleFrom: Int16 = .max) {
        self.key = key
        self.name = name
        self.versions = versions
        self.flexibleFrom = flexibleFrom
    }

    /// All requests that are answered, by key.
    static let requests: [any Request.Type] = [
        ProduceRequest.self, FetchRequest.self, ListOffsetsRequest.self, MetadataRequest.self,
        OffsetCommitRequest.self, OffsetFetchRequest.self, FindCoordinatorRequest.self, JoinGroupRequest.self,
        HeartbeatRequest.self, LeaveGroupRequest.self, SyncGroupRequest.self, DescribeGroupsRequest.self,
        ListGroupsRequest.self, ApiVersionsRequest.self, CreateTopicsRequest.self, DeleteTopicsRequest.self,
        DeleteRecordsRequest.self, InitProducerIDRequest.self, OffsetForLeaderEpochRequest.self,
        DescribeConfigsRequest.self, AlterConfigsRequest.self, CreatePartitionsRequest.self,
        DeleteGroupsRequest.self, IncrementalAlterConfigsRequest.self, OffsetDeleteRequest.self,
        DescribeClusterRequest.self,
    ]

    static let byKey: [Int16: any Request.Type] = Dictionary(uniqueKeysWithValues: requests.map { ($0.api.key, $0) })
}

/// What precedes every request.
struct RequestHeader: Equatable {
    var key: Int16
    var version: Int16
    var correlationID: Int32
    var clientID: String?

    /// Reads the header and leaves the reader at the body, set to the body's form.
    init(from reader: inout RequestReader) throws(BrokerError) {
        key = try reader.int16()
        version = try reader.int16()
        correlationID = try reader.int32()
        // The client id keeps its old form in every version, so that a header can be read before its version is known.
        clientID = try reader.nullableString()
        if let api = API.byKey[key]?.api {
            reader.flexible = version >= api.flexibleFrom
            if api.versions.contains(version) { try reader.skipTags() }
        }
    }
}

/// Where the answer to one request goes. Answers leave in the order of the requests, whenever they are given.
struct Reply {
    let connection: Connection
    let slot: UInt64
    let header: RequestHeader
    let flexible: Bool

    var version: Int16 { header.version }

    func send(capacity: Int = 256, _ fields: (inout ResponseWriter) -> Void) {
        var writer = ResponseWriter(correlationID: header.correlationID, flexible: flexible, capacity: capacity)
        fields(&writer)
        send(writer)
    }

    func send(_ writer: consuming ResponseWriter) {
        guard let frame = writer.frame() else {
            return connection.refuse(
                .malformed("a request with an answer of more than \(ResponseWriter.bytesMax) bytes"))
        }
        connection.respond(slot, frame)
    }

    /// Ends the request without an answer: acks=0.
    func sendNothing() { connection.respond(slot, []) }
}
