internal import PostgresClient

/// Takes fields off the front of borrowed bytes, and throws rather than read past their end.
struct ByteReader: ~Escapable {
    let bytes: Span<UInt8>
    private(set) var offset = 0

    @_lifetime(copy bytes)
    init(_ bytes: Span<UInt8>, at offset: Int = 0) {
        self.bytes = bytes
        self.offset = offset
    }

    var isAtEnd: Bool { offset == bytes.count }

    @_lifetime(self: copy self)
    @inline(__always)
    mutating func byte() throws(PgOutputError) -> UInt8 {
        guard offset < bytes.count else { throw PgOutputError(.endOfMessage, at: offset) }
        defer { offset &+= 1 }
        return bytes[offset]
    }

    @_lifetime(self: copy self)
    @inline(__always)
    mutating func uint16() throws(PgOutputError) -> UInt16 {
        guard bytes.count &- offset >= 2 else { throw PgOutputError(.endOfMessage, at: offset) }
        defer { offset &+= 2 }
        return UInt16(bytes[offset]) << 8 | UInt16(bytes[offset &+ 1])
    }

    @_lifetime(self: copy self)
    @inline(__always)
    mutating func uint32() throws(PgOutputError) -> UInt32 {
        guard bytes.count &- offset >= 4 else { throw PgOutputError(.endOfMessage, at: offset) }
        defer { offset &+= 4 }
        return UInt32(bytes[offset]) << 24 | UInt32(bytes[offset &+ 1]) << 16
            | UInt32(bytes[offset &+ 2]) << 8 | UInt32(bytes[offset &+ 3])
    }

    @_lifetime(self: copy self)
    mutating func uint64() throws(PgOutputError) -> UInt64 {
        let high = try uint32()
        return UInt64(high) << 32 | UInt64(try uint32())
    }

    @_lifetime(self: copy self)
    mutating func lsn() throws(PgOutputError) -> LSN { LSN(try uint64()) }

    @_lifetime(self: copy self)
    mutating func timeUs() throws(PgOutputError) -> Int64 { Int64(bitPattern: try uint64()) }

    /// A length: not negative, and no more than what is left.
    @_lifetime(self: copy self)
    @inline(__always)
    mutating func take(_ count: UInt32) throws(PgOutputError) -> Range<Int> {
        guard count <= 0x7fff_ffff else { throw PgOutputError(.badNumber, at: offset &- 4) }
        guard bytes.count &- offset >= Int(count) else { throw PgOutputError(.endOfMessage, at: offset) }
        let start = offset
        offset &+= Int(count)
        return start..<offset
    }

    /// Text up to a zero byte.
    @_lifetime(self: copy self)
    mutating func string() throws(PgOutputError) -> String {
        let start = offset
        var text: [UInt8] = []
        while true {
            let byte = try byte()
            if byte == 0 { break }
            text.append(byte)
        }
        guard let string = String(validating: text, as: UTF8.self) else { throw PgOutputError(.badText, at: start) }
        return string
    }

    @_lifetime(self: copy self)
    mutating func bool() throws(PgOutputError) -> Bool {
        switch try byte() {
        case 0: return false
        case 1: return true
        default: throw PgOutputError(.badNumber, at: offset &- 1)
        }
    }
}
