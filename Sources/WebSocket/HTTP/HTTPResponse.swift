/// What is answered to a request.
public struct HTTPResponse: Sendable, Equatable {
    public var status: Int
    public var fields: [Field]
    public var body: [UInt8]

    public struct Field: Sendable, Equatable {
        public let name: String
        public let value: String

        /// The value must be ours or checked: a line break in it would start another field.
        public init(_ name: String, _ value: String) {
            precondition(!value.utf8.contains { $0 == 0x0d || $0 == 0x0a || $0 == 0 }, "a line break in a field")
            self.name = name
            self.value = value
        }
    }

    public init(status: Int, type: String? = nil, fields: [Field] = [], body: [UInt8] = []) {
        self.status = status
        self.fields = (type.map { [Field("Content-Type", $0)] } ?? []) + fields
        self.body = body
    }

    /// - Parameters:
    ///   - keepsAlive: whether another request may follow on the connection.
    ///   - isHead: answers a HEAD: the length is told, the body is not sent.
    public func encode(keepsAlive: Bool, isHead: Bool = false) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(160 + (isHead ? 0 : body.count))
        output += "HTTP/1.1 \(status) \(Self.reason(status))\r\n".utf8
        for field in fields { output += "\(field.name): \(field.value)\r\n".utf8 }
        let hasBody = status >= 200 && status != 204 && status != 304
        if hasBody { output += "Content-Length: \(body.count)\r\n".utf8 }
        if status >= 200, !keepsAlive { output += "Connection: close\r\n".utf8 }
        output += "\r\n".utf8
        if hasBody, !isHead { output += body }
        return output
    }

    public static let `continue`: [UInt8] = Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)

    static func reason(_ status: Int) -> String {
        switch status {
        case 100: "Continue"
        case 101: "Switching Protocols"
        case 200: "OK"
        case 201: "Created"
        case 204: "No Content"
        case 304: "Not Modified"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 413: "Content Too Large"
        case 414: "URI Too Long"
        case 415: "Unsupported Media Type"
        case 417: "Expectation Failed"
        case 422: "Unprocessable Content"
        case 426: "Upgrade Required"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 500: "Internal Server Error"
        case 501: "Not Implemented"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        case 505: "HTTP Version Not Supported"
        default: "Status"
        }
    }
}
