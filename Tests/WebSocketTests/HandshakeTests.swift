import TestSupport
import Testing
@testable import WebSocket

@Suite struct HandshakeTests {
    private func request(
        _ change: (inout [String: String]) -> Void = { _ in }, method: String = "GET", version: String = "1.1",
        body: String = ""
    ) throws -> HTTPRequest {
        var fields = [
            "Host": "server.example.com", "Upgrade": "websocket", "Connection": "keep-alive, Upgrade",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13",
        ]
        change(&fields)
        let lines = fields.map { "\($0.key): \($0.value)\r\n" }.joined()
        let bytes = Array("\(method) /v1/ws HTTP/\(version)\r\n\(lines)\r\n\(body)".utf8)
        var parser = HTTPParser()
        var offset = 0
        return try #require(try parser.next(bytes.span, &offset))
    }

    private func refusal(_ change: (inout [String: String]) -> Void, method: String = "GET", version: String = "1.1")
        throws -> HTTPError?
    {
        let request = try request(change, method: method, version: version)
        do {
            _ = try ServerHandshake(request)
            return nil
        } catch {
            return error
        }
    }

    @Test func `1.3 the RFC's own key gets the RFC's own answer`() throws {
        let answer = String(decoding: try ServerHandshake(request()).accept(subprotocol: nil), as: UTF8.self)
        #expect(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"))
        #expect(answer.hasPrefix("HTTP/1.1 101 Switching Protocols\r\n") && answer.hasSuffix("\r\n\r\n"))
    }

