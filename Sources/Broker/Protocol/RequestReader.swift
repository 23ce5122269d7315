import Wire

/// Reads the fields of one request from borrowed bytes.
///
/// The bytes come from the network and are believed in nothing: every length is checked against what is left before
/// anything is allocated, so a request can never cost more memory than a small multiple of its own size. A violation
/// throws `malformed`, and the connection is closed.
///
/// From its *flexible* version on, a request writes lengths as unsigned varints plus one ("compact") and ends every
/// structure with tagged fields; `flexible` selects the form, so a request's decoder is the same for both.
struct RequestReader: ~Escapable {
    let bytes: Span<UInt8>
    private(set) var position: Int
    var flexible: Bool

    @_lifetime(copy bytes)
    init(_ bytes: Span<UInt8>, flexible: Bool = false) {
        self.bytes = bytes
        self.position = 0
        self.flexible = flexible
    }

    var remaining: Int { bytes.count - position }

    /// Of any string, in requests, answers and files.
    static let stringBytesMax = Int(Int16.max)

    // MARK: Numbers

    mutating func int8() throws(BrokerError) -> Int8 { Int8(bitPattern: try bigEndian(UInt8.self)) }
    mutating func int16() throws(BrokerError) -> Int16 { Int16(bitPattern: try bigEndian(UInt16.self)) }
    mutating func int32() throws(BrokerError) -> Int32 { Int32(bitPattern: try bigEndian(UInt32.self)) }
    mutating func int64() throws(BrokerError) -> Int64 { Int64(bitPattern: try bigEndian(UInt64.self)) }
    mutating func bool() throws(BrokerError) -> Bool { try bigEndian(UInt8.self) != 0 }

    mutating func topicID() throws(BrokerError) -> TopicID {
        TopicID(high: try bigEndian(UInt64.self), low: try bigEndian(UInt64.self))
    }

    mutating func unsignedVarint() throws(BrokerError) -> UInt32 {
        var value: UInt32 = 0
        var shift: UInt32 = 0
        while true {
            let byte = try bigEndian(UInt8.self)
            guard shift < 28 || byte < 0x10 else { throw .malformed("a varint longer than 32 bits") }
            value |= UInt32(byte & 0x7f) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
    }

    private mutating func bigEndian<T: FixedWidthInteger>(_: T.Type) throws(BrokerError) -> T {
        let end = position + MemoryLayout<T>.size
        guard end <= bytes.count else { throw .malformed("the request ends inside a field") }
        var value: T = 0
        while position < end {
            value = value << 8 | T(truncatingIfNeeded: bytes[position])
            position += 1
        }
        return value
    }

    // MARK: Strings and bytes

    mutating func string() throws(BrokerError) -> String {
        guard let value = try nullableString() else { throw .malformed("null where a string is required") }
        return value
    }

    mutating func nullableString() throws(BrokerError) -> String? {
        let count = flexible ? Int(try unsignedVarint()) - 1 : Int(try int16())
        // The compact form could be longer. Apache Kafka refuses that too, and what is kept of a request (a group's name)
        // is written with 16 bits.
        guard count <= Self.stringBytesMax else { throw .malformed("a string of \(count) bytes") }
        guard let range = try take(count) else { return nil }
        do {
            return String(copying: try UTF8Span(validating: bytes.extracting(range)))
        } catch {
            throw .malformed("a string that is not UTF-8")
        }
    }

    /// The place of a byte field inside the request; the caller borrows it from there.
    mutating func byteRange() throws(BrokerError) -> Range<Int> {
        guard let range = try nullableByteRange() else { throw .malformed("null where bytes are required") }
        return range
    }

    mutating func nullableByteRange() throws(BrokerError) -> Range<Int>? {
        try take(flexible ? Int(try unsignedVarint()) - 1 : Int(try int32()))
    }

    mutating func byteArray() throws(BrokerError) -> [UInt8] {
        let range = try byteRange()
        return [UInt8](copying: bytes.extracting(range))
    }

    private mutating func take(_ count: Int) throws(BrokerError) -> Range<Int>? {
        if count == -1 { return nil }
        guard count >= 0, count <= remaining else { throw .malformed("a length of \(count) with \(remaining) left") }
        defer { position += count }
        return position..<position + count
    }

    // MARK: Arrays

    /// Reads an array. A count is believed only as far as the bytes that are left could hold it: every element takes
    /// at least one byte, and the storage grows with the elements that were really read.
    mutating func array<Element>(
        _ element: (inout RequestReader) throws(BrokerError) -> Element
    ) throws(BrokerError) -> [Element] {
        guard let values = try nullableArray(element) else { throw .malformed("null where an array is required") }
        return values
    }

    mutating func nullableArray<Element>(
        _ element: (inout RequestReader) throws(BrokerError) -> Element
    ) throws(BrokerError) -> [Element]? {
        let count = flexible ? Int(try unsignedVarint()) - 1 : Int(try int32())
        if count == -1 { return nil }
        guard count >= 0, count <= remaining else { throw .malformed("\(count) elements in \(remaining) bytes") }
        var values: [Element] = []
        values.reserveCapacity(min(count, 64))
        for _ in 0..<count {
            values.append(try element(&self))
        }
        return values
    }

    mutating func int32Array() throws(BrokerError) -> [Int32] {
        try array { reader throws(BrokerError) in try reader.int32() }
    }

    mutating func stringArray() throws(BrokerError) -> [String] {
        try array { reader throws(BrokerError) in try reader.string() }
    }

    // MARK: Tagged fields

    /// Passes over the tagged fields that end a structure; none that a client may send changes an answer here.
    mutating func skipTags() throws(BrokerError) {
        guard flexible else { return }
        var previous = -1
        for _ in 0..<(try unsignedVarint()) {
            let tag = Int(try unsignedVarint())
            guard tag > previous else { throw .malformed("tagged fields out of order") }
            previous = tag
            _ = try take(Int(try unsignedVarint()))
        }
    }

    /// For files of our own, where bytes left over mean damage.
    func finish() throws(BrokerError) {
        guard remaining == 0 else { throw .malformed("\(remaining) bytes after the request") }
    }
}
