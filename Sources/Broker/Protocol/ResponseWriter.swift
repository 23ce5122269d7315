internal import Wire

/// Builds one response frame: size, correlation id, then the fields in the form that the request's version asks for.
struct ResponseWriter {
    private(set) var bytes: [UInt8]
    let flexible: Bool

    /// `flexibleHeader` is separate because ApiVersions answers with the oldest header in every version: a client
    /// that does not know yet what the broker speaks must be able to read it.
    init(correlationID: Int32, flexible: Bool, flexibleHeader: Bool? = nil, capacity: Int = 256) {
        self.flexible = flexible
        bytes = []
        bytes.reserveCapacity(capacity)
        int32(0)
        int32(correlationID)
        if flexibleHeader ?? flexible { bytes.append(0) }
    }

    /// No client takes a larger answer (librdkafka's limit), and some small requests could ask for one: whoever names a
    /// topic of ten thousand partitions a hundred thousand times.
    static let bytesMax = 100_000_000
    /// Arrays end early then, and there is no frame.
    var isTooLarge: Bool { bytes.count > Self.bytesMax }

    /// The finished frame, its size filled in; `nil` when it became too large to be sent.
    consuming func frame() -> [UInt8]? {
        guard !isTooLarge else { return nil }
        let size = UInt32(bytes.count - 4)
        for index in 0..<4 {
            bytes[index] = UInt8(truncatingIfNeeded: size >> UInt32(24 - 8 * index))
        }
        return bytes
    }

    // MARK: Numbers

    mutating func int8(_ value: Int8) { bytes.append(UInt8(bitPattern: value)) }
    mutating func int16(_ value: Int16) { bigEndian(UInt16(bitPattern: value)) }
    mutating func int32(_ value: Int32) { bigEndian(UInt32(bitPattern: value)) }
    mutating func int64(_ value: Int64) { bigEndian(UInt64(bitPattern: value)) }
    mutating func bool(_ value: Bool) { bytes.append(value ? 1 : 0) }
    mutating func error(_ code: ErrorCode) { int16(code.rawValue) }

    mutating func topicID(_ id: TopicID) {
        bigEndian(id.high)
        bigEndian(id.low)
    }

    mutating func unsignedVarint(_ value: UInt32) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    private mutating func bigEndian<T: FixedWidthInteger>(_ value: T) {
        var shift = T.bitWidth
        while shift > 0 {
            shift -= 8
            bytes.append(UInt8(truncatingIfNeeded: value >> T(shift)))
        }
    }

    // MARK: Strings, bytes, arrays

    /// An error message that quotes what it refuses may be longer than the protocol can say; it is cut off.
    mutating func string(_ value: String) {
        let utf8 = value.prefix(utf8Bytes: RequestReader.stringBytesMax).utf8
        count(utf8.count, short: true)
        bytes.append(contentsOf: utf8)
    }

    mutating func nullableString(_ value: String?) {
        guard let value else { return count(-1, short: true) }
        string(value)
    }

    mutating func byteArray(_ value: [UInt8]) {
        count(value.count)
        bytes.append(contentsOf: value)
    }

    /// A byte field whose content the caller appends, so that what is read from a file is not copied once more. Its size is
    /// known only then: `sizeMax` is usually written with as many digits.
    mutating func byteArray<Result, E: Error>(
        sizeMax: Int, _ append: (inout [UInt8]) throws(E) -> Result
    ) throws(E) -> Result {
        let start = bytes.count
        count(sizeMax)
        let content = bytes.count
        let result = try append(&bytes)
        let prefix = start..<content
        var sized = ResponseWriter(correlationID: 0, flexible: flexible, flexibleHeader: false, capacity: 16)
        sized.count(bytes.count - content)
        bytes.replaceSubrange(prefix, with: sized.bytes[8...])
        return result
    }

    /// Takes back what was written after there were `count` bytes.
    mutating func rewind(to count: Int) { bytes.removeLast(bytes.count - count) }

    mutating func arrayCount(_ value: Int) { count(value) }

    mutating func array<Elements: Collection>(
        _ elements: Elements, _ write: (inout ResponseWriter, Elements.Element) -> Void
    ) {
        count(elements.count)
        for element in elements where !isTooLarge {
            write(&self, element)
        }
    }

    mutating func int32Array(_ values: [Int32]) {
        array(values) { $0.int32($1) }
    }

    private mutating func count(_ value: Int, short: Bool = false) {
        if flexible {
            unsignedVarint(UInt32(value + 1))
        } else if short {
            int16(Int16(value))
        } else {
            int32(Int32(value))
        }
    }

    // MARK: Tagged fields

    /// Ends a structure that has no tagged field set.
    mutating func noTags() {
        if flexible { bytes.append(0) }
    }
}

extension String {
    /// As much of the start as fits, never half a character of Unicode.
    func prefix(utf8Bytes limit: Int) -> Substring {
        guard utf8.count > limit else { return self[...] }
        var end = utf8.index(startIndex, offsetBy: limit)
        while Index(end, within: unicodeScalars) == nil { end = utf8.index(before: end) }
        return self[..<end]
    }
}
