import Foundation
@testable import Ingest
import Runtime
import System
import TestSupport
import Testing
import WebSocket
import Wire

/// What the port answers besides the API.
@Suite(.serialized) struct HTTPServerTests {
    @Test func `probes and metrics answer anyone`() throws {
        let bench = try Bench()
        #expect(try bench.http("GET", "/healthz").status == 200)
        #expect(try bench.http("GET", "/readyz").status == 200)
        let metrics = try bench.http("GET", "/metrics")
        #expect(String(decoding: metrics.body, as: UTF8.self).contains("fanout_ingest_sessions 0"))
        #expect(try bench.http("HEAD", "/healthz").body.isEmpty)
        #expect(try bench.http("BREW", "/healthz").status == 405)
        #expect(try bench.http("GET", "/nothing").status == 404)
        #expect(try bench.http("GET", "/v1/nothing").status == 401)
        #expect(try bench.http("GET", "/v1/nothing", token: bench.token(.random())).status == 404)
        #expect(try bench.http("GET", "/v1/chats", token: bench.token(.random())).status == 501)
        #expect(try bench.http("PATCH", "/v1/chats", token: bench.token(.random())).status == 405)
    }

    @Test func `requests that come together are answered in order, on one connection`() throws {
        let bench = try Bench()
        let token = bench.token(.random())
        let raw = Raw()
        let one = "GET /v1/endpoint HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \(token)\r\n\r\n"
        let two = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
        raw.connect(bench, Array((one + two + one + two).utf8))
        try bench.wait("all answers") { raw.replies.count == 4 }
        #expect(raw.replies.map { $0.body.first } == [0x7b, 0x6f, 0x7b, 0x6f])
        raw.stream?.write(Array("GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n".utf8))
        try bench.wait("a bad one ends it") { raw.isClosed }
        #expect(raw.replies.last?.status == 400)
    }

    @Test func `a body is read in chunks, and asked for when the client waits`() throws {
        let bench = try Bench()
        let raw = Raw()
        let token = bench.token(.random(), scopes: "admin")
        let head =
            "POST /v1/users HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \(token)\r\nTransfer-Encoding: chunked\r\n"
        raw.connect(bench, Array((head + "Expect: 100-continue\r\n\r\n").utf8))
        try bench.wait("asked for") { String(decoding: raw.bytes, as: UTF8.self).contains("100 Continue") }
        raw.stream?.write(Array("5\r\n{\"nam\r\n6\r\ne\":\"\"}\r\n0\r\n\r\n".utf8))
        try bench.wait("an answer") { raw.reply != nil }
        #expect(raw.reply?.status == 400)
        let text = String(decoding: raw.reply?.body ?? [], as: UTF8.self)
        #expect(text.contains("a name of at most"))
    }

    @Test func `files are served from one directory and no other`() throws {
        let root = NSTemporaryDirectory() + "web-\(UUID.random())"
        try Directory.create(root + "/app")
        defer { try? Directory.removeAll(root) }
        try File.replaceAtomically(root + "/index.html", with: "<h1>hi</h1>")
        try File.replaceAtomically(root + "/ops.html", with: "ops")
        try File.replaceAtomically(root + "/app/x.js", with: "1")
        try File.replaceAtomically(root + "/.secret.txt", with: "no")
        try File.replaceAtomically(root + "/noext", with: "no")
        let bench = try Bench { $0.webRoot = root }
        let index = try bench.http("GET", "/")
        #expect(index.status == 200 && index.fields["content-type"] == "text/html; charset=utf-8")
        #expect(index.fields["content-security-policy"] != nil)
        #expect(try bench.http("GET", "/ops").body == Array("ops".utf8))
        #expect(try bench.http("GET", "/app/x.js").body == Array("1".utf8))
        for path in [
            "/.secret.txt", "/../etc/passwd", "/%2e%2e/etc/passwd.txt", "/..%2fetc", "/noext", "/app",
            "/app/../.secret.txt",
        ] {
            let status = try bench.http("GET", path).status
            #expect(status == 404 || status == 400, "\(path)")
        }
    }

