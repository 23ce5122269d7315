import System
import TestSupport
import Testing

extension Certificates {
    func server(handshakeTimeoutMs: Int = 10_000) throws -> TLSContext {
        try TLSContext(
            .server(certificatePath: certificate, keyPath: key), handshakeTimeoutMs: handshakeTimeoutMs)
    }

    func client() throws -> TLSContext { try TLSContext(.client(authorityPath: authority)) }
}

@Suite struct TLSTests {
    let certificates: Certificates

    init() throws {
        certificates = try Certificates()
    }

    @Test(arguments: ["127.0.0.1", "localhost"])
    func `megabytes come back through TLS, by address and by name`(host: String) throws {
        defer { certificates.remove() }
        let server = try EchoServer(tls: certificates.server())
        let client = try Client(port: server.port, host: host, tls: certificates.client())
        #expect(client.stream.applicationProtocol == "http/1.1")
        var expected: [UInt8] = []
        for index in 0..<200 {
            let block = [UInt8](repeating: UInt8(truncatingIfNeeded: index), count: index * 100)
            client.stream.write(block)
            client.stream.write(copying: block.span.extracting(0..<min(7, block.count)))
            expected += block + block.prefix(7)
        }
        try client.runUntil { client.received.count == expected.count }
        #expect(client.received == expected)
        client.stream.closeAfterFlush()
        try client.runUntil { client.closed != nil }
        #expect(client.closed == .local)
    }

    @Test func `a slow reader gets everything, also files, once it reads again`() throws {
        defer { certificates.remove() }
        let path = certificates.directory + "/data"
        let content = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 / 3) }
        try File.replaceAtomically(path, with: content)
        let file = SharedFile(try File(path))
        let local = try Local(tls: certificates.server())
        let client = try Client(
            on: local.loop, port: local.port, tls: certificates.client())
        try local.loop.runUntil { local.stream?.isEstablished ?? false }
        client.stream.pauseReading()
        local.stream?.write(Array("before".utf8))
        for _ in 0..<6 { local.stream?.sendFile(file, offset: 0, count: content.count) }
        local.stream?.write(Array("after".utf8))
        try local.loop.runUntil { local.stream?.isBlocked ?? false }
        client.stream.resumeReading()
        let total = 11 + 6 * content.count
        try local.loop.runUntil { client.received.count == total }
        #expect(client.received.prefix(6 + content.count) == (Array("before".utf8) + content)[...])
        #expect(client.received.suffix(5) == Array("after".utf8)[...])
        #expect(local.drains == 1)
    }

    @Test func `a certificate for another name is refused, and the client says why`() throws {
        defer { certificates.remove() }
        try certificates.issue(name: "elsewhere.example")
        let server = try EchoServer(tls: certificates.server())
        let client = try Client(
            port: server.port, host: "localhost", tls: certificates.client(), waitForConnection: false)
        try client.runUntil { client.closed != nil }
        #expect(client.failure?.code == .tls)
        #expect(client.failure?.message == "the peer's certificate is not accepted: hostname mismatch")
        #expect(client.failure?.subject == "localhost:\(server.port)")
    }

    @Test func `a certificate of an unknown authority is refused`() throws {
        defer { certificates.remove() }
        let server = try EchoServer(tls: certificates.server())
        let client = try Client(
            port: server.port, tls: TLSContext(.client(authorityPath: nil)), waitForConnection: false)
        try client.runUntil { client.closed != nil }
        #expect(client.failure?.message.hasPrefix("the peer's certificate is not accepted: ") ?? false)
        let trusting = try Client(port: server.port, tls: TLSContext(.unverifiedClient))
        #expect(trusting.isConnected)
    }

    @Test func `a renewed certificate is used after a reload, and a broken one is not`() throws {
        defer { certificates.remove() }
        let context = try certificates.server()
        let server = try EchoServer(tls: context)
        try certificates.issue(name: "elsewhere.example")
        let before = try Client(port: server.port, host: "localhost", tls: certificates.client())
        #expect(before.isConnected)
        try context.reload()
        let after = try Client(
            port: server.port, host: "localhost", tls: certificates.client(), waitForConnection: false)
        try after.runUntil { after.closed != nil }
        #expect(after.failure?.code == .tls)
        try File.replaceAtomically(certificates.certificate, with: "garbage")
        #expect(throws: SystemError.self) { try context.reload() }
        let still = try Client(port: server.port, host: "127.0.0.1", tls: certificates.client())
        #expect(still.isConnected)
    }

    @Test func `files that cannot be read or do not belong together are named`() throws {
        defer { certificates.remove() }
        let missing = #expect(throws: SystemError.self) {
            try TLSContext(.server(certificatePath: "/nowhere/cert.pem", keyPath: certificates.key))
        }
        #expect(missing?.description == "read the TLS certificate /nowhere/cert.pem: No such file or directory")
        try Certificates.openssl(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", certificates.key])
        let foreign = #expect(throws: SystemError.self) { try certificates.server() }
        #expect(foreign?.code == .tls)
    }

    @Test func `a client that does not speak TLS fails its handshake, and a silent one runs out of time`() throws {
        defer { certificates.remove() }
        let local = try Local(tls: certificates.server(handshakeTimeoutMs: 100))
        let peer = try local.connect()
        peer.send(Array("GET / HTTP/1.1\r\n\r\n".utf8))
        try local.loop.runUntil { local.closed.count == 1 }
        guard case .failed(let error) = local.closed[0] else {
            Issue.record("\(local.closed)")
            return
        }
        #expect(error.code == .tls)
        #expect(error.message == "http request")
        let silent = try local.connect()
        try local.loop.runUntil { local.closed.count == 2 }
        guard case .failed(let late) = local.closed[1] else {
            Issue.record("\(local.closed)")
            return
        }
        #expect(late.code == .timedOut)
        #expect(late.operation == "TLS handshake")
        withExtendedLifetime(silent) {}
    }

    @Test func `garbage in the middle of a session is a failure, not data`() throws {
        defer { certificates.remove() }
        let local = try Local()
        // A relay that lets the handshake through and then breaks a record.
        let client = try Client(on: local.loop, port: local.port, tls: certificates.client(), waitForConnection: false)
        try local.loop.runUntil { local.stream != nil }
        local.stream?.write(Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8))
        try local.loop.runUntil { client.closed != nil }
        #expect(client.failure?.code == .tls)
    }
}
