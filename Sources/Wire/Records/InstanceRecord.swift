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
    public var ts: Int64

    /// An instance not heard of for this long is dead.
    public static let silenceMsMax: Int64 = 5_000

    public init(
        instance: String, epoch: UInt64, pushAddress: String, publicURL: String, connections: Int64,
        isDraining: Bool, ts: Int64
    ) {
        (self.instance, self.epoch, self.pushAddress, self.publicURL) = (instance, epoch, pushAddress, publicURL)
        (self.connections, self.isDraining, self.ts) = (connections, isDraining, ts)
    }

    enum Field: String, CaseIterable {
        case instance, epoch, connections, draining, ts
        case pushAddress = "push_address"
        case publicURL = "public_url"
    }
    private static let fields = JSONFields<Field>()

    public init(decoding bytes: Span<UInt8>) throws(JSONError) {
        var instance: String?
        var epoch: Int64?
        var ts: Int64?
        (pushAddress, publicURL, connections, isDraining) = ("", "", 0, false)
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
        json.field("ts", ts)
        json.endObject()
    }
}