    @Test func `answers longer than a session's queue arrive whole and in order, at the pace of who reads them`() throws
    {
        let root = NSTemporaryDirectory() + "web-\(UUID.random())"
        try Directory.create(root)
        defer { try? Directory.removeAll(root) }
        let page = [UInt8](repeating: 0x61, count: 3 << 20)
        try File.replaceAtomically(root + "/page.txt", with: page)
        let bench = try Bench { $0.webRoot = root }
        let raw = Raw()
        let long = "GET /page.txt HTTP/1.1\r\nHost: h\r\n\r\n"
        let short = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
        raw.connect(bench, Array(String(repeating: long + short, count: 3).utf8))
        raw.stream?.pauseReading()
        try bench.wait("the first answer waits for its reader") {
            bench.metric("fanout_ingest_queued_bytes") > 1 << 20
        }
        // The others do not wait in our memory: they have not been asked for yet.
        #expect(bench.metric("fanout_ingest_queued_bytes") < 4 << 20)
        raw.stream?.resumeReading()
        try bench.wait("all answers") { raw.replies.count == 6 || raw.isClosed }
        #expect(raw.replies.map(\.body.count) == [page.count, 3, page.count, 3, page.count, 3])
        #expect(raw.replies.allSatisfy { $0.body.count == 3 || $0.body == page })
        try bench.wait("nothing waits any more") { bench.metric("fanout_ingest_queued_bytes") == 0 }
        let last = try bench.http("GET", "/page.txt")
        #expect(last.body == page && last.fields["connection"] == "close")
    }

    @Test func `an answer over the limit closes its connection, and the client does not wait for ever`() throws {
        let root = NSTemporaryDirectory() + "web-\(UUID.random())"
        try Directory.create(root)
        defer { try? Directory.removeAll(root) }
        try File.replaceAtomically(root + "/page.txt", with: [UInt8](repeating: 0x61, count: 100_000))
        let bench = try Bench {
            $0.webRoot = root
            $0.limits.answerBytesMax = 64 << 10
        }
        let raw = Raw()
        raw.connect(bench, Array("GET /page.txt HTTP/1.1\r\nHost: h\r\n\r\n".utf8))
        try bench.wait("closed") { raw.isClosed }
        #expect(raw.replies.isEmpty)
        #expect(try bench.http("GET", "/healthz").status == 200)
    }

    @Test func `two thousand requests sent at once are answered in order, though nobody reads at first`() throws {
        let bench = try Bench()
        let token = bench.token(.random())
        let raw = Raw()
        let one = "GET /v1/endpoint HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \(token)\r\n\r\n"
        let two = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
        raw.connect(bench, Array(String(repeating: one + two, count: 1000).utf8))
        raw.stream?.pauseReading()
        try bench.wait("some are answered") { bench.metric("fanout_ingest_responses_total{class=\"2xx\"}") > 1 }
        raw.stream?.resumeReading()
        try bench.wait("all answers") { raw.replies.count == 2000 || raw.isClosed }
        #expect(raw.replies.count == 2000)
        let firsts = raw.replies.map { $0.body.first }
        #expect(firsts.enumerated().allSatisfy { $1 == ($0.isMultiple(of: 2) ? 0x7b : 0x6f) })
    }

