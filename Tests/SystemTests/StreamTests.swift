import Synchronization
import System
import TestSupport
import Testing

@Suite struct StreamTests {
    @Test func `bytes come back in order from an echo server`() throws {
        let server = try EchoServer()
        let client = try Client(port: server.port)
        for index in 0..<200 { client.stream.write(Array("message \(index)\n".utf8)) }
        let expected = (0..<200).map { "message \($0)\n" }.joined()
        try client.runUntil { client.received.count == expected.utf8.count }
        #expect(String(decoding: client.received, as: UTF8.self) == expected)
        client.stream.closeAfterFlush()
        try client.runUntil { client.closed != nil }
        #expect(client.closed == .local)
    }

    @Test func `megabytes of shared and copied fragments arrive whole`() throws {
        let server = try EchoServer()
        let client = try Client(port: server.port)
        var expected: [UInt8] = []
        let shared = (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        for index in 0..<300 {
            client.stream.write(shared)
            client.stream.write(shared, 100..<(100 + index))
            client.stream.write(copying: shared.span.extracting(0..<7))
            client.stream.write(copying: shared.span.extracting(7..<(7 + index)))
            expected += shared + shared[100..<(100 + index)] + shared[0..<(7 + index)]
        }
        try client.runUntil { client.received.count == expected.count }
        #expect(client.received == expected)
    }

    @Test func `a peer that drips byte by byte is heard as it drips`() throws {
        let local = try Local()
        let peer = try local.connect()
        let text = Array("drip by drip".utf8)
        for (index, byte) in text.enumerated() {
            peer.send([byte])
            try local.loop.runUntil { local.received.count == index + 1 }
        }
        #expect(local.received == text)
    }

    @Test func `writes of one tick to one socket leave in one segment`() throws {
        let local = try Local()
        let peer = try local.connect()
        for _ in 0..<10 { local.stream?.write(Array("0123456789".utf8)) }
        local.loop.runOnce(timeoutMs: 0)
        #expect(peer.receive()?.count == 100)
        #expect(local.stream?.queuedBytes == 0)
    }

    // MARK: Slow peers

    @Test func `a peer that does not read overflows the limit of bytes, and nothing of the refused write is sent`()
        throws
    {
        let local = try Local(limits: StreamLimits(bytes: 100_000, fragments: 1000))
        let peer = try local.connect()
        let block = [UInt8](repeating: 7, count: 9000)
        let stream = try #require(local.stream)
        var accepted = 0
        while stream.write(block) == .queued {
            accepted += block.count
            local.loop.runOnce(timeoutMs: 0)
        }
        #expect(stream.write(block) == .overflow)
        #expect(stream.isBlocked)
        #expect(stream.queuedBytes <= 100_000)
        // What was accepted arrives, then the queue reports room.
        var arrived = 0
        try local.loop.runUntil {
            arrived += peer.takeAvailable()
            return arrived == accepted && stream.queuedBytes == 0
        }
        try local.loop.runUntil { local.drains == 1 }
        #expect(stream.write(block) == .queued)
    }

    @Test func `a peer that does not read overflows the limit of fragments`() throws {
        let local = try Local(limits: StreamLimits(bytes: 100 << 20, fragments: 50))
        let peer = try local.connect { $0.setReceiveBuffer(4096) }
        let stream = try #require(local.stream)
        let tiny: [UInt8] = [1]
        for _ in 0..<50 { #expect(stream.write(tiny) == .queued) }
        #expect(stream.write(tiny) == .overflow)
        // Copies share a buffer, and so a fragment.
        local.loop.runOnce(timeoutMs: 0)
        for _ in 0..<200 { #expect(stream.write(copying: tiny.span) == .queued) }
        #expect(stream.queuedFragments == 1)
        withExtendedLifetime(peer) {}
    }

    @Test func `one busy socket does not starve another`() throws {
        let local = try Local()
        let flood = try local.connect()
        let floodStream = try #require(local.stream)
        let quiet = try local.connect()
        let block = [UInt8](repeating: 1, count: 1 << 20)
        let writer = Thread.start(name: "flood") {
            for _ in 0..<64 { flood.send(block) }
        }
        quiet.send([9])
        try local.loop.runUntil { local.received.contains(9) }
        let seen = local.received.count
        #expect(seen < 60 << 20)
        floodStream.close()
        writer.join()
    }

    @Test func `a paused stream reads nothing, and everything once it resumes`() throws {
        let local = try Local()
        let peer = try local.connect()
        let stream = try #require(local.stream)
        stream.pauseReading()
        peer.send([1, 2, 3])
        for _ in 0..<5 { local.loop.runOnce(timeoutMs: 5) }
        peer.send([4])
        peer.endSending()
        for _ in 0..<5 { local.loop.runOnce(timeoutMs: 5) }
        #expect(local.received.isEmpty)
        #expect(local.closed.isEmpty)
        stream.resumeReading()
        try local.loop.runUntil { local.ended == 1 }
        #expect(local.received == [1, 2, 3, 4])
    }

    @Test func `a delegate that pauses itself gets the rest when it resumes`() throws {
        let local = try Local()
        let peer = try local.connect()
        let total = 600_000
        local.onReceive = { stream in stream.pauseReading() }
        let writer = Thread.start(name: "writer") {
            peer.send([UInt8](repeating: 5, count: total))
        }
        try local.loop.runUntil {
            local.stream?.resumeReading()
            return local.received.count == total
        }
        writer.join()
        withExtendedLifetime(peer) {}
    }

    // MARK: Ends

    @Test func `a peer that ends its side still gets its answer`() throws {
        let local = try Local()
        let peer = try local.connect()
        local.onEnd = { stream in
            stream.write(Array("answer".utf8))
            stream.closeAfterFlush()
        }
        peer.send(Array("question".utf8))
        peer.endSending()
        try local.loop.runUntil { !local.closed.isEmpty }
        #expect(local.received == Array("question".utf8))
        #expect(peer.receiveToEnd() == Array("answer".utf8))
        #expect(local.closed == [.peer])
    }

    @Test func `last words reach a peer that is still talking`() throws {
        // Closing a socket with unread bytes would reset it, and the peer would lose the answer.
        let local = try Local()
        let peer = try local.connect()
        peer.send([UInt8](repeating: 1, count: 100_000))
        try local.loop.runUntil { !local.received.isEmpty }
        local.stream?.write(Array("too large".utf8))
        local.stream?.closeAfterFlush()
        for _ in 0..<3 { local.loop.runOnce(timeoutMs: 10) }
        peer.send([UInt8](repeating: 2, count: 100_000))
        let atClose = local.received.count
        #expect(local.closed.isEmpty)
        #expect(peer.receive() == Array("too large".utf8))
        #expect(peer.receive() == [])
        peer.endSending()
        try local.loop.runUntil { !local.closed.isEmpty }
        #expect(local.closed == [.local])
        #expect(local.received.count == atClose)
        #expect(local.stream?.write([1]) == .closed)
    }

    @Test func `a reset is a failure with its reason`() throws {
        let local = try Local()
        do {
            let peer = try local.connect()
            peer.resetOnClose()
        }
        try local.loop.runUntil { !local.closed.isEmpty }
        guard case .failed(let error) = local.closed.first else {
            Issue.record("\(local.closed)")
            return
        }
        #expect(error.code == .connectionReset)
        #expect(local.closed.count == 1)
    }

    @Test func `closing inside a callback ends the callbacks, and closed comes once`() throws {
        let local = try Local()
        let peer = try local.connect()
        var calls = 0
        local.onReceive = { [unowned local] stream in
            calls += 1
            stream.close()
            stream.close()
            #expect(!stream.isOpen)
            #expect(local.closed.isEmpty, "told from inside the call")
            #expect(stream.write([1]) == .closed)
        }
        peer.send([UInt8](repeating: 1, count: 500_000))
        try local.loop.runUntil { !local.closed.isEmpty }
        for _ in 0..<5 { local.loop.runOnce(timeoutMs: 1) }
        #expect(calls == 1)
        #expect(local.closed == [.local])
    }

    @Test func `streams that close one another in one tick do it once each`() throws {
        let local = try Local()
        let peers = try (0..<20).map { _ in try local.connect() }
        local.onReceive = { [unowned local] _ in for stream in local.streams { stream.close() } }
        for peer in peers { peer.send([1]) }
        try local.loop.runUntil { local.closed.count == 20 }
        // New ones take the slots and descriptors of the old; no stale event reaches them.
        local.onReceive = nil
        local.received = []
        let fresh = try local.connect()
        fresh.send([42])
        try local.loop.runUntil { local.received == [42] }
        #expect(local.closed.count == 20)
    }

    @Test func `a closed stream lets go of its delegate, and the loop of the stream`() throws {
        let loop = try EventLoop()
        let server = try EchoServer()
        weak var weakDelegate: Silent?
        weak var weakStream: Stream?
        do {
            let delegate = Silent()
            let stream = Stream.connect(host: "127.0.0.1", port: server.port, on: loop, delegate: delegate)
            delegate.stream = stream
            weakDelegate = delegate
            weakStream = stream
        }
        #expect(weakStream != nil)
        try loop.runUntil { weakStream?.isEstablished ?? false }
        weakStream?.close()
        try loop.runUntil { weakStream == nil }
        #expect(weakDelegate == nil)
    }

    private final class Silent: StreamDelegate {
        var stream: Stream?
        func stream(_ stream: Stream, received bytes: Span<UInt8>) {}
        func streamClosed(_ stream: Stream, reason: CloseReason) {}
    }

    @Test func `a peer that takes nothing is cut off when its time to flush is over`() throws {
        let local = try Local()
        let peer = try local.connect { $0.setReceiveBuffer(4096) }
        local.stream?.write([UInt8](repeating: 1, count: 6 << 20))
        local.loop.runOnce(timeoutMs: 0)
        local.stream?.closeAfterFlush(timeoutMs: 50)
        try local.loop.runUntil { !local.closed.isEmpty }
        #expect(local.closed == [.local])
        withExtendedLifetime(peer) {}
    }
}
