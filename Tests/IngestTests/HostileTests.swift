import Ingest
import System
import TestSupport
import Testing
import WebSocket
import Wire

/// Hostile bytes on real sockets: what docs/hostile-input.md says of a whole connection. What the decoders make of each shape is
/// tested with them.
@Suite(.serialized) struct HostileTests {
    // MARK: HTTP

    @Test func `a request that could be read in two ways is refused, and what stands behind it is answered by nobody`()
        throws
    {
        let bench = try Bench()
        // Of two readers each would see another request behind these.
        let post = "POST /v1/users HTTP/1.1\r\nHost: h\r\n"
        for request in [
            post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            post + "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
            post + "Content-Length: 0\r\nContent-Length: 40\r\n\r\n",
            post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            post + "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            post + "Transfer-Encoding: chunked\r\n\r\n0\n\r\n",
            "POST /v1/users HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            let peer = try RawPeer(port: bench.server.port)
            peer.send(Array((request + "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").utf8))
            let replies = replies(to: peer)
            #expect(replies.map(\.status) == [400] || replies.map(\.status) == [501], "\(request)")
            #expect(replies.first?.fields["connection"] == "close")
        }
    }

    @Test func `whoever shuts its side gets the answer that it asked for, and is let go`() throws {
        let bench = try Bench()
        let token = bench.token(.random())
        let calls = [("/healthz", 200), ("/v1/endpoint", 200), ("/v1/users/\(UserID.random())/status", 503)]
        for (target, status) in calls {
            let asking = try RawPeer(port: bench.server.port)
            let head = "GET \(target) HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \(token)\r\n\r\n"
            asking.send(Array(head.utf8))
            asking.endSending()
            #expect(replies(to: asking).map(\.status) == [status], "\(target)")
        }
        let half = "GET /healthz HTTP/1.1\r\nHos"
        let bodiless = "POST /v1/users HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{"
        for unfinished in ["", half, bodiless] {
            let silent = try RawPeer(port: bench.server.port)
            silent.send(Array(unfinished.utf8))
            silent.endSending()
            #expect(silent.receiveToEnd() == [], "\(unfinished)")
        }
        try bench.wait("none is left") { bench.metric("fanout_ingest_connections") == 0 }
    }

    @Test func `a request that drips is given so long and no longer, body and next request too`() throws {
        let bench = try Bench {
            $0.limits.handshakeMs = 1000
            $0.limits.keepAliveMs = 1000
        }
        let starts = [
            "GET /healthz HTTP/1.1\r\nHos", "POST /v1/users HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\nGET /healthz HTTP/1.1\r\nX: ",
        ]
        let drips = starts.map { start in
            let raw = Raw()
            raw.connect(bench, Array(start.utf8))
            return raw
        }
        var looks = 0
        try bench.wait("all are closed") {
            looks += 1
            if looks.isMultiple(of: 20) { for drip in drips { drip.stream?.write([0x78]) } }
            return drips.allSatisfy(\.isClosed)
        }
        #expect(drips.map { $0.replies.map(\.status) } == [[408], [408], [200, 408]])
    }

    @Test func `a reset in the middle of anything leaves nothing behind`() throws {
        let bench = try Bench()
        let token = bench.token(.random())
        let target = "/v1/users/\(UserID.random())/status"
        let request = "GET \(target) HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \(token)\r\n\r\n"
        for bytes in [[], Array("GET /".utf8), Array(request.utf8), opening(bench), opening(bench) + hello] {
            let peer = try RawPeer(port: bench.server.port)
            peer.send(bytes)
            if !bytes.isEmpty { try bench.wait("it has arrived") { bench.metric("fanout_ingest_connections") > 0 } }
            peer.resetOnClose()
        }
        try bench.wait("none is left") {
            bench.metric("fanout_ingest_connections") == 0 && bench.metric("fanout_ingest_sessions") == 0
        }
    }

    // MARK: WebSocket

