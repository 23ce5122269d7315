internal import Wire

/// The requests that are made here, each in versions that Apache Kafka 2.1 to 4.x and the embedded broker speak. Topic ids
/// are in those that came with Apache Kafka 2.8 and 3.1.
enum KafkaAPI: Int16, CaseIterable {
    case produce = 0
    case fetch = 1
    case listOffsets = 2
    case metadata = 3
    case findCoordinator = 10
    case leaveGroup = 13
    case apiVersions = 18
    case initProducerID = 22
    case offsetForLeaderEpoch = 23

    /// The newest version spoken here; a broker's own limit may lower it.
    var versionMax: Int16 {
        switch self {
        case .produce: 7
        case .fetch: 13
        case .listOffsets: 5
        case .metadata: 12
        case .findCoordinator: 1
        case .leaveGroup: 3
        case .apiVersions: 0
        case .initProducerID: 1
        case .offsetForLeaderEpoch: 3
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
        // Before it, a broker does not say whether it knows of the epoch that is current to whoever asks.
        case .offsetForLeaderEpoch: 2
        }
    }

    /// From here on lengths are varints, and structures end with tagged fields.
    private var flexibleFrom: Int16 {
        switch self {
        case .fetch: 12
        case .metadata: 9
        case .produce, .listOffsets, .findCoordinator, .leaveGroup, .apiVersions, .initProducerID,
            .offsetForLeaderEpoch:
            .max
        }
    }

    func isFlexible(_ version: Int16) -> Bool { version >= flexibleFrom }

    /// Whether a broker that does not speak it is of no use; the others are asked of brokers that answer by themselves.
    var isNeeded: Bool {
        switch self {
        case .produce, .fetch, .listOffsets, .metadata, .initProducerID: true
        case .apiVersions, .findCoordinator, .leaveGroup, .offsetForLeaderEpoch: false
        }
    }
}

/// One request: size, header and fields.
struct RequestFrame {
    private(set) var bytes: [UInt8] = []
    private let isFlexible: Bool

    init(_ api: KafkaAPI, version: Int16, correlationID: Int32, clientID: String, capacity: Int = 256) {
        isFlexible = api.isFlexible(version)
        bytes.reserveCapacity(capacity)
        int32(0)
        int16(api.rawValue)
        int16(version)
        int32(correlationID)
        // In the old form in every version, so that a header can be read before its version is known.
        int16(Int16(clientID.utf8.count))
        bytes.append(contentsOf: clientID.utf8)
        noTags()
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
        if isFlexible { count(value.utf8.count) } else { int16(Int16(value.utf8.count)) }
        bytes.append(contentsOf: value.utf8)
    }

    mutating func uuid(_ value: UUID) {
        bytes.appendBigEndian(value.high)
        bytes.appendBigEndian(value.low)
    }

    /// How many elements follow.
    mutating func count(_ value: Int) {
        guard isFlexible else { return int32(Int32(value)) }
        var rest = UInt(value + 1)
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    /// Ends a structure without tagged fields.
    mutating func noTags() { if isFlexible { bytes.append(0) } }

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
    private var isFlexible = false

    /// The answer is not what its request's version says.
    struct Malformed: Error, Equatable {}

    @_lifetime(copy bytes)
    init(_ bytes: Span<UInt8>) { self.bytes = bytes }

    /// What follows the correlation id is of this form.
    mutating func begin(_ api: KafkaAPI, version: Int16) throws(Malformed) {
        isFlexible = api.isFlexible(version)
        try skipTags()
    }

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

    mutating func uuid() throws(Malformed) -> UUID { UUID(high: try bigEndian(), low: try bigEndian()) }

    private mutating func unsignedVarint() throws(Malformed) -> Int {
        var value = 0
        for shift in stride(from: 0, to: 35, by: 7) {
            guard position < bytes.count else { throw Malformed() }
            let byte = bytes[position]
            position += 1
            value |= Int(byte & 0x7f) << shift
            if byte < 0x80 { return value }
        }
        throw Malformed()
    }

    /// Passes over `count` bytes.
    private mutating func skip(_ count: Int) throws(Malformed) -> Range<Int> {
        guard count >= 0, count <= bytes.count - position else { throw Malformed() }
        defer { position += count }
        return position..<position + count
    }

    /// Passes over what ends a structure.
    mutating func skipTags() throws(Malformed) {
        guard isFlexible else { return }
        for _ in 0..<(try unsignedVarint()) {
            _ = try unsignedVarint()
            _ = try skip(try unsignedVarint())
        }
    }

    mutating func string() throws(Malformed) -> String {
        guard let value = try nullableString() else { throw Malformed() }
        return value
    }

    mutating func nullableString() throws(Malformed) -> String? {
        let count = isFlexible ? try unsignedVarint() - 1 : Int(try int16())
        if count == -1 { return nil }
        guard let text = try? UTF8Span(validating: bytes.extracting(try skip(count))) else { throw Malformed() }
        return String(copying: text)
    }

    /// Passes over a string and answers where it stands.
    mutating func skipString() throws(Malformed) -> Range<Int> {
        try skip(isFlexible ? try unsignedVarint() - 1 : Int(try int16()))
    }

    /// Passes over bytes, of which there may be none, and answers where they stand.
    mutating func skipBytes() throws(Malformed) -> Range<Int> {
        try skip(max(0, isFlexible ? try unsignedVarint() - 1 : Int(try int32())))
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
        let count = isFlexible ? try unsignedVarint() - 1 : Int(try int32())
        guard count >= -1, count <= (bytes.count - position) / 4 else { throw Malformed() }
        return max(0, count)
    }

    mutating func skipInt32s() throws(Malformed) {
        for _ in 0..<(try count()) { _ = try int32() }
    }
}
