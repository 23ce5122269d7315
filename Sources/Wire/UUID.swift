/// A UUID as two machine words: hashed, compared and copied without touching memory.
///
/// Its only text form in Fanout is the lower-case one of 36 characters. Upper case is refused on the way in, because
/// the text is a Kafka key and a partition: two spellings of one chat would be two chats.
@frozen
public struct UUID: Hashable, Sendable, Comparable {
    public let high: UInt64
    public let low: UInt64

    public static let textCount = 36

    @inlinable
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Reads exactly 36 bytes of text; anything else is `nil`.
    @inlinable
    public init?(text: Span<UInt8>) {
        guard text.count == Self.textCount,
            text[8] == 0x2d, text[13] == 0x2d, text[18] == 0x2d, text[23] == 0x2d
        else { return nil }
        // Every digit is looked at before any is believed: a bad one sets bits above the low nibble.
        var bad: UInt8 = 0
        var high: UInt64 = 0
        var low: UInt64 = 0
        for index in 0..<8 { high = high << 4 | UInt64(Self.digit(text[index], &bad)) }
        for index in 9..<13 { high = high << 4 | UInt64(Self.digit(text[index], &bad)) }
        for index in 14..<18 { high = high << 4 | UInt64(Self.digit(text[index], &bad)) }
        for index in 19..<23 { low = low << 4 | UInt64(Self.digit(text[index], &bad)) }
        for index in 24..<36 { low = low << 4 | UInt64(Self.digit(text[index], &bad)) }
        guard bad == 0 else { return nil }
        self.init(high: high, low: low)
    }

    public init?(_ text: some StringProtocol) {
        let bytes = [UInt8](text.utf8)
        self.init(text: bytes.span)
    }

    /// The 16 bytes in network order, as Postgres sends a `uuid` in binary.
    public init?(binary: Span<UInt8>) {
        guard binary.count == 16 else { return nil }
        var high: UInt64 = 0
        var low: UInt64 = 0
        for index in 0..<8 { high = high << 8 | UInt64(binary[index]) }
        for index in 8..<16 { low = low << 8 | UInt64(binary[index]) }
        self.init(high: high, low: low)
    }

    /// A version 4 UUID of the given generator.
    public static func random(using generator: inout some RandomNumberGenerator) -> UUID {
        let high = (generator.next() as UInt64) & ~0xf000 | 0x4000
        let low = (generator.next() as UInt64) & ~(0b11 << 62) | 0b10 << 62
        return UUID(high: high, low: low)
    }

    public static func random() -> UUID {
        var generator = SystemRandomNumberGenerator()
        return random(using: &generator)
    }

    @inlinable
    public static func < (left: UUID, right: UUID) -> Bool {
        left.high == right.high ? left.low < right.low : left.high < right.high
    }

    @inlinable
    static func digit(_ character: UInt8, _ bad: inout UInt8) -> UInt8 {
        let number = character &- 0x30
        if number < 10 { return number }
        let letter = character &- 0x61
        if letter < 6 { return letter &+ 10 }
        bad = 1
        return 0
    }

    @inlinable
    static func text(_ nibble: UInt64) -> UInt8 {
        let value = UInt8(truncatingIfNeeded: nibble & 0xf)
        return value < 10 ? value &+ 0x30 : value &+ 0x57
    }

    /// Appends the 36 characters.
    @inlinable
    public func appendText(to bytes: inout [UInt8]) {
        bytes.append(addingCapacity: Self.textCount) { output in
            for index in 0..<16 {
                if index == 8 || index == 12 { output.append(0x2d) }
                output.append(Self.text(high >> UInt64(60 - index * 4)))
            }
            output.append(0x2d)
            for index in 0..<16 {
                if index == 4 { output.append(0x2d) }
                output.append(Self.text(low >> UInt64(60 - index * 4)))
            }
        }
    }

    public func appendBinary(to bytes: inout [UInt8]) {
        bytes.append(addingCapacity: 16) { output in
            for word in [high, low] {
                for index in 0..<8 {
                    output.append(UInt8(truncatingIfNeeded: word >> UInt64(56 - index * 8)))
                }
            }
        }
    }
}

extension UUID: CustomStringConvertible {
    public var description: String {
        var bytes: [UInt8] = []
        appendText(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// A UUID that says what it names, so that a user's id cannot be passed where a chat's is meant.
@frozen
public struct ID<Kind>: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let uuid: UUID

    @inlinable
    public init(_ uuid: UUID) { self.uuid = uuid }

    @inlinable
    public init?(text: Span<UInt8>) {
        guard let uuid = UUID(text: text) else { return nil }
        self.uuid = uuid
    }

    public init?(_ text: some StringProtocol) {
        guard let uuid = UUID(text) else { return nil }
        self.uuid = uuid
    }

    public static func random() -> ID { ID(UUID.random()) }

    public static func random(using generator: inout some RandomNumberGenerator) -> ID {
        ID(UUID.random(using: &generator))
    }

    @inlinable
    public static func < (left: ID, right: ID) -> Bool { left.uuid < right.uuid }

    public var description: String { uuid.description }
}

public enum UserKind {}
public enum ChatKind {}
public enum MessageKind {}
public enum DeviceKind {}

public typealias UserID = ID<UserKind>
public typealias ChatID = ID<ChatKind>
public typealias MessageID = ID<MessageKind>
public typealias DeviceID = ID<DeviceKind>
