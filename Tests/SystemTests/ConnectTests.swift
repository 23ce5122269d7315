import Synchronization
import System
import TestSupport
import Testing

@Suite struct ConnectTests {
    @Test func `connecting to a closed port names the peer and the reason`() throws {
        let port = try EchoServer().stopAndReturnPort()
        let client = try Client(port: port, waitForConnection: false)
        try client.runUntil { client.closed != nil }
        #expect(client.failure?.code == .connectionRefused)
        #expect(client.failure?.description == "connect 127.0.0.1:\(port): Connection refused")
    }

    @Test func `a name is resolved without blocking the loop, and what was written before is sent`() throws {
        let server = try EchoServer()
        let client = try Client(port: server.port, host: "localhost", waitForConnection: false)
        client.stream.write(Array("early".utf8))
        try client.runUntil { client.received.count == 5 }
        #expect(client.isConnected)
    }

    @Test func `a name that does not exist is named`() throws {
        let client = try Client(port: 1, host: "no-such-host.invalid", waitForConnection: false, timeoutMs: 15_000)
        try client.runUntil { client.closed != nil }
        #expect(client.failure?.code == .nameNotResolved)
        #expect(client.failure?.subject == "no-such-host.invalid:1")
    }

    @Test func `a peer that does not answer is given up in time`() throws {
        let listener = try DeafListener(backlog: 0)
        // The kernel's queue takes a few; the first that finds it full hears nothing.
        let clients = try (0..<4).map { _ in try Client(port: listener.port, waitForConnection: false, timeoutMs: 200) }
        for client in clients { try client.runUntil(deadlineMs: 5000) { client.closed != nil || client.isConnected } }
        let silent = try #require(clients.first { $0.closed != nil })
        #expect(silent.failure?.code == .timedOut)
        #expect(silent.failure?.message == "no answer within 200 ms")
    }

    @Test func `closing while connecting is quiet`() throws {
        let server = try EchoServer()
        let client = try Client(port: server.port, waitForConnection: false)
        client.stream.close()
        try client.runUntil { client.closed != nil }
        #expect(client.closed == .local)
        for _ in 0..<5 { client.loop.runOnce(timeoutMs: 5) }
        #expect(!client.isConnected)
    }

    @Test func `a port that is taken is named`() throws {
        let server = try EchoServer()
        let loop = try EventLoop()
        let error = #expect(throws: SystemError.self) {
            try Listener(on: loop, host: "127.0.0.1", port: server.port) { _ in }
        }
        #expect(error?.code == .addressInUse)
        #expect(error?.description == "listen 127.0.0.1:\(server.port): Address already in use")
    }

    @Test func `loops may share a port, and a closed listener frees it`() throws {
        let first = try EventLoop()
        let second = try EventLoop()
        let one = try Listener(on: first, host: "127.0.0.1", port: 0, sharesPort: true) { _ in }
        let two = try Listener(on: second, host: "127.0.0.1", port: one.port, sharesPort: true) { _ in }
        #expect(one.port == two.port)
        one.close()
        two.close()
        let again = try Listener(on: first, host: "127.0.0.1", port: one.port) { _ in }
        #expect(again.port == one.port)
        again.close()
    }

    @Test func `a listener on every interface takes both families`() throws {
        let loop = try EventLoop()
        var accepted: [Stream] = []
        let sink = Client.Sink()
        let listener = try Listener(on: loop, host: "*", port: 0) { socket in
            if let stream = try? Stream(socket, on: loop, delegate: sink) { accepted.append(stream) }
        }
        var connected: [Stream] = []
        for host in ["127.0.0.1", "::1"] {
            connected.append(Stream.connect(host: host, port: listener.port, on: loop, delegate: sink))
        }
        // A machine without IPv6 fails the second, which is all that is asked of it.
        try loop.runUntil { connected.allSatisfy { $0.isEstablished || !$0.isOpen } }
        #expect(connected[0].isEstablished)
        try loop.runUntil { accepted.count == connected.count { $0.isEstablished } }
        loop.close()
    }

    @Test func `addresses print and compare as people write them`() throws {
        let four = try #require(SocketAddress.numeric(host: "192.0.2.7", port: 80))
        #expect(four.description == "192.0.2.7:80")
        let six = try #require(SocketAddress.numeric(host: "[2001:db8::1]", port: 443))
        #expect(six.description == "[2001:db8::1]:443")
        #expect(six == SocketAddress.numeric(host: "2001:db8:0:0::1", port: 443))
        #expect(SocketAddress.numeric(host: "localhost", port: 1) == nil)
        let wrong = #expect(throws: SystemError.self) { try SocketAddress.resolve(host: "127.0.0.1", port: 70_000) }
        #expect(wrong?.message == "a port is between 0 and 65535")
    }

    @Test func `running out of descriptors pauses accepting, and connections wait`() async {
        // In a process of its own, since the limit is the whole process's.
        await #expect(processExitsWith: .success) {
            let loop = try EventLoop()
            let sink = Client.Sink()
            var accepted: [Stream] = []
            var pauses: [SystemError] = []
            let listener = try Listener(on: loop, host: "127.0.0.1", port: 0) { socket in
                if let stream = try? Stream(socket, on: loop, delegate: sink) { accepted.append(stream) }
            }
            listener.onPause = { pauses.append($0) }
            let peers = try (0..<20).map { _ in try RawPeer(port: listener.port) }
            leaveDescriptors(8)
            try loop.runUntil { !pauses.isEmpty }
            precondition(pauses[0].code == .tooManyFiles)
            let before = accepted.count
            precondition(before < 20)
            for stream in accepted { stream.close() }
            try loop.runUntil { accepted.count > before }
            withExtendedLifetime(peers) {}
            loop.close()
        }
    }
}
