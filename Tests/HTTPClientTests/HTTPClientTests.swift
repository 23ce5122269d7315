import HTTPClient
import Synchronization
import System
import TestSupport
import Testing
import Wire

/// A server of one connection at a time that answers every request with the same bytes, and keeps what it got.
private final class CannedServer: StreamDelegate {
    private var listener: Listener?
    private var streams: [System.Stream] = []
    private let answer: [UInt8]
    private let closes: Bool
    private(set) var connections = 0
    private(set) var received = ""

    init(on loop: EventLoop, _ answer: String, closes: Bool = false, tls: TLSContext? = nil) throws {
        self.answer = Array(answer.utf8)
        self.closes = closes
        listener = try Listener(on: loop, host: "127.0.0.1", port: 0) { [unowned self] socket in
            connections += 1
            if let stream = try? System.Stream(socket, on: loop, delegate: self, tls: tls) { streams.append(stream) }
        }
    }

    var port: Int { listener?.port ?? 0 }
    func url(_ scheme: String = "http") -> String { "\(scheme)://127.0.0.1:\(port)/path" }

    func stream(_ stream: System.Stream, received bytes: Span<UInt8>) {
        received += String(decoding: [UInt8](copying: bytes), as: UTF8.self)
        guard received.contains("\r\n\r\n"), !answer.isEmpty else { return }
        stream.write(answer)
        if closes { stream.closeAfterFlush() }
    }

    func streamClosed(_ stream: System.Stream, reason: CloseReason) {
        streams.removeAll { $0 === stream }
    }
}

@Suite struct HTTPClientTests {
    private let loop: EventLoop

    init() throws { loop = try EventLoop() }

    /// Runs the loop until all of these are answered.
    private func send(
        _ requests: [HTTPRequest], _ change: (inout HTTPClient.Options) -> Void = { _ in }, oneByOne: Bool = false
    ) throws -> [Result<HTTPResponse, HTTPError>] {
        var options = HTTPClient.Options()
        options.timeoutMs = 5000
        change(&options)
        let client = try HTTPClient(loop: loop, options: options)
        defer { client.close() }
        var results: [Result<HTTPResponse, HTTPError>] = []
        var left = requests
        func next() {
            guard !left.isEmpty else { return }
            client.send(left.removeFirst()) { result in
                results.append(result)
                if oneByOne { next() }
            }
            if !oneByOne { next() }
        }
        next()
        let isDone = eventually {
            loop.runOnce(timeoutMs: 5)
            return results.count == requests.count
        }
        #expect(isDone)
        return results
    }

    private func failure(_ result: Result<HTTPResponse, HTTPError>?) -> HTTPError.Code? {
        if case .failure(let error) = result { error.code } else { nil }
    }

    @Test func `requests follow each other on one connection`() throws {
        let server = try CannedServer(on: loop, "HTTP/1.1 200 OK\r\nX-Name: a: b\r\nContent-Length: 5\r\n\r\nhello")
        let request = HTTPRequest(
            "POST", server.url(), headers: [("X-Own", "value")], body: Array("some body".utf8))
        let results = try send([request, request, request], oneByOne: true)
        for result in results {
            let response = try result.get()
            #expect(response.status == 200 && response.body == Array("hello".utf8))
            #expect(response.header("x-name") == "a: b")
        }
        #expect(server.connections == 1)
        #expect(server.received.hasPrefix("POST /path HTTP/1.1\r\n") && server.received.hasSuffix("\r\n\r\nsome body"))
        #expect(server.received.contains("X-Own: value\r\n") && !server.received.contains("Expect:"))
    }

    @Test func `a redirect is an answer like any other, and nobody goes there`() throws {
        let other = try CannedServer(on: loop, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        let server = try CannedServer(
            on: loop, "HTTP/1.1 307 Go\r\nLocation: \(other.url())\r\nContent-Length: 0\r\n\r\n")
        #expect(try send([HTTPRequest("POST", server.url())]).first?.get().status == 307)
        #expect(other.connections == 0)
    }

    @Test(arguments: [
        ("\u{0}\u{1} not HTTP at all\r\n\r\n", HTTPError.Code.protocolError),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", .protocolError),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", .protocolError),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + String(repeating: "x", count: 2000), .tooLarge),
        (
            "HTTP/1.1 200 OK\r\n" + (0..<300).map { "X-\($0): y\r\n" }.joined() + "Content-Length: 0\r\n\r\n",
            .tooLarge
        ),
    ])
    func `an answer that is none, or too much, is an error`(answer: String, code: HTTPError.Code) throws {
        let server = try CannedServer(on: loop, answer, closes: true)
        #expect(failure(try send([HTTPRequest("GET", server.url())]) { $0.responseBytesMax = 1000 }.first) == code)
    }

    @Test func `a server that says nothing is given up, and one that is not there at once`() throws {
        let silent = try CannedServer(on: loop, "")
        #expect(failure(try send([HTTPRequest("GET", silent.url())]) { $0.timeoutMs = 200 }.first) == .timeout)
        // Nobody listens on the discard port.
        #expect(failure(try send([HTTPRequest("GET", "http://127.0.0.1:9/")]).first) == .connect)
    }

    @Test func `what is no request is refused, and none of it leaves`() throws {
        let server = try CannedServer(on: loop, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        for request in [
            HTTPRequest("GET", "file:///etc/passwd"), HTTPRequest("GET", "http://"), HTTPRequest("GET", "gopher://x/"),
            HTTPRequest("GET", server.url(), headers: [("X-Split", "a\r\nX-More: b")]),
        ] {
            #expect(failure(try send([request]).first) == .badRequest, "\(request.url)")
        }
        #expect(server.connections == 0)
    }

    @Test func `a certificate that nobody vouches for ends the call before anything is said`() throws {
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        let (certificate, key) = (directory + "/certificate.pem", directory + "/key.pem")
        let made = try ChildProcess.run(
            "openssl",
            [
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate,
            ])
        try #require(made.exit.isSuccess, "\(made.error)")
        let tls = try TLSContext(.server(certificatePath: certificate, keyPath: key))
        let server = try CannedServer(on: loop, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", tls: tls)
        #expect(failure(try send([HTTPRequest("POST", server.url("https"))]).first) == .tls)
        #expect(server.received.isEmpty)
        let trusting = try send([HTTPRequest("POST", server.url("https"))]) { $0.certificateAuthorities = certificate }
        #expect(try trusting.first?.get().status == 200)
    }

    @Test func `an address that is not the internet's is not called, however it is written`() throws {
        let server = try CannedServer(on: loop, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433", "0"] {
            let result = try send([HTTPRequest("GET", "http://\(host):\(server.port)/")]) {
                $0.refusesPrivateAddresses = true
            }
            #expect(failure(result.first) == .forbidden, "\(host) \(result)")
        }
        #expect(server.connections == 0)
    }

    @Test func `closing ends what is under way`() throws {
        let server = try CannedServer(on: loop, "")
        let client = try HTTPClient(loop: loop)
        var codes: [HTTPError.Code?] = []
        for _ in 0..<3 { client.send(HTTPRequest("GET", server.url())) { codes.append(failure($0)) } }
        #expect(
            eventually {
                loop.runOnce(timeoutMs: 5)
                return server.connections == 3
            })
        client.close()
        #expect(codes == [.cancelled, .cancelled, .cancelled] && client.inFlight == 0)
    }
}