    @Test func `SHA-1 agrees with FIPS 180`() {
        func hex(_ text: String) -> String {
            AcceptKey.sha1(Array(text.utf8)).map {
                "0123456789abcdef".map(String.init)[Int($0 >> 4)] + "0123456789abcdef".map(String.init)[Int($0 & 15)]
            }.joined()
        }
        #expect(hex("abc") == "a9993e364706816aba3e25717850c26c9cd0d89d")
        #expect(hex("") == "da39a3ee5e6b4b0d3255bfef95601890afd80709")
        #expect(
            hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
                == "84983e441c3bd26ebaae4aa1f95129e5e54670f1")
    }

    @Test func `4.2.1 whatever is missing or wrong in a handshake refuses it`() throws {
        #expect(try refusal { $0["Upgrade"] = nil }?.status == 426)
        #expect(try refusal { $0["Upgrade"] = "h2c" }?.status == 426)
        #expect(try refusal { $0["Connection"] = "keep-alive" }?.status == 426)
        #expect(try refusal { $0["Sec-WebSocket-Key"] = nil }?.status == 400)
        #expect(try refusal { $0["Sec-WebSocket-Key"] = "short" }?.status == 400)
        #expect(try refusal { $0["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZR==" }?.status == 400)
        #expect(try refusal { $0["Sec-WebSocket-Version"] = "8" }?.status == 426)
        #expect(try refusal { $0["Sec-WebSocket-Version"] = nil }?.status == 426)
        #expect(try refusal({ _ in }, method: "POST")?.status == 426)
        #expect(try refusal({ _ in }, version: "1.0")?.status == 426)
        #expect(try refusal { $0["Sec-WebSocket-Protocol"] = "a, a" }?.status == 400)
        #expect(try refusal { _ in } == nil)
        #expect(try refusal { $0["Upgrade"] = "WebSocket" } == nil)
    }

    @Test func `4.2.2 a refusal says which version would be taken`() {
        #expect(
            ServerHandshake.refusalFields(HTTPError(.unsupportedWebSocketVersion)).contains(
                .init("Sec-WebSocket-Version", "13")))
    }

    @Test func `4.2.1 subprotocols and origin are told in order`() throws {
        let handshake = try ServerHandshake(
            request {
                $0["Sec-WebSocket-Protocol"] = "fanout.v1,bearer.x"; $0["Origin"] = "https://a"
            })
        #expect(handshake.subprotocols == ["fanout.v1", "bearer.x"])
        #expect(handshake.origin == "https://a")
    }

    @Test func `4.2.2 an answer names a subprotocol or an extension only when one was agreed on`() throws {
        let handshake = try ServerHandshake(
            request {
                $0["Sec-WebSocket-Protocol"] = "fanout.v1, bearer.x";
                $0["Sec-WebSocket-Extensions"] = "permessage-deflate"
            })
        func fields(_ bytes: [UInt8]) throws -> HTTPFields {
            var parser = HTTPReplyParser()
            var offset = 0
            return try #require(try parser.next(bytes.span, &offset)).fields
        }
        let bare = try fields(handshake.accept(subprotocol: nil))
        #expect(bare.count(of: "sec-websocket-protocol") == 0 && bare.count(of: "sec-websocket-extensions") == 0)
        let full = try fields(handshake.accept(subprotocol: "fanout.v1", deflate: handshake.deflate))
        #expect(full.all("sec-websocket-protocol") == ["fanout.v1"])
        #expect(full.all("sec-websocket-extensions").count == 1)
    }

    @Test func `4.1 a client asks with all that the RFC wants, and with another key of 16 bytes each time`() throws {
        var keys: Set<String> = []
        // The system's generator has no address, which ThreadSanitizer takes for one that all tests share.
        var generator = SeededGenerator(SeededGenerator.freshSeed())
        for _ in 0..<100 {
            let client = ClientHandshake(
                host: "h:81", target: "/v1/ws?device=x", subprotocols: ["a", "b"], using: &generator)
            var parser = HTTPParser()
            var offset = 0
            let request = try #require(try parser.next(client.request.span, &offset))
            #expect(request.method == "GET" && request.minorVersion == 1 && request.target == "/v1/ws?device=x")
            #expect(request.fields.all("host") == ["h:81"] && request.fields.all("upgrade") == ["websocket"])
            #expect(request.fields.list("connection", contains: "upgrade"))
            #expect(request.fields.all("sec-websocket-version") == ["13"])
            #expect(request.fields.list("sec-websocket-protocol") == ["a", "b"])
            let key = try #require(request.fields["sec-websocket-key"])
            #expect(AcceptKey.isWellFormed(key))
            keys.insert(key)
        }
        #expect(keys.count == 100)
    }

    @Test func `4.1 a client takes only the answer to its own key and offers`() throws {
        var generator = SeededGenerator(SeededGenerator.freshSeed())
        let client = ClientHandshake(host: "h", target: "/v1/ws", subprotocols: ["fanout.v1"], using: &generator)
        var parser = HTTPParser()
        var offset = 0
        let request = try #require(try parser.next(client.request.span, &offset))
        let server = try ServerHandshake(request)
        func reply(_ bytes: [UInt8]) throws -> HTTPReply {
            var parser = HTTPReplyParser()
            var offset = 0
            return try #require(try parser.next(bytes.span, &offset))
        }
        #expect(try client.verify(reply(server.accept(subprotocol: "fanout.v1"))) == "fanout.v1")
        #expect(try client.verify(reply(server.accept(subprotocol: nil))) == nil)
        #expect(throws: HTTPError(.badHandshake)) { try client.verify(reply(server.accept(subprotocol: "other"))) }
        #expect(throws: HTTPError(.badHandshake)) {
            try client.verify(reply(server.accept(subprotocol: nil, deflate: DeflateAgreement())))
        }
        let other = ClientHandshake(host: "h", target: "/", using: &generator)
        #expect(throws: HTTPError(.badHandshake)) { try other.verify(reply(server.accept(subprotocol: nil))) }
        #expect(throws: HTTPError(.notAnUpgrade)) {
            try client.verify(reply(HTTPResponse(status: 401).encode(keepsAlive: false)))
        }
    }

    @Test func `RFC 7692 5 the first acceptable offer is taken, without context takeover`() {
        #expect(DeflateAgreement.choose(among: []) == nil)
        #expect(DeflateAgreement.choose(among: ["x-webkit-deflate-frame"]) == nil)
        #expect(
            DeflateAgreement.choose(among: ["permessage-deflate; client_max_window_bits"])?.header
                == "permessage-deflate; server_no_context_takeover; client_no_context_takeover")
        #expect(
            DeflateAgreement.choose(among: [
                "permessage-deflate; unknown", "permessage-deflate; server_max_window_bits=10",
            ])?.header
                == "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10"
        )
        for bad in [
            "server_max_window_bits", "server_max_window_bits=8", "server_max_window_bits=16",
            "server_max_window_bits=010", "client_max_window_bits=7", "server_no_context_takeover=1",
            "client_no_context_takeover; client_no_context_takeover", "",
        ] {
            #expect(DeflateAgreement.choose(among: ["permessage-deflate; \(bad)"]) == nil, "\(bad)")
        }
    }
}
