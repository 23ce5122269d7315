/// What stops a chat server from starting or going on.
public struct IngestError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        case configuration
        case listen
    }

    public let code: Code
    public let description: String

    public init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}
