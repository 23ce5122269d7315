/// A value of `chat.instances`: a chat server's announcement of itself, written each second under its name. Delivery
/// workers connect to the push address of every live instance; clients are sent to the least loaded one.
public struct InstanceRecord: Equatable, Sendable {
    /// The name, unique among all instances, and the record's key.
    public var instance: String
    /// Changes with every start of the process.
    public var epoch: UInt64
    /// `host:port` where it listens for workers.
    public var pushAddress: String
    /// Where clients connect.
    public var publicURL: String
    public var connections: Int64
    /// It takes no new sessions and is about to end.
    public var isDraining: Bool
    /// The Delivery workers whose links are open, by name; the first of them where there are many. By this a worker that
    /// cannot reach an instance learns whether others can.
    public var workers: [String]
    public var ts: Int64

    /// An instance not heard of for this long is dead.
    public static let silenceMsMax: Int64 = 5_000
    /// Every second, to everybody: so no more than are needed to find one that is better off.
    public static let workersMax = 32

    public init(
        instance: String, epoch: UInt64, pushAddress: String, publicURL: String, connections: Int64,
        isDraining: Bool, workers: [String] = [], ts: Int64
    ) {
        (self.instance, self.epoch, self.pushAddress, self.publicURL) = (instance, epoch, pushAddress, publicURL)
        (self.connections, self.isDraining, self.workers, self.ts) = (connections, isDraining, workers, ts)
    }

    enum Field: String, CaseIterable {
        case instance, epoch, connections, draining, workers, ts
        case pushAddress = "push_address"
        case publicURL = "public_url"
    }
    private static let fields = JSONFields<Field>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var instance: String?
        var epoch: Int64?
        var ts: Int64?
        (pushAddress, publicURL, connections, isDraining, workers) = ("", "", 0, false, [])
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: bytes) {
            case .instance: instance = try reader.readText()
            case .epoch: epoch = try reader.readInt()
            case .pushAddress: pushAddress = try reader.readText()
            case .publicURL: publicURL = try reader.readText()
            case .connections: connections = try reader.readInt()
            case .draining: isDraining = try reader.readBool()
            case .workers:
                try reader.beginArray()
                while try reader.nextElement() {
                    let worker = try reader.readText()
                    if workers.count < Self.workersMax { workers.append(worker) }
                }
            case .ts: ts = try reader.readInt()
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
        guard let instance, let epoch, let ts else { throw JSONError(.missingField, at: bytes.count) }
        guard epoch >= 0 else { throw JSONError(.badValue, at: 0) }
        (self.instance, self.epoch, self.ts) = (instance, UInt64(epoch), ts)
    }

    public func write(to json: inout JSONWriter) {
        json.beginObject()
        json.field("instance", instance)
        json.field("epoch", epoch)
        json.field("push_address", pushAddress)
        json.field("public_url", publicURL)
        json.field("connections", connections)
        json.field("draining", isDraining)
        json.name("workers")
        json.array { json in
            for worker in workers.prefix(Self.workersMax) { json.value(worker) }
        }
        json.field("ts", ts)
        json.endObject()
    }
}
