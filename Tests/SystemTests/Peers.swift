import Synchronization
import System
import TestSupport
import Testing

/// A server on a thread of its own that sends everything back, and closes when its client does.
final class EchoServer: Sendable {
    let port: Int
    private let thread: LoopThread

    init(tls: TLSContext? = nil) throws {
        let bound = Handover<Int>()
        thread = try LoopThread.start(name: "echo") { loop in
            let echo = Echo()
            let listener = try Listener(on: loop, host: "127.0.0.1", port: 0) { socket in
                _ = try? Stream(socket, on: loop, delegate: echo, tls: tls)
            }
            bound.put(listener.port)
            return listener
        }
        port = bound.take()
    }

    deinit { stop() }

    func stop() {
        thread.stop()
        thread.join()
    }

    func stopAndReturnPort() -> Int {
        stop()
        return port
    }

    private final class Echo: StreamDelegate {
        func stream(_ stream: Stream, received bytes: Span<UInt8>) { stream.write(copying: bytes) }
        func streamClosed(_ stream: Stream, reason: CloseReason) {}
    }
}

/// A loop run by the test itself, with one connected stream.
final class Client: StreamDelegate {
    let loop: EventLoop
    private let ownsLoop: Bool
    private(set) var stream: Stream!
    var received: [UInt8] = []
    var closed: CloseReason?
    var isConnected = false
    var ended = false
    var drains = 0
    var onReceive: ((Stream, Span<UInt8>) -> Void)?

    init(
        on shared: EventLoop? = nil, port: Int, host: String = "127.0.0.1", limits: StreamLimits = StreamLimits(),
        tls: TLSContext? = nil,
        waitForConnection: Bool = true, timeoutMs: Int = 5000
    ) throws {
        loop = try shared ?? EventLoop()
        ownsLoop = shared == nil
        stream = Stream.connect(
            host: host, port: port, on: loop, delegate: Relay(self), limits: limits, timeoutMs: timeoutMs, tls: tls)
        if waitForConnection {
            try runUntil { isConnected || closed != nil }
            try #require(isConnected, "\(String(describing: closed))")
        }
    }

    deinit {
        stream.close()
        if ownsLoop { loop.close() }
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        if let onReceive { return onReceive(stream, bytes) }
        unsafe bytes.withUnsafeBufferPointer { unsafe received.append(contentsOf: $0) }
    }

    func streamConnected(_ stream: Stream) { isConnected = true }
    func streamDrained(_ stream: Stream) { drains += 1 }
    func streamEnded(_ stream: Stream) {
        ended = true
        stream.closeAfterFlush()
    }
    func streamClosed(_ stream: Stream, reason: CloseReason) { closed = reason }

    var failure: SystemError? {
        if case .failed(let error) = closed { return error }
        return nil
    }

    /// A delegate that drops everything.
    final class Sink: StreamDelegate {
        func stream(_ stream: Stream, received bytes: Span<UInt8>) {}
        func streamClosed(_ stream: Stream, reason: CloseReason) {}
    }

    func runUntil(deadlineMs: Int = 20_000, _ condition: () -> Bool) throws {
        try loop.runUntil(deadlineMs: deadlineMs, condition)
    }
}

/// A loop run by the test itself, with a listener whose streams all report here.
final class Local: StreamDelegate {
    let loop: EventLoop
    private(set) var listener: Listener!
    private(set) var streams: [Stream] = []
    var received: [UInt8] = []
    var closed: [CloseReason] = []
    var drains = 0
    var ended = 0
    var onReceive: ((Stream) -> Void)?
    var onEnd: ((Stream) -> Void)?

    init(limits: StreamLimits = StreamLimits(), tls: TLSContext? = nil) throws {
        loop = try EventLoop()
        listener = try Listener(on: loop, host: "127.0.0.1", port: 0) { [unowned self] socket in
            if let stream = try? Stream(socket, on: loop, delegate: Relay(self), limits: limits, tls: tls) {
                streams.append(stream)
            }
        }
    }

    deinit { loop.close() }

    var stream: Stream? { streams.last }
    var port: Int { listener.port }

    /// Connects a peer and waits until its stream is there.
    func connect(_ prepare: (RawPeer) -> Void = { _ in }) throws -> RawPeer {
        let count = streams.count
        let peer = try RawPeer(port: port)
        prepare(peer)
        try loop.runUntil { streams.count > count }
        return peer
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        unsafe bytes.withUnsafeBufferPointer { unsafe received.append(contentsOf: $0) }
        onReceive?(stream)
    }

    func streamDrained(_ stream: Stream) { drains += 1 }

    func streamEnded(_ stream: Stream) {
        ended += 1
        if let onEnd { onEnd(stream) } else { stream.closeAfterFlush() }
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) { closed.append(reason) }
}

/// Stands between a stream, which keeps its delegate, and a test's object, which keeps the stream.
private final class Relay: StreamDelegate {
    private weak var target: (any StreamDelegate)?

    init(_ target: any StreamDelegate) {
        self.target = target
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) { target?.stream(stream, received: bytes) }
    func streamConnected(_ stream: Stream) { target?.streamConnected(stream) }
    func streamEnded(_ stream: Stream) { target?.streamEnded(stream) }
    func streamDrained(_ stream: Stream) { target?.streamDrained(stream) }
    func streamClosed(_ stream: Stream, reason: CloseReason) { target?.streamClosed(stream, reason: reason) }
}

struct DeadlinePassed: Error {}

extension EventLoop {
    /// Runs ticks until the condition holds; the deadline only bounds a test that fails.
    func runUntil(deadlineMs: Int = 20_000, _ condition: () -> Bool) throws {
        let end = SystemClock().monotonicNs + UInt64(deadlineMs) * 1_000_000
        while !condition() {
            guard SystemClock().monotonicNs < end else { throw DeadlinePassed() }
            runOnce(timeoutMs: 100)
        }
    }
}
