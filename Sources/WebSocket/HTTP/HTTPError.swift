/// Why a request (or, for a client, a response) is refused. `status` is what the peer is told before the connection is
/// closed: after a message that could not be understood, nobody knows where the next one begins.
public struct HTTPError: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Code: String, Sendable {
        case badStartLine = "malformed start line"
        case badHeader = "malformed header"
        case ambiguousLength = "the body's length is not clear"
        case badChunk = "malformed chunk"
        case headTooLarge = "the header is too large"
        case targetTooLong = "the target is too long"
        case bodyTooLarge = "the body is too large"
        case badHost = "exactly one Host is required"
        case unsupportedVersion = "only HTTP/1.0 and 1.1 are spoken"
        case unsupportedCoding = "this transfer coding is not supported"
        case unsupportedExpectation = "this expectation cannot be met"
        case notAnUpgrade = "a WebSocket handshake was expected"
        case unsupportedWebSocketVersion = "only WebSocket version 13 is spoken"
        case badHandshake = "malformed WebSocket handshake"
    }

    public let code: Code

    public init(_ code: Code) { self.code = code }

    public var status: Int {
        switch code {
        case .badStartLine, .badHeader, .ambiguousLength, .badChunk, .badHost, .badHandshake: 400
        case .bodyTooLarge: 413
        case .targetTooLong: 414
        case .unsupportedExpectation: 417
        case .notAnUpgrade, .unsupportedWebSocketVersion: 426
        case .headTooLarge: 431
        case .unsupportedCoding: 501
        case .unsupportedVersion: 505
        }
    }

    public var description: String { code.rawValue }
}
