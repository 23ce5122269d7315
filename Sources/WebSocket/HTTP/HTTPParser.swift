import Wire

/// How much of a message is taken before it is refused.
public struct HTTPLimits: Sendable {
    /// Start line and fields together: also what one connection may make us hold before it has shown who it is.
    public var headBytesMax = 8 << 10
    public var targetBytesMax = 4 << 10
    public var bodyBytesMax = 256 << 10

    public init() {}
}

/// HTTP/1.1 requests out of bytes, in pieces of any size. Holds nothing between requests.
///
///     var offset = 0
///     while let request = try parser.next(bytes, &offset) { … }
///
/// After a thrown error the connection is to be answered with the error's status and closed. After a request that
/// upgrades, what lies beyond `offset` is the other protocol's.
public struct HTTPParser: Sendable {
    private let limits: HTTPLimits
    private var head = HTTPHeadBuffer()
    private var pending: HTTPRequest?
    private var body: HTTPBody?

    /// The client waits to be told to send its body (`Expect: 100-continue`); reading the flag lowers it.
    private var isContinueDue = false

    public init(limits: HTTPLimits = HTTPLimits()) { self.limits = limits }

    /// Nothing of a next request has arrived.
    public var isIdle: Bool { pending == nil && head.isEmpty }

    public mutating func takeContinueDue() -> Bool {
        defer { isContinueDue = false }
        return isContinueDue
    }

    /// The next complete request from `offset` on, or `nil` when more bytes are needed.
    public mutating func next(_ input: Span<UInt8>, _ offset: inout Int) throws(HTTPError) -> HTTPRequest? {
        if pending == nil {
            guard let bytes = try head.receive(input, &offset, max: limits.headBytesMax) else { return nil }
            var parser = HTTPHeadParser(bytes)
            let request = try parser.request(targetMax: limits.targetBytesMax)
            let hosts = request.fields.count(of: "host")
            guard hosts == 1 || request.minorVersion == 0 && hosts == 0 else { throw HTTPError(.badHost) }
            let length = try HTTPBody.length(ofRequest: request.fields, minorVersion: request.minorVersion)
            body = try HTTPBody(length, max: limits.bodyBytesMax)
            if let expectation = request.fields["expect"] {
                guard expectation.lowercased() == "100-continue" else { throw HTTPError(.unsupportedExpectation) }
                isContinueDue = length != .none && request.minorVersion == 1
            }
            pending = request
        }
        try body?.receive(input, &offset)
        guard body?.isComplete ?? true, var request = pending else { return nil }
        request.body = body?.bytes ?? []
        pending = nil
        body = nil
        isContinueDue = false
        return request
    }
}

/// HTTP/1.1 responses out of bytes: the client's side.
public struct HTTPReplyParser: Sendable {
    private let limits: HTTPLimits
    private var head = HTTPHeadBuffer()
    private var pending: HTTPReply?
    private var body: HTTPBody?

    public init(limits: HTTPLimits = HTTPLimits()) { self.limits = limits }

    /// - Parameter toHead: the request was a HEAD, so no body follows whatever the fields say.
    public mutating func next(
        _ input: Span<UInt8>, _ offset: inout Int, toHead: Bool = false
    ) throws(HTTPError) -> HTTPReply? {
        while true {
            if pending == nil {
                guard let bytes = try head.receive(input, &offset, max: limits.headBytesMax) else { return nil }
                var parser = HTTPHeadParser(bytes)
                let reply = try parser.reply()
                body = try HTTPBody(HTTPBody.length(ofReply: reply, toHead: toHead), max: limits.bodyBytesMax)
                pending = reply
            }
            try body?.receive(input, &offset)
            guard body?.isComplete ?? true else { return nil }
            guard let reply = take() else { return nil }
            // 100 Continue and its like precede the answer; 101 is the answer.
            if reply.status < 200, reply.status != 101 { continue }
            return reply
        }
    }

    /// The peer has ended its side: completes a response whose body nothing else ends.
    public mutating func end() -> HTTPReply? {
        guard body?.end() ?? false else { return nil }
        return take()
    }

    private mutating func take() -> HTTPReply? {
        guard var reply = pending else { return nil }
        reply.body = body?.bytes ?? []
        pending = nil
        body = nil
        return reply
    }
}

/// Collects a head until its empty line. One CRLF before a start line is passed over, as RFC 9112 (2.2) asks.
struct HTTPHeadBuffer: Sendable {
    private var bytes: [UInt8] = []
    /// How much of CR LF CR LF the last bytes were.
    private var matched = 0
    private var hasSkippedLine = false

    var isEmpty: Bool { bytes.isEmpty }

    mutating func receive(_ input: Span<UInt8>, _ offset: inout Int, max: Int) throws(HTTPError) -> [UInt8]? {
        let start = offset
        var index = offset
        while index < input.count {
            let byte = input[index]
            index += 1
            // A CR and an LF belong together; one alone, which some readers take for a line's end, is refused at once.
            guard (byte == 0x0a) == (matched & 1 == 1) else { throw HTTPError(.badHeader) }
            if byte == 0x0d {
                matched = matched == 2 ? 3 : 1
            } else if byte == 0x0a {
                matched += 1
                if matched == 4 || matched == 2 && bytes.count + index - start == 2 { break }
            } else {
                matched = 0
            }
            guard bytes.count + index - start <= max else { throw HTTPError(.headTooLarge) }
        }
        bytes.append(input.extracting(start..<index))
        offset = index
        if matched == 2, bytes.count == 2 {
            guard !hasSkippedLine else { throw HTTPError(.badStartLine) }
            hasSkippedLine = true
            bytes = []
            matched = 0
            return try receive(input, &offset, max: max)
        }
        guard matched == 4 else { return nil }
        var taken: [UInt8] = []
        swap(&taken, &bytes)
        taken.removeLast(2)
        (matched, hasSkippedLine) = (0, false)
        return taken
    }
}
