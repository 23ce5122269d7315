internal import Wire

/// The requests that are made here, each in a version that Apache Kafka 2.1 to 4.x and the embedded broker speak: the
/// last before lengths became varints.
enum KafkaAPI: Int16, CaseIterable {
    case produce = 0
    case fetch = 1
    case listOffsets = 2
    case metadata = 3
    case findCoordinator = 10
    case leaveGroup = 13
    case apiVersions = 18
    case initProducerID = 22

    /// The newest version spoken here; a broker's own limit may lower it.
    var versionMax: Int16 {
        switch self {
        case .produce: 7
        case .fetch: 10
        case .listOffsets: 2
        case .metadata: 4
        case .findCoordinator: 1
        case .leaveGroup: 3
        case .apiVersions: 0
        case .initProducerID: 1
        }
    }

    /// The oldest version whose form is known here.
    var versionMin: Int16 {
        switch self {
        case .produce: 3
        // Before it, a broker does not give what is compressed with zstd.
        case .fetch: 10
        case .listOffsets: 2
        case .metadata, .findCoordinator: 1
        // Before it, a static member cannot be named.
        case .leaveGroup: 3
        case .apiVersions, .initProducerID: 0
        }
    }

    /// Whether a broker that does not speak it is of no use; the others are asked of brokers that answer by themselves.
    var isNeeded: Bool {
        switch self {
        case .produce, .fetch, .listOffsets, .metadata, .initProducerID: true
        case .apiVersions, .findCoordinator, .leaveGroup: false
        }
    }
}

/// One request: size, header and fields.
struct RequestFrame {
    private(set) var bytes: [UInt8] = []

    init(_ api: KafkaAPI, version: Int16, correlationID: Int32, clientID: String, capacity: Int = 256) {
        bytes.reserveCapacity(capacity)
        int32(0)
        int16(api.rawValue)
        int16(version)
        int32(correlationID)
        string(clientID)
    }

    /// The whole request, its size filled in.
    consuming func finished() -> [UInt8] {
        bytes.setBigEndian(UInt32(bytes.count - 4), at: 0)
        return bytes
    }

    mutating func int8(_ value: Int8) { bytes.append(UInt8(bitPattern: value)) }
    mutating func int16(_ value: Int16) { bytes.appendBigEndian(value) }
    mutating func int32(_ value: Int32) { bytes.appendBigEndian(value) }
    mutating func int64(_ value: Int64) { bytes.appendBigEndian(value) }

    mutating func string(_ value: String) {
        int16(Int16(value.utf8.count))
        bytes.append(contentsOf: value.utf8)
    }

    mutating func null() { int16(-1) }

    mutating func byteArray(_ value: [UInt8]) {
        int32(Int32(value.count))
        bytes.append(contentsOf: value)
    }
}

/// Reads an answer. It comes from the network, so every length is checked against what is there.
struct AnswerReader: ~Escapable {
    private let bytes: Span<UInt8>
    private(set) var position = 0

    /// The answer is not what its request's version says.
    struct Malformed: Error, Equatable {}

    @_lifetime(copy bytes)
    init(_ bytes: Span<UInt8>) { self.bytes = bytes }

    mutating func int8() throws(Malformed) -> Int8 { Int8(bitPattern: try bigEndian()) }
    mutating func int16() throws(Malformed) -> Int16 { Int16(bitPattern: try bigEndian()) }
    mutating func int32() throws(Malformed) -> Int32 { Int32(bitPattern: try bigEndian()) }
    mutating func int64() throws(Malformed) -> Int64 { Int64(bitPattern: try bigEndian()) }

    private mutating func bigEndian<T: FixedWidthInteger & UnsignedInteger>() throws(Malformed) -> T {
        let size = MemoryLayout<T>.size
        guard bytes.count - position >= size else { throw Malformed() }
        defer { position += size }
        return bytes.bigEndian(at: position)
    }

    mutating func string() throws(Malformed) -> String {
        guard let value = try nullableString() else { throw Malformed() }
        return value
    }

    mutating func nullableString() throws(Malformed) -> String? {
        let count = Int(try int16())
        if count == -1 { return nil }
        guard count >= 0, count <= bytes.count - position else { throw Malformed() }
        defer { position += count }
        guard let text = try? UTF8Span(validating: bytes.extracting(position..<position + count)) else {
            throw Malformed()
        }
        return String(copying: text)
    }

    /// Passes over a string and answers where it stands.
    mutating func skipString() throws(Malformed) -> Range<Int> {
        let count = Int(try int16())
        guard count >= 0, count <= bytes.count - position else { throw Malformed() }
        defer { position += count }
        return position..<position + count
    }

    /// Passes over bytes, of which there may be none, and answers where they stand.
    mutating func skipBytes() throws(Malformed) -> Range<Int> {
        let count = max(0, Int(try int32()))
        guard count <= bytes.count - position else { throw Malformed() }
        defer { position += count }
        return position..<position + count
    }

    func isText(_ range: Range<Int>, _ text: String) -> Bool {
        let utf8 = text.utf8
        guard utf8.count == range.count else { return false }
        var index = range.lowerBound
        for byte in utf8 {
            if bytes[index] != byte { return false }
            index += 1
        }
        return true
    }

    /// Each element takes at least four bytes, so a count that the rest cannot hold is refused.
    mutating func count() throws(Malformed) -> Int {
        let count = Int(try int32())
        guard count >= -1, count <= (bytes.count - position) / 4 else { throw Malformed() }
        return max(0, count)
    }

    mutating func skipInt32s() throws(Malformed) {
        for _ in 0..<(try count()) { _ = try int32() }
    }
}