    @Test func `frames may come right behind the handshake, a byte at a time`() throws {
        let bench = try Bench()
        let raw = Raw()
        raw.connect(bench, [])
        var bytes = (opening(bench) + hello + frame(.text, #"{"type":"ping","n":1}"#) + frame(.close, [0x03, 0xe8]))[
            ...]
        try bench.wait("closed") {
            if let byte = bytes.popFirst() { raw.stream?.write([byte]) }
            return raw.isClosed
        }
        #expect(raw.replies.first?.status == 101)
        let text = String(decoding: raw.bytes, as: UTF8.self)
        #expect(text.contains(#""type":"hello""#) && text.contains(#"{"type":"pong","n":1}"#))
        #expect(Array(raw.bytes.suffix(4)) == Frame.encode(close: .normal))
    }

    @Test func `a frame that is none ends its session with the code that says why`() throws {
        let bench = try Bench()
        for (bytes, code) in [
            // Unmasked.
            ([0x81, 0x02, 0x7b, 0x7d], 1002),
            // A reserved bit and an opcode that nothing gave a meaning.
            ([0xf1, 0x80, 0, 0, 0, 0], 1002),
            ([0x83, 0x80, 0, 0, 0, 0], 1002),
            // A length not in its shortest form.
            ([0x81, 0xfe, 0x00, 0x02, 0, 0, 0, 0, 0x7b, 0x7d], 1002),
            // A continuation of nothing; a message inside another; a ping in pieces.
            ([0x80, 0x80, 0, 0, 0, 0], 1002),
            ([0x01, 0x80, 0, 0, 0, 0, 0x81, 0x80, 0, 0, 0, 0], 1002),
            ([0x09, 0x80, 0, 0, 0, 0], 1002),
            // Not UTF-8, before the frame is whole.
            ([0x81, 0x83, 0, 0, 0, 0, 0xff], 1007),
            // 64 KiB and one, before the payload.
            ([0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0], 1009),
            // 2⁶³.
            ([0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1002),
            // A close code that must not be sent.
            ([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed], 1002),
        ] as [([UInt8], UInt16)] {
            let device = try bench.device(UserID.random())
            device.send(bytes: bytes + frame(.text, #"{"type":"ping"}"#))
            try bench.wait("closed") { device.isClosed }
            #expect(device.closeCode == CloseCode(rawValue: code), "\(bytes)")
            #expect(device.frames("pong").isEmpty)
        }
        #expect(bench.metric(#"fanout_ingest_closes_total{code="1002"}"#) == 9)
        #expect(bench.metric(#"fanout_ingest_closes_total{code="1007"}"#) == 1)
        #expect(bench.metric(#"fanout_ingest_closes_total{code="1009"}"#) == 1)
        try bench.wait("the sessions are over") { bench.metric("fanout_ingest_sessions") == 0 }
    }

    @Test func `a device that shuts its side has no session any more`() throws {
        let bench = try Bench()
        let worker = try bench.worker()
        let user = UserID.random()
        let peer = try RawPeer(port: bench.server.port)
        peer.send(opening(bench, user) + hello)
        try bench.wait("registered") { worker.session(of: user) != nil }
        peer.endSending()
        try bench.wait("unregistered") { worker.session(of: user) == nil }
        #expect(peer.receiveToEnd() != nil)
    }

    @Test func `7.1.1 after both close frames the server ends the connection, without waiting for its client to`()
        throws
    {
        let bench = try Bench()
        let peer = try RawPeer(port: bench.server.port)
        peer.send(opening(bench) + hello + frame(.close, [0x03, 0xe8]))
        let bytes = try #require(peer.receiveToEnd())
        #expect(Array(bytes.suffix(4)) == Frame.encode(close: .normal))
    }

    @Test func `4.2.2 a subprotocol is answered when it was offered, and never a token`() throws {
        let bench = try Bench()
        let user = UserID.random()
        let token = bench.token(user)
        let offers = [[], ["fanout.v1"], ["other"], ["bearer." + token], ["other", "bearer." + token, "fanout.v1"]]
        let chosen = try offers.map { try bench.device(user, hello: nil, subprotocols: $0, token: token) }
        #expect(chosen.map(\.status) == [101, 101, 101, 101, 101])
        #expect(chosen.map(\.subprotocol) == [nil, "fanout.v1", nil, nil, "fanout.v1"])
    }

    @Test func `what comes behind a close frame is not read`() throws {
        let bench = try Bench()
        let device = try bench.device(UserID.random())
        device.send(
            bytes: frame(.close, [0x0f, 0xa0]) + frame(.text, #"{"type":"ping"}"#)
                + [UInt8](repeating: 0xff, count: 100))
        try bench.wait("closed") { device.isClosed }
        #expect(device.closeCode == CloseCode(rawValue: 4000) && device.frames("pong").isEmpty)
    }

    // MARK: Parts

    private let hello: [UInt8] = {
        var bytes: [UInt8] = []
        Frame.append(to: &bytes, .text, Array(#"{"type":"hello"}"#.utf8).span, mask: 0x5555_aaaa)
        return bytes
    }()

    private func frame(_ opcode: Opcode, _ text: String) -> [UInt8] { frame(opcode, Array(text.utf8)) }

    private func frame(_ opcode: Opcode, _ payload: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = []
        Frame.append(to: &bytes, opcode, payload.span, mask: 0x1234_5678)
        return bytes
    }

    private func opening(_ bench: Bench, _ user: UserID = .random()) -> [UInt8] {
        var generator = SeededGenerator(.random(in: 0 ... .max))
        return ClientHandshake(
            host: "h", target: "/v1/ws?device=\(DeviceID.random())",
            fields: [.init("Authorization", "Bearer \(bench.token(user))")], using: &generator
        ).request
    }

    /// All that the server answers before it closes.
    private func replies(to peer: RawPeer) -> [HTTPReply] {
        let bytes = peer.receiveToEnd() ?? []
        var parser = HTTPReplyParser()
        var offset = 0
        var replies: [HTTPReply] = []
        while let reply = try? parser.next(bytes.span, &offset) { replies.append(reply) }
        return replies
    }
}
