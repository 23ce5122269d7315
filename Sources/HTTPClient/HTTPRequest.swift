/// One request. Bodies are whole: what Fanout sends is small.
public struct HTTPRequest: Sendable {
    public var method: String
    public var url: String
    public var headers: [(name: String, value: String)]
    public var body: [UInt8]

    public init(
        _ method: String = "GET", _ url: String, headers: [(name: String, value: String)] = [], body: [UInt8] = []
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
    }
}

public struct HTTPResponse: Sendable {
    public var status: Int
    public var body: [UInt8] = []
    /// The header lines as they came: of most answers nobody wants to know more than the status.
    var head: [UInt8] = []

    /// The last header of this name, which is given in lower case.
    public func header(_ name: String) -> String? {
        var found: String?
        for line in head.split(separator: UInt8(ascii: "\n")) {
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")),
                String(decoding: line[..<colon], as: UTF8.self).lowercased() == name
            else { continue }
            let value = line[(colon + 1)...].drop { $0 == UInt8(ascii: " ") }.prefix { $0 != UInt8(ascii: "\r") }
            found = String(decoding: value, as: UTF8.self)
        }
        return found
    }

    /// Seconds of a `Retry-After` header in its numeric form; the date form is answered with `nil`.
    public var retryAfterSeconds: Int? { header("retry-after").flatMap { Int($0) }.map { max(0, $0) } }
}

/// No answer was had, or none that could be used.
public struct HTTPError: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        /// The URL or a header is not one.
        case badRequest
        case resolve, connect, tls, timeout
        /// The address is not one of the whole internet (`refusesPrivateAddresses`).
        case forbidden
        /// The connection broke, or what came is not HTTP.
        case protocolError
        /// The answer is larger than the limit.
        case tooLarge
        case cancelled
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
