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
        var bad: UInt64 = 0
        let high =
            Self.value(Self.word(text, 0, 4), &bad) << 32 | Self.value(Self.word(text, 9, 14), &bad)
        let low = Self.value(Self.word(text, 19, 24), &bad) << 32 | Self.value(Self.word(text, 28, 32), &bad)
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

    // Eight digits at a time, in the bytes of one word, the first in the highest.

    /// A byte in all eight places.
    @inlinable @inline(__always)
    static func all(_ byte: UInt64) -> UInt64 { byte &* 0x0101_0101_0101_0101 }

    /// Two runs of four characters.
    @inlinable @inline(__always)
    static func word(_ text: Span<UInt8>, _ first: Int, _ second: Int) -> UInt64 {
        UInt64(text[first]) << 56 | UInt64(text[first + 1]) << 48 | UInt64(text[first + 2]) << 40
            | UInt64(text[first + 3]) << 32 | UInt64(text[second]) << 24 | UInt64(text[second + 1]) << 16
            | UInt64(text[second + 2]) << 8 | UInt64(text[second + 3])
    }

    /// The number that eight digits write. A character that is none sets bits of `bad`.
    @inlinable @inline(__always)
    static func value(_ text: UInt64, _ bad: inout UInt64) -> UInt64 {
        // `0`…`9` are 0x30…0x39, `a`…`f` are 0x61…0x66: bit 6 tells them apart.
        let letters = (text >> 6) & all(1)
        // Without the high half that each should have, what is left is 0…9 or 1…6, or the character was none.
        let rest = text ^ (all(0x30) &+ 0x30 &* letters)
        bad |= (text | ((rest & all(0x7f)) &+ all(0x76) &+ 3 &* letters)) & all(0x80)
        bad |= ~((rest | all(0x80)) &- all(1)) & (letters << 7)
        var value = (text & all(0x0f)) &+ 9 &* letters
        value = (value >> 4 | value) & 0x00ff_00ff_00ff_00ff
        value = (value >> 8 | value) & 0x0000_ffff_0000_ffff
        return (value >> 16 | value) & 0xffff_ffff
    }

    /// The eight digits of a number.
    @inlinable @inline(__always)
    static func text(_ number: UInt64) -> UInt64 {
        var value = number
        value = (value << 16 | value) & 0x0000_ffff_0000_ffff
        value = (value << 8 | value) & 0x00ff_00ff_00ff_00ff
        value = (value << 4 | value) & all(0x0f)
        let letters = ((value &+ all(6)) >> 4) & all(1)
        return value &+ all(0x30) &+ 0x27 &* letters
    }

    /// Appends the 36 characters.
    @inlinable
    public func appendText(to bytes: inout [UInt8]) {
        var text = InlineArray<36, UInt8>(repeating: 0x2d)
        write(to: &text, at: 0)
        bytes.append(text.span)
    }

    /// Appends a JSON string of the characters behind a comma, as in a list.
    @inlinable
    public func appendListed(to bytes: inout [UInt8]) {
        var text = InlineArray<39, UInt8>(repeating: 0x2d)
        text[0] = 0x2c
        text[1] = 0x22
        write(to: &text, at: 2)
        text[38] = 0x22
        bytes.append(text.span)
    }

    /// Writes the digits; the hyphens are there. In a place of fixed size, so that the compiler sees that no index is out of
    /// it, and makes a few stores of the whole: written one by one into an array they were two fifths of the join's time.
    @inlinable @inline(__always)
    func write<let count: Int>(to text: inout InlineArray<count, UInt8>, at start: Int) {
        let words = (
            Self.text(high >> 32), Self.text(high & 0xffff_ffff), Self.text(low >> 32), Self.text(low & 0xffff_ffff)
        )
        Self.write(words.0, 0, to: &text, at: start)
        Self.write(words.0, 4, to: &text, at: start &+ 4)
        Self.write(words.1, 0, to: &text, at: start &+ 9)
        Self.write(words.1, 4, to: &text, at: start &+ 14)
        Self.write(words.2, 0, to: &text, at: start &+ 19)
        Self.write(words.2, 4, to: &text, at: start &+ 24)
        Self.write(words.3, 0, to: &text, at: start &+ 28)
        Self.write(words.3, 4, to: &text, at: start &+ 32)
    }

    /// Four of a word's characters.
    @inlinable @inline(__always)
    static func write<let count: Int>(
        _ word: UInt64, _ first: Int, to text: inout InlineArray<count, UInt8>, at start: Int
    ) {
        let four = UInt32(truncatingIfNeeded: word >> UInt64(32 &- first &* 8))
        text[start] = UInt8(truncatingIfNeeded: four >> 24)
        text[start &+ 1] = UInt8(truncatingIfNeeded: four >> 16)
        text[start &+ 2] = UInt8(truncatingIfNeeded: four >> 8)
        text[start &+ 3] = UInt8(truncatingIfNeeded: four)
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
