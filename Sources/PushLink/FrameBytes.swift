import Wire

/// Writing: little-endian integers, and a length put in when the frame's end is known.
extension [UInt8] {
    @inline(__always)
    mutating func appendLittle(_ value: UInt8) { append(value) }

    @inline(__always)
    mutating func appendLittle<Value: FixedWidthInteger>(_ value: Value) {
        append(addingCapacity: MemoryLayout<Value>.size) { output in
            for shift in 0..<MemoryLayout<Value>.size {
                output.append(UInt8(truncatingIfNeeded: value >> Value(truncatingIfNeeded: shift * 8)))
            }
        }
    }

    mutating func append(_ id: ID<some Any>) {
        appendLittle(id.uuid.high)
        appendLittle(id.uuid.low)
    }

    mutating func append(_ cursor: Cursor) {
        appendLittle(cursor.offset)
        appendLittle(cursor.timestamp)
    }

    /// A short text with its length in one byte; what is too long is cut at a character.
    mutating func append(shortText text: String) {
        var text = Substring(text)
        while text.utf8.count > 255 { text = text.dropLast() }
        append(UInt8(text.utf8.count))
        append(contentsOf: text.utf8)
    }

    /// Opens a frame and says where its length will go.
    mutating func beginFrame(_ type: FrameType) -> Int {
        let start = count
        appendLittle(UInt32(0))
        append(type.rawValue)
        return start
    }

    mutating func endFrame(_ start: Int) {
        let length = UInt32(truncatingIfNeeded: count - start - 4)
        precondition(length <= LinkLimits.frameCountMax, "a push-link frame of \(length) bytes")
        for index in 0..<4 { self[start + index] = UInt8(truncatingIfNeeded: length >> UInt32(index * 8)) }
    }
}

/// Reading a frame's body: every step checks what is left, and the end must be reached exactly.
struct BodyReader: ~Escapable {
    let bytes: Span<UInt8>
    /// Where the body starts in the link's buffer, so that ranges can be told in the buffer's terms.
    let base: Int
    var position = 0

    @_lifetime(copy bytes)
    init(_ bytes: Span<UInt8>, base: Int) {
        self.bytes = bytes
        self.base = base
    }

    var rest: Int { bytes.count - position }

    @_lifetime(self: copy self)
    mutating func integer<Value: FixedWidthInteger>(_ type: Value.Type = Value.self) throws(LinkError) -> Value {
        guard rest >= MemoryLayout<Value>.size else { throw Self.short }
        var value: Value = 0
        for index in 0..<MemoryLayout<Value>.size {
            value |= Value(truncatingIfNeeded: bytes[position + index]) << Value(truncatingIfNeeded: index * 8)
        }
        position += MemoryLayout<Value>.size
        return value
    }

    @_lifetime(self: copy self)
    mutating func id<Kind>(_ type: ID<Kind>.Type = ID<Kind>.self) throws(LinkError) -> ID<Kind> {
        let high = try integer(UInt64.self)
        let low = try integer(UInt64.self)
        return ID(UUID(high: high, low: low))
    }

    @_lifetime(self: copy self)
    mutating func cursor() throws(LinkError) -> Cursor {
        let offset = try integer(Int64.self)
        let timestamp = try integer(Int64.self)
        guard offset >= -1 else { throw LinkError(.protocolViolation, "an offset of \(offset)") }
        return Cursor(offset: offset, timestamp: timestamp)
    }

    @_lifetime(self: copy self)
    mutating func partition() throws(LinkError) -> Int32 {
        let partition = try integer(Int32.self)
        guard partition >= 0 else { throw LinkError(.protocolViolation, "a partition of \(partition)") }
        return partition
    }

    /// The next bytes as a range of the link's buffer.
    @_lifetime(self: copy self)
    mutating func range(_ count: Int) throws(LinkError) -> Range<Int> {
        guard count >= 0, rest >= count else { throw Self.short }
        defer { position += count }
        return base + position..<base + position + count
    }

    /// A count that cannot promise more than the frame can hold.
    @_lifetime(self: copy self)
    mutating func count(each size: Int) throws(LinkError) -> Int {
        let count = Int(try integer(UInt32.self))
        guard count <= rest / size else { throw Self.short }
        return count
    }

    @_lifetime(self: copy self)
    mutating func array(_ count: Int) throws(LinkError) -> [UInt8] {
        guard rest >= count else { throw Self.short }
        defer { position += count }
        return [UInt8](copying: bytes.extracting(position..<position + count))
    }

    @_lifetime(self: copy self)
    mutating func shortText() throws(LinkError) -> String {
        let count = Int(try integer(UInt8.self))
        guard let text = String(validating: try array(count), as: UTF8.self) else {
            throw LinkError(.protocolViolation, "a text that is not UTF-8")
        }
        return text
    }

    @_lifetime(self: copy self)
    mutating func value<Value: RawRepresentable>(_ type: Value.Type) throws(LinkError) -> Value
    where Value.RawValue == UInt8 {
        let raw = try integer(UInt8.self)
        guard let value = Value(rawValue: raw) else {
            throw LinkError(.protocolViolation, "\(raw) as a \(Value.self)")
        }
        return value
    }

    func end() throws(LinkError) {
        guard rest == 0 else { throw LinkError(.protocolViolation, "\(rest) bytes after the end of a frame's body") }
    }

    static var short: LinkError { LinkError(.protocolViolation, "a frame that ends before its body does") }
}
