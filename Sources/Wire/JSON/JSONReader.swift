/// A pull reader over borrowed JSON bytes: no tree, no allocation, strict RFC 8259.
///
/// The caller walks the value in the order of the text:
///
///     var reader = JSONReader(bytes)
///     try reader.beginObject()
///     while let field = try reader.nextField() {
///         switch Self.fields.find(field, in: bytes) {
///         case .chat: chat = try reader.readID()
///         case .text: text = try reader.readString()
///         case nil: try reader.skipValue()
///         }
///     }
///     try reader.finish()
///
/// Every field must be consumed (`read…`, `skipValue`, `begin…`) before the next is asked for. Values that only pass
/// through are taken with `skipValue()`, whose range can be spliced into output untouched: it has been checked to be
/// well-formed. Strings are checked (UTF-8, escapes, no raw control characters) as they are passed, and decoded only
/// on demand.
public struct JSONReader: ~Escapable {
    public let bytes: Span<UInt8>
    public private(set) var offset: Int
    /// One bit for each open container, lowest innermost: 1 for an object. The depth limit is its width.
    private var containers: UInt64 = 0
    private var depth = 0
    /// Whether the innermost container has had a member already.
    private var hasPrevious = false

    public static let depthMax = 64

    @_lifetime(copy bytes)
    public init(_ bytes: Span<UInt8>) {
        self.bytes = bytes
        self.offset = 0
    }

    // MARK: Containers

    public enum Kind: Sendable { case object, array, string, number, bool, null }