    @Test func `media links are signed as S3 wants them`() throws {
        // The example of Amazon's documentation of presigned URLs.
        var store = MediaStore(
            endpoint: "https://examplebucket.s3.amazonaws.com", bucket: "", region: "us-east-1",
            accessKey: "AKIAIOSFODNN7EXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
        store.isPathStyle = false
        let url = store.url(method: "GET", key: "test.txt", headers: [], seconds: 86_400, nowMs: 1_369_353_600_000)
        #expect(
            url.hasSuffix("X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"), "\(url)")
        let bench = try Bench { $0.media = store }
        let user = UserID.random()
        func ask(_ body: String) throws -> HTTPReply {
            try bench.http("POST", "/v1/media", token: bench.token(user), body: body)
        }
        let links = try ask(#"{"name":"a b.png","type":"image/png","bytes":5}"#)
        #expect(
            links.status == 201
                && String(decoding: links.body, as: UTF8.self).contains("content-length%3Bcontent-type%3Bhost"))
        // What a browser may show it shows; whatever else is saved, however the type is written.
        let disposition = "&response-content-disposition=attachment&X-Amz-Signature="
        for (type, isShown) in [
            ("image/png", true), ("IMAGE/Png", true), ("video/mp4", true), ("text/html", false), ("Text/HTML", false),
            ("image/SVG+xml", false), ("text/xsl", false), ("application/pdf", false), ("x/y", false),
        ] {
            let answer = String(decoding: try ask(#"{"name":"x","type":"\#(type)","bytes":5}"#).body, as: UTF8.self)
            #expect(answer.contains(disposition) != isShown, "\(type)")
            #expect(answer.hasSuffix(#""type":"\#(type.lowercased())"}"#), "\(type)")
        }
        for type in ["text", "text/", "/html", "text/html; charset=utf-8", "a/b/c", "text/h\u{212a}"] {
            #expect(try ask(#"{"name":"x","type":"\#(type)","bytes":5}"#).status == 400, "\(type)")
        }
        #expect(try ask(#"{"name":"x","type":"image/png","bytes":5000000000}"#).status == 413)
        #expect(try ask(#"{"name":"x"}"#).status == 400)
    }

    @Test func `demo users are told to who names the server by an address or as it is known`() throws {
        for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "192.168.1.7", "chat.example:443"] {
            #expect(API.isKnown(host: host, publicURL: "wss://chat.example"), "\(host)")
        }
        for host in ["", "evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "chat.example."] {
            #expect(!API.isKnown(host: host, publicURL: "wss://chat.example"), "\(host)")
        }
        #expect(!API.isKnown(host: "chat.example", publicURL: nil))
        let path = NSTemporaryDirectory() + "demo-\(UUID.random())"
        try File.replaceAtomically(path, with: "[]")
        defer { try? File.remove(path) }
        let bench = try Bench {
            $0.demoUsersFile = path
            $0.publicURL = "ws://test"
        }
        #expect(try bench.http("GET", "/demo/users").status == 200)
        let stranger = try Bench { $0.demoUsersFile = path }
        let answer = try stranger.http("GET", "/demo/users")
        #expect(answer.status == 403 && String(decoding: answer.body, as: UTF8.self).contains("--public-url"))
    }

    @Test func `TLS serves the same, and a renewed certificate is used after a reload`() throws {
        let directory = NSTemporaryDirectory() + "tls-\(UUID.random())"
        try Directory.create(directory)
        defer { try? Directory.removeAll(directory) }
        func renew() throws {
            let process = Process()
            process.executableURL = URL(filePath: "/usr/bin/openssl")
            process.arguments = [
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                "-keyout", directory + "/key.pem", "-out", directory + "/cert.pem", "-subj", "/CN=localhost",
            ]
            process.standardError = FileHandle.nullDevice
            try process.run()
            process.waitUntilExit()
        }
        try renew()
        let context = try TLSContext(
            .server(certificatePath: directory + "/cert.pem", keyPath: directory + "/key.pem"))
        let bench = try Bench { $0.tls = context }
        let client = try TLSContext(.unverifiedClient)
        for _ in 0..<2 {
            let raw = Raw()
            raw.connect(bench, Array("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n".utf8), tls: client)
            try bench.wait("an answer") { raw.reply != nil }
            #expect(raw.reply?.status == 200)
            try renew()
            bench.server.reload()
        }
    }
}
