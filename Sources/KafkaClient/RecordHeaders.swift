/// Headers of a record to be written, kept flat so that one value can be cleared and filled again for each record
/// without an allocation.
public struct RecordHeaders: Sendable {
    /// Names are NUL-terminated, as librdkafka wants them.
    var bytes: [UInt8] = []
    var entries: [Entry] = []

    struct Entry: Sendable {
        var nameStart: Int
        var valueStart: Int
        /// -1 is a header with no value, which Kafka tells from an empty one.
        var valueCount: Int
    }

    public init() {}

    public init(_ name: StaticString, _ value: Span<UInt8>) { append(name, value) }

    public var count: Int { entries.count }

    public mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        entries.removeAll(keepingCapacity: true)
    }

    public mutating func append(_ name: StaticString, _ value: Span<UInt8>) {
        let nameStart = bytes.count
        name.withUTF8Buffer { unsafe bytes.append(contentsOf: $0) }
        finish(nameStart: nameStart, value)
    }

    public mutating func append(_ name: String, _ value: Span<UInt8>?) {
        let nameStart = bytes.count
        bytes.append(contentsOf: name.utf8)
        finish(nameStart: nameStart, value)
    }

    private mutating func finish(nameStart: Int, _ value: Span<UInt8>?) {
        bytes.append(0)
        let valueStart = bytes.count
        guard let value else {
            entries.append(Entry(nameStart: nameStart, valueStart: valueStart, valueCount: -1))
            return
        }
        unsafe value.withUnsafeBufferPointer { unsafe bytes.append(contentsOf: $0) }
        entries.append(Entry(nameStart: nameStart, valueStart: valueStart, valueCount: value.count))
    }
}