    /// The kind of the next value, without consuming it.
    @_lifetime(self: copy self)
    public mutating func peek() throws(JSONError) -> Kind {
        switch try nextByte() {
        case UInt8(ascii: "{"): .object
        case UInt8(ascii: "["): .array
        case UInt8(ascii: "\""): .string
        case UInt8(ascii: "t"), UInt8(ascii: "f"): .bool
        case UInt8(ascii: "n"): .null
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): .number
        default: throw JSONError(.unexpectedByte, at: offset)
        }
    }

    @_lifetime(self: copy self)
    public mutating func beginObject() throws(JSONError) {
        try open(UInt8(ascii: "{"), isObject: true)
    }

    @_lifetime(self: copy self)
    public mutating func beginArray() throws(JSONError) {
        try open(UInt8(ascii: "["), isObject: false)
    }

    /// The name of the next field, or `nil` when the object has ended.
    @_lifetime(self: copy self)
    public mutating func nextField() throws(JSONError) -> JSONString? {
        if try atEnd(UInt8(ascii: "}")) { return nil }
        let name = try readString()
        guard try nextByte() == UInt8(ascii: ":") else { throw JSONError(.unexpectedByte, at: offset) }
        offset &+= 1
        return name
    }

    /// Whether the array has another element; `false` consumes its end.
    @_lifetime(self: copy self)
    public mutating func nextElement() throws(JSONError) -> Bool {
        try !atEnd(UInt8(ascii: "]"))
    }

    /// Nothing but white space may follow.
    @_lifetime(self: copy self)
    public mutating func finish() throws(JSONError) {
        skipWhitespace()
        if offset < bytes.count || depth > 0 { throw JSONError(.trailingBytes, at: offset) }
    }

    // MARK: Values

    /// Checks the string and passes it; its content is decoded only if asked for.
    @_lifetime(self: copy self)
    public mutating func readString() throws(JSONError) -> JSONString {
        guard try nextByte() == UInt8(ascii: "\"") else { throw JSONError(.wrongType, at: offset) }
        offset &+= 1
        let start = offset
        var hasEscapes = false
        let count = bytes.count
        while offset < count {
            let byte = bytes[offset]
            if byte == UInt8(ascii: "\"") {
                defer { offset &+= 1 }
                return JSONString(range: start..<offset, hasEscapes: hasEscapes)
            }
            if byte >= 0x80 {
                offset = try endOfUTF8Sequence(at: offset)
            } else if byte == UInt8(ascii: "\\") {
                hasEscapes = true
                offset = try endOfEscape(at: offset)
            } else if byte < 0x20 {
                throw JSONError(.controlCharacter, at: offset)
            } else {
                offset &+= 1
            }
        }
        throw JSONError(.endOfInput, at: offset)
    }

    /// The next string, decoded.
    @_lifetime(self: copy self)
    public mutating func readText() throws(JSONError) -> String {
        let string = try readString()
        return string.text(in: bytes)
    }

    @_lifetime(self: copy self)
    public mutating func readUUID() throws(JSONError) -> UUID {
        // As every writer writes it, without a look at each character for escapes: lists of recipients are read so.
        let start = try nextByte() == UInt8(ascii: "\"") ? offset &+ 1 : bytes.count
        let end = start &+ UUID.textCount
        if end < bytes.count, bytes[end] == UInt8(ascii: "\""),
            let uuid = UUID(text: bytes.extracting(start..<end))
        {
            offset = end &+ 1
            return uuid
        }
        let string = try readString()
        guard let uuid = UUID(text: bytes.extracting(string.range)) else {
            throw JSONError(.badID, at: string.range.lowerBound)
        }
        return uuid
    }

    @_lifetime(self: copy self)
    public mutating func readID<Kind>() throws(JSONError) -> ID<Kind> {
        ID(try readUUID())
    }

    /// A string that names a case.
    @_lifetime(self: copy self)
    mutating func readCase<Case: CaseIterable & RawRepresentable<String>>() throws(JSONError) -> Case {
        let string = try readString()
        guard let found = Case.allCases.first(where: { string.equals($0.rawValue, in: bytes) }) else {
            throw JSONError(.badValue, at: string.range.lowerBound)
        }
        return found
    }

    /// An integer written without fraction or exponent.
    @_lifetime(self: copy self)
    public mutating func readInt() throws(JSONError) -> Int64 {
        let range = try skipNumber()
        var index = range.lowerBound
        let negative = bytes[index] == UInt8(ascii: "-")
        if negative { index &+= 1 }
        var value: Int64 = 0
        while index < range.upperBound {
            let digit = bytes[index] &- 0x30
            guard digit < 10 else { throw JSONError(.wrongType, at: range.lowerBound) }
            let (product, overflowed) = value.multipliedReportingOverflow(by: 10)
            let (sum, carried) = product.subtractingReportingOverflow(Int64(digit))
            if overflowed || carried { throw JSONError(.numberOutOfRange, at: range.lowerBound) }
            value = sum
            index &+= 1
        }
        // Accumulated below zero, where the range is one larger.
        if negative { return value }
        guard value != .min else { throw JSONError(.numberOutOfRange, at: range.lowerBound) }
        return -value
    }

    @_lifetime(self: copy self)
    public mutating func readDouble() throws(JSONError) -> Double {
        let range = try skipNumber()
        guard let value = Double(String(showing: bytes.extracting(range))), value.isFinite else {
            throw JSONError(.numberOutOfRange, at: range.lowerBound)
        }
        return value
    }

    @_lifetime(self: copy self)
    public mutating func readBool() throws(JSONError) -> Bool {
        switch try nextByte() {
        case UInt8(ascii: "t"):
            try literal("true")
            return true
        case UInt8(ascii: "f"):
            try literal("false")
            return false
        default: throw JSONError(.wrongType, at: offset)
        }
    }

    /// Consumes `null` if it is next.
    @_lifetime(self: copy self)
    public mutating func readNull() throws(JSONError) -> Bool {
        guard try nextByte() == UInt8(ascii: "n") else { return false }
        try literal("null")
        return true
    }

    /// Passes a whole value of any kind and returns where it stands.
    @_lifetime(self: copy self)
    @discardableResult
    public mutating func skipValue() throws(JSONError) -> Range<Int> {
        _ = try nextByte()
        let start = offset
        let outer = depth
        repeat {
            switch try peek() {
            case .object:
                try beginObject()
            case .array:
                try beginArray()
            case .string: _ = try readString()
            case .number: _ = try skipNumber()
            case .bool: _ = try readBool()
            case .null: _ = try readNull()
            }
            // Leave every container that has ended; stop in front of the next value, if any.
            while depth > outer {
                if containers & 1 == 1 {
                    if try nextField() != nil { break }
                } else {
                    if try nextElement() { break }
                }
            }
        } while depth > outer
        return start..<offset
    }

    // MARK: Pieces

    @_lifetime(self: copy self)
    private mutating func open(_ byte: UInt8, isObject: Bool) throws(JSONError) {
        guard try nextByte() == byte else { throw JSONError(.wrongType, at: offset) }
        guard depth < Self.depthMax else { throw JSONError(.tooDeep, at: offset) }
        offset &+= 1
        depth &+= 1
        containers = containers << 1 | (isObject ? 1 : 0)
        hasPrevious = false
    }

    /// Steps over the separator before the next member, or over the container's end.
    @_lifetime(self: copy self)
    private mutating func atEnd(_ close: UInt8) throws(JSONError) -> Bool {
        let byte = try nextByte()
        if byte == close {
            offset &+= 1
            depth &-= 1
            containers >>= 1
            hasPrevious = true
            return true
        }
        if hasPrevious {
            guard byte == UInt8(ascii: ",") else { throw JSONError(.unexpectedByte, at: offset) }
            offset &+= 1
            if try nextByte() == close { throw JSONError(.unexpectedByte, at: offset) }
        }
        hasPrevious = true
        return false
    }

    @_lifetime(self: copy self)
    private mutating func skipWhitespace() {
        while offset < bytes.count {
            let byte = bytes[offset]
            guard byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 else { return }
            offset &+= 1
        }
    }

    @_lifetime(self: copy self)
    private mutating func nextByte() throws(JSONError) -> UInt8 {
        skipWhitespace()
        guard offset < bytes.count else { throw JSONError(.endOfInput, at: offset) }
        return bytes[offset]
    }

    @_lifetime(self: copy self)
    private mutating func literal(_ text: String) throws(JSONError) {
        for expected in text.utf8 {
            guard offset < bytes.count else { throw JSONError(.endOfInput, at: offset) }
            guard bytes[offset] == expected else { throw JSONError(.unexpectedByte, at: offset) }
            offset &+= 1
        }
    }

    @_lifetime(self: copy self)
    private mutating func skipNumber() throws(JSONError) -> Range<Int> {
        let first = try nextByte()
        let start = offset
        guard first == UInt8(ascii: "-") || first &- 0x30 < 10 else { throw JSONError(.wrongType, at: offset) }
        if first == UInt8(ascii: "-") { offset &+= 1 }
        if offset < bytes.count, bytes[offset] == UInt8(ascii: "0") {
            offset &+= 1
        } else {
            try skipDigits()
        }
        if offset < bytes.count, bytes[offset] == UInt8(ascii: ".") {
            offset &+= 1
            try skipDigits()
        }
        if offset < bytes.count, bytes[offset] | 0x20 == UInt8(ascii: "e") {
            offset &+= 1
            if offset < bytes.count, bytes[offset] == UInt8(ascii: "+") || bytes[offset] == UInt8(ascii: "-") {
                offset &+= 1
            }
            try skipDigits()
        }
        if offset < bytes.count, bytes[offset] &- 0x30 < 10 { throw JSONError(.badNumber, at: offset) }
        return start..<offset
    }

    @_lifetime(self: copy self)
    private mutating func skipDigits() throws(JSONError) {
        let start = offset
        while offset < bytes.count, bytes[offset] &- 0x30 < 10 { offset &+= 1 }
        if offset == start { throw JSONError(.badNumber, at: offset) }
    }

    private func endOfEscape(at start: Int) throws(JSONError) -> Int {
        guard start + 1 < bytes.count else { throw JSONError(.endOfInput, at: bytes.count) }
        switch bytes[start + 1] {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"),
            UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
            return start + 2
        case UInt8(ascii: "u"):
            let unit = try hexUnit(at: start + 2)
            guard unit & 0xf800 == 0xd800 else { return start + 6 }
            // A surrogate counts only as the first half of a pair: a lone one has no UTF-8 form.
            guard unit < 0xdc00, start + 7 < bytes.count, bytes[start + 6] == UInt8(ascii: "\\"),
                bytes[start + 7] == UInt8(ascii: "u"), try hexUnit(at: start + 8) & 0xfc00 == 0xdc00
            else { throw JSONError(.badEscape, at: start) }
            return start + 12
        default: throw JSONError(.badEscape, at: start)
        }
    }

    private func hexUnit(at start: Int) throws(JSONError) -> UInt32 {
        guard start + 4 <= bytes.count else { throw JSONError(.endOfInput, at: bytes.count) }
        guard let unit = JSONString.hexUnit(bytes, at: start) else { throw JSONError(.badEscape, at: start) }
        return unit
    }

    /// The end of one multi-byte UTF-8 sequence: no overlong form, no surrogate, nothing above U+10FFFF.
    private func endOfUTF8Sequence(at start: Int) throws(JSONError) -> Int {
        let lead = bytes[start]
        let length: Int
        var second: ClosedRange<UInt8> = 0x80...0xbf
        switch lead {
        case 0xc2...0xdf: length = 2
        case 0xe0: (length, second) = (3, 0xa0...0xbf)
        case 0xed: (length, second) = (3, 0x80...0x9f)
        case 0xe1...0xef: length = 3
        case 0xf0: (length, second) = (4, 0x90...0xbf)
        case 0xf1...0xf3: length = 4
        case 0xf4: (length, second) = (4, 0x80...0x8f)
        default: throw JSONError(.invalidUTF8, at: start)
        }
        guard start + length <= bytes.count else { throw JSONError(.invalidUTF8, at: start) }
        guard second.contains(bytes[start + 1]) else { throw JSONError(.invalidUTF8, at: start) }
        for index in start + 2..<start + length where bytes[index] & 0xc0 != 0x80 {
            throw JSONError(.invalidUTF8, at: start)
        }
        return start + length
    }
}
