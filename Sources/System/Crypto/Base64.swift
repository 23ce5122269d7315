/// RFC 4648, in pure Swift.
public enum Base64 {
    public enum Alphabet: Sendable {
        /// `+` and `/`, padded with `=`.
        case standard
        /// `-` and `_`, without padding: tokens and keys.
        case url
    }

    public static func encode(_ bytes: Span<UInt8>, _ alphabet: Alphabet = .standard) -> String {
        let letters = alphabet == .standard ? standardLetters : urlLetters
        var output: [UInt8] = []
        output.reserveCapacity((bytes.count + 2) / 3 * 4)
        var index = 0
        while index < bytes.count {
            let left = bytes.count - index
            let word =
                UInt32(bytes[index]) << 16 | (left > 1 ? UInt32(bytes[index + 1]) << 8 : 0)
                | (left > 2 ? UInt32(bytes[index + 2]) : 0)
            output.append(letters[Int(word >> 18)])
            output.append(letters[Int(word >> 12 & 63)])
            if left > 1 { output.append(letters[Int(word >> 6 & 63)]) }
            if left > 2 { output.append(letters[Int(word & 63)]) }
            index += 3
        }
        if alphabet == .standard { while output.count % 4 != 0 { output.append(UInt8(ascii: "=")) } }
        return String(decoding: output, as: UTF8.self)
    }

    public static func encode(_ bytes: [UInt8], _ alphabet: Alphabet = .standard) -> String {
        encode(bytes.span, alphabet)
    }

    /// The bytes, or `nil` for anything but the one encoding of some bytes: no other letters, the exact padding
    /// (optional in the url alphabet), and no bits set that encode nothing.
    public static func decode(_ text: Span<UInt8>, _ alphabet: Alphabet = .standard) -> [UInt8]? {
        var count = text.count
        var padding = 0
        while count > 0, padding < 2, text[count - 1] == UInt8(ascii: "=") {
            count -= 1
            padding += 1
        }
        let rest = count % 4
        guard rest != 1 else { return nil }
        if padding > 0 || alphabet == .standard {
            guard (count + padding) % 4 == 0 else { return nil }
        }
        let values = alphabet == .standard ? standardValues : urlValues
        var output: [UInt8] = []
        output.reserveCapacity(count / 4 * 3 + 2)
        var word: UInt32 = 0
        for index in 0..<count {
            let value = values[Int(text[index])]
            guard value < 64 else { return nil }
            word = word << 6 | UInt32(value)
            if index % 4 == 3 {
                output.append(UInt8(truncatingIfNeeded: word >> 16))
                output.append(UInt8(truncatingIfNeeded: word >> 8))
                output.append(UInt8(truncatingIfNeeded: word))
            }
        }
        if rest == 2 {
            guard word & 0xf == 0 else { return nil }
            output.append(UInt8(truncatingIfNeeded: word >> 4))
        } else if rest == 3 {
            guard word & 0x3 == 0 else { return nil }
            output.append(UInt8(truncatingIfNeeded: word >> 10))
            output.append(UInt8(truncatingIfNeeded: word >> 2))
        }
        return output
    }

    public static func decode(_ text: String, _ alphabet: Alphabet = .standard) -> [UInt8]? {
        decode(Array(text.utf8).span, alphabet)
    }

    private static let standardLetters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    private static let urlLetters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)
    private static let standardValues = values(of: standardLetters)
    private static let urlValues = values(of: urlLetters)

    private static func values(of letters: [UInt8]) -> [UInt8] {
        var values = [UInt8](repeating: 255, count: 256)
        for (index, letter) in letters.enumerated() { values[Int(letter)] = UInt8(index) }
        return values
    }
}
