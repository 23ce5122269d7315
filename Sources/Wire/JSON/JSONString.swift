/// A string that a `JSONReader` has passed and found well-formed: where its content stands, without the quotes.
@frozen
public struct JSONString: Equatable, Sendable {
    public let range: Range<Int>
    public let hasEscapes: Bool

    @inlinable
    init(range: Range<Int>, hasEscapes: Bool) {
        self.range = range
        self.hasEscapes = hasEscapes
    }

    /// With its quotes: the raw JSON value, ready to be spliced.
    @inlinable
    public var quotedRange: Range<Int> { range.lowerBound - 1..<range.upperBound + 1 }

    /// Whether the content is this text. Texts to compare with must need no escaping.
    @inlinable
    public func equals(_ text: String, in bytes: Span<UInt8>) -> Bool {
        hasEscapes ? self.text(in: bytes) == text : bytes.extracting(range).elementsEqual(text)
    }

    public func text(in bytes: Span<UInt8>) -> String {
        guard hasEscapes else { return String(showing: bytes.extracting(range)) }
        var decoded: [UInt8] = []
        appendDecoded(from: bytes, to: &decoded)
        return String(decoding: decoded, as: UTF8.self)
    }

    /// Appends the content with its escapes resolved, as UTF-8.
    public func appendDecoded(from bytes: Span<UInt8>, to output: inout [UInt8]) {
        guard hasEscapes else { return output.append(bytes.extracting(range)) }
        var index = range.lowerBound
        while index < range.upperBound {
            guard bytes[index] == UInt8(ascii: "\\") else {
                output.append(bytes[index])
                index += 1
                continue
            }
            switch bytes[index + 1] {
            case UInt8(ascii: "b"): output.append(0x08)
            case UInt8(ascii: "f"): output.append(0x0c)
            case UInt8(ascii: "n"): output.append(0x0a)
            case UInt8(ascii: "r"): output.append(0x0d)
            case UInt8(ascii: "t"): output.append(0x09)
            case UInt8(ascii: "u"):
                index += Self.appendUnicodeEscape(bytes, at: index + 2, to: &output)
            case let plain: output.append(plain)
            }
            index += 2
        }
    }

    /// Counts Unicode scalars as they would be after decoding: what a limit on characters means.
    public func scalarCount(in bytes: Span<UInt8>) -> Int {
        var count = 0
        var index = range.lowerBound
        while index < range.upperBound {
            let byte = bytes[index]
            if byte == UInt8(ascii: "\\") {
                if bytes[index + 1] == UInt8(ascii: "u"), let unit = Self.hexUnit(bytes, at: index + 2) {
                    index += unit & 0xf800 == 0xd800 ? 12 : 6
                } else {
                    index += 2
                }
                count += 1
            } else {
                if byte & 0xc0 != 0x80 { count += 1 }
                index += 1
            }
        }
        return count
    }

    /// Returns how many bytes of hexadecimal digits (and second half of a pair) were used.
    private static func appendUnicodeEscape(_ bytes: Span<UInt8>, at start: Int, to output: inout [UInt8]) -> Int {
        var value = hexUnit(bytes, at: start) ?? 0xfffd
        var used = 4
        if value & 0xfc00 == 0xd800, let low = hexUnit(bytes, at: start + 6) {
            value = 0x10000 + (value & 0x3ff) << 10 + low & 0x3ff
            used = 10
        }
        output.append(
            contentsOf: Unicode.UTF8.encode(Unicode.Scalar(value) ?? "\u{fffd}")
                ?? Unicode.UTF8.encodedReplacementCharacter)
        return used
    }

    static func hexUnit(_ bytes: Span<UInt8>, at start: Int) -> UInt32? {
        guard start >= 0, start + 4 <= bytes.count else { return nil }
        var value: UInt32 = 0
        for index in start..<start + 4 {
            switch bytes[index] {
            case let digit where digit &- 0x30 < 10: value = value << 4 | UInt32(digit &- 0x30)
            case let letter where (letter | 0x20) &- 0x61 < 6: value = value << 4 | UInt32((letter | 0x20) &- 0x57)
            default: return nil
            }
        }
        return value
    }
}
