import Wire

/// A place in a user's delivery stream: everything up to and including `offset` of the user's partition has been seen.
///
/// The partition is a function of the user id and need not be told. `timestamp` is the one the log gave to the record
/// at `offset`; it serves twice. When the record is still in the hot window and bears another time, the topic has been
/// made anew and the offset means nothing; and when the window no longer reaches back so far, History starts there.
/// Zero is a time that is not known, as of a place before the first record.
@frozen
public struct Cursor: Hashable, Sendable {
    public var offset: Int64
    public var timestamp: Int64

    @inlinable
    public init(offset: Int64, timestamp: Int64) {
        self.offset = offset
        self.timestamp = timestamp
    }

    /// Before the first record.
    public static let start = Cursor(offset: -1, timestamp: 0)
}

extension Cursor: CustomStringConvertible {
    public var description: String { "\(offset)@\(timestamp)" }
}

/// The text form that devices keep: 20 characters of base64url over a version byte, 48 bits of time and 64 bits of
/// offset. Opaque to them; a cursor names a place in its owner's own stream, so forging one gains nothing.
extension Cursor {
    public static let textCount = 20
    static let version: UInt8 = 1

    @inlinable
    static func letter(_ value: UInt64) -> UInt8 {
        let value = UInt8(truncatingIfNeeded: value & 0x3f)
        return switch value {
        case 0..<26: value &+ 0x41
        case 26..<52: value &+ 0x47
        case 52..<62: value &- 4
        case 62: 0x2d
        default: 0x5f
        }
    }

    static func value(_ letter: UInt8) -> UInt64? {
        switch letter {
        case 0x41...0x5a: UInt64(letter - 0x41)
        case 0x61...0x7a: UInt64(letter - 0x47)
        case 0x30...0x39: UInt64(letter + 4)
        case 0x2d: 62
        case 0x5f: 63
        default: nil
        }
    }

    /// Appends the 20 characters.
    public func appendText(to bytes: inout [UInt8]) {
        // 15 bytes as two halves of 60 bits, ten letters each: version and time and the offset's top 4 bits, the rest.
        let offset = UInt64(bitPattern: self.offset)
        let time = UInt64(bitPattern: max(0, timestamp)) & 0xffff_ffff_ffff
        let high = UInt64(Self.version) << 52 | time << 4 | offset >> 60
        let low = offset & 0x0fff_ffff_ffff_ffff
        bytes.append(addingCapacity: Self.textCount) { output in
            for index in 0..<10 { output.append(Self.letter(high >> UInt64(54 - index * 6))) }
            for index in 0..<10 { output.append(Self.letter(low >> UInt64(54 - index * 6))) }
        }
    }

    public init?(text: Span<UInt8>) {
        guard text.count == Self.textCount else { return nil }
        var high: UInt64 = 0
        var low: UInt64 = 0
        for index in 0..<10 {
            guard let upper = Self.value(text[index]), let lower = Self.value(text[index + 10]) else { return nil }
            high = high << 6 | upper
            low = low << 6 | lower
        }
        guard high >> 52 == UInt64(Self.version) else { return nil }
        let offset = Int64(bitPattern: high << 60 | low)
        guard offset >= -1 else { return nil }
        self.init(offset: offset, timestamp: Int64(high >> 4 & 0xffff_ffff_ffff))
    }

    public init?(_ text: some StringProtocol) {
        let bytes = [UInt8](text.utf8)
        self.init(text: bytes.span)
    }

    public var text: String {
        var bytes: [UInt8] = []
        appendText(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }
}
