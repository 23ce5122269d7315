/// UTF-8 checked as it arrives, in pieces that may cut a character anywhere, so that a bad byte ends a message when it comes
/// and not when the message does (RFC 6455, 8.1). No overlong form, no surrogate, nothing above U+10FFFF.
public struct UTF8Validator: Sendable, Equatable {
    /// Continuation bytes still to come, and the range that the next must be in.
    private var left: UInt8 = 0
    private var low: UInt8 = 0x80
    private var high: UInt8 = 0xbf

    public init() {}

    /// Whether what came so far ends at a character's end.
    public var isComplete: Bool { left == 0 }

    /// Whether the bytes may go on what came before.
    public mutating func accept(_ bytes: Span<UInt8>) -> Bool {
        for index in bytes.indices {
            let byte = bytes[index]
            if left == 0, byte < 0x80 { continue }
            guard step(byte) else { return false }
        }
        return true
    }

    private mutating func step(_ byte: UInt8) -> Bool {
        if left > 0 {
            guard byte >= low, byte <= high else { return false }
            left -= 1
            (low, high) = (0x80, 0xbf)
            return true
        }
        switch byte {
        case 0xc2...0xdf: left = 1
        case 0xe0: (left, low) = (2, 0xa0)
        case 0xed: (left, high) = (2, 0x9f)
        case 0xe1...0xef: left = 2
        case 0xf0: (left, low) = (3, 0x90)
        case 0xf1...0xf3: left = 3
        case 0xf4: (left, high) = (3, 0x8f)
        default: return false
        }
        return true
    }
}
