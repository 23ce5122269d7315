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

    /// The finished frame, its size filled in.
    consuming func frame() -> [UInt8] {
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

    mutating func string(_ value: String) {
        count(value.utf8.count, short: true)
        bytes.append(contentsOf: value.utf8)
    }

    mutating func nullableString(_ value: String?) {
        guard let value else { return count(-1, short: true) }
        string(value)
    }

    mutating func byteArray(_ value: [UInt8]) {
        count(value.count)
        bytes.append(contentsOf: value)
    }

    /// Opens a byte field of known size whose content the caller appends through `appendContent`.
    mutating func byteCount(_ value: Int) { count(value) }

    mutating func appendContent<E: Error>(_ append: (inout [UInt8]) throws(E) -> Void) throws(E) { try append(&bytes) }

    mutating func arrayCount(_ value: Int) { count(value) }

    mutating func array<Elements: Collection>(
        _ elements: Elements, _ write: (inout ResponseWriter, Elements.Element) -> Void
    ) {
        count(elements.count)
        for element in elements {
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
