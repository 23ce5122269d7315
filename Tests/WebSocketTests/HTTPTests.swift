import Testing
import WebSocket

/// What a parser makes of some bytes: requests, and the status that ends the connection.
private struct Parsed: Equatable {
    var requests: [HTTPRequest] = []
    var status: Int?
    var rest = 0
}

private func parse(_ text: String, limits: HTTPLimits = HTTPLimits()) throws -> Parsed {
    try parse(Array(text.utf8), limits: limits)
}

/// The same for whole and byte by byte, or the test fails here.
private func parse(_ bytes: [UInt8], limits: HTTPLimits = HTTPLimits()) throws -> Parsed {
    func run(_ size: Int) -> Parsed {
        var parsed = Parsed()
        var parser = HTTPParser(limits: limits)
        for start in stride(from: 0, to: bytes.count, by: size) {
            let piece = Array(bytes[start..<min(start + size, bytes.count)])
            var offset = 0
            do {
                while let request = try parser.next(piece.span, &offset) { parsed.requests.append(request) }
            } catch {
                parsed.status = error.status
                return parsed
            }
            parsed.rest = piece.count - offset
        }
        return parsed
    }
    let whole = run(max(bytes.count, 1))
    let cut = run(1)
    try #require(whole == cut)
    return whole
}

@Suite struct HTTPTests {
    @Test func `a request's parts are found`() throws {
        let parsed = try parse(
            "GET /v1/chats/a%20b?limit=5&before=x%2Fy HTTP/1.1\r\nHost: h\r\nX-A:  one \t\r\nx-a: two\r\n\r\n")
        let request = try #require(parsed.requests.first)
        #expect(parsed.requests.count == 1)
        #expect(request.method == "GET")
        #expect(request.path == "/v1/chats/a%20b")
        #expect(request.segments == ["v1", "chats", "a b"])
        #expect(request.query("limit") == "5")
        #expect(request.query("before") == "x/y")
        #expect(request.query("none") == nil)
        #expect(request.fields["x-a"] == "one")
        #expect(request.fields.all("x-a") == ["one", "two"])
        #expect(request.keepsAlive)
    }

    @Test func `requests may follow one another without waiting`() throws {
        let one = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
        let two =
            "POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\nT: v\r\n\r\n"
        let parsed = try parse(one + two + "\r\n" + one)
        #expect(parsed.requests.map(\.target) == ["/a", "/b", "/a"])
        #expect(parsed.requests.map { String(decoding: $0.body, as: UTF8.self) } == ["hello", "Wikipedia", "hello"])
        #expect(parsed.rest == 0 && parsed.status == nil)
    }

    @Test func `HTTP 1.0 closes unless it asks not to`() throws {
        #expect(try parse("GET / HTTP/1.0\r\n\r\n").requests.first?.keepsAlive == false)
        #expect(try parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").requests.first?.keepsAlive == true)
        #expect(
            try parse("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n").requests.first?.keepsAlive == false)
    }

    @Test func `a body is asked for only when the client waits`() throws {
        var parser = HTTPParser()
        let head = Array("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n".utf8)
        var offset = 0
        let nothing = try parser.next(head.span, &offset)
        #expect(nothing == nil)
        let due = [parser.takeContinueDue(), parser.takeContinueDue()]
        #expect(due == [true, false])
        offset = 0
        let rest = Array("hi".utf8)
        let request = try parser.next(rest.span, &offset)
        #expect(request?.body == rest)
        #expect(parser.isIdle)
    }

    /// Shapes by which requests are smuggled or servers confused, and what each gets.
    static let hostile: [(String, Int)] = [
        // Two lengths
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        // Transfer codings
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\u{b}chunked\r\n\r\n0\r\n\r\n", 400),
        // Chunks
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;\nx\r\nhello\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n\r\n", 400),
        // Lines
        ("GET / HTTP/1.1\nHost: h\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tfolded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nNo colon\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\n: empty\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nX\u{0}: y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: \u{0}\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: \u{7f}\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /\r\nHost: h\r\n\r\n", 400),
        ("G(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /#x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        // Versions and hosts
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505),
        ("GET / http/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nExpect: magic\r\n\r\n", 417),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        // Another protocol altogether
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n", 400),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
    ]

    @Test(arguments: hostile) func `a hostile request is refused`(text: String, status: Int) throws {
        let parsed = try parse(text)
        #expect(parsed.status == status)
        #expect(parsed.requests == [])
    }

    @Test func `every limit has its status`() throws {
        var limits = HTTPLimits()
        limits.headBytesMax = 300
        limits.targetBytesMax = 50
        limits.bodyBytesMax = 10
        let long = String(repeating: "x", count: 60)
        #expect(try parse("GET /\(long) HTTP/1.1\r\nHost: h\r\n\r\n", limits: limits).status == 414)
        #expect(
            try parse("GET / HTTP/1.1\r\nHost: h\r\n" + String(repeating: "A: \(long)\r\n", count: 6), limits: limits)
                .status == 431)
        #expect(try parse("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n", limits: limits).status == 413)
        let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsixsix\r\n"
        #expect(try parse(chunked + "5\r\n", limits: limits).status == 413)
        #expect(try parse(chunked + "4\r\nfour\r\n0\r\n\r\n", limits: limits).requests.first?.body.count == 10)
        let many = "GET / HTTP/1.1\r\nHost: h\r\n" + (0..<64).map { "a\($0): b\r\n" }.joined() + "\r\n"
        #expect(try parse(many).status == 431)
        let framing =
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;" + String(repeating: "x", count: 5000)
        #expect(try parse(framing).status == 400)
    }

    @Test(arguments: ["/a/%", "/a/%2", "/a/%zz", "/a/%2fb", "/a/%00", "/a/%ff"])
    func `a path that hides something has no segments`(path: String) throws {
        let request = try #require(try parse("GET \(path) HTTP/1.1\r\nHost: h\r\n\r\n").requests.first)
        #expect(request.segments == nil)
    }

    @Test func `a response tells its length, and a HEAD gets no body`() {
        let response = HTTPResponse(status: 200, type: "text/plain", body: Array("hi".utf8))
        #expect(
            response.encode(keepsAlive: true)
                == Array("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi".utf8))
        #expect(
            response.encode(keepsAlive: false, isHead: true)
                == Array(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\n".utf8
                ))
    }

    @Test func `a reply is read by length, by chunks and to the end`() throws {
        var parser = HTTPReplyParser()
        let bytes = Array(
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
                + "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\nunto the end").utf8)
        var offset = 0
        let first = try parser.next(bytes.span, &offset)
        let second = try parser.next(bytes.span, &offset)
        #expect(first?.status == 200 && first?.body == Array("hi".utf8))
        #expect(second?.status == 204)
        let third = try parser.next(bytes.span, &offset)
        #expect(third == nil)
        let last = parser.end()
        #expect(last?.status == 404 && last?.body == Array("unto the end".utf8))
    }
}
