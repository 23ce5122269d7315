/// Why bytes are not the JSON that was expected, and where.
public struct JSONError: Error, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable {
        case endOfInput = "the text ends too early"
        case unexpectedByte = "unexpected character"
        case badEscape = "bad escape in a string"
        case controlCharacter = "raw control character in a string"
        case invalidUTF8 = "invalid UTF-8"
        case badNumber = "malformed number"
        case numberOutOfRange = "number out of range"
        case wrongType = "a value of another type was expected"
        case badID = "not a lower-case UUID"
        case tooDeep = "nested too deeply"
        case trailingBytes = "something follows the value"
        case missingField = "a required field is missing"
        case badValue = "value not allowed here"
    }

    public let code: Code
    /// Bytes from the start of the text.
    public let offset: Int

    @inlinable
    public init(_ code: Code, at offset: Int) {
        self.code = code
        self.offset = offset
    }

    public var description: String { "\(code.rawValue) at byte \(offset)" }
}
