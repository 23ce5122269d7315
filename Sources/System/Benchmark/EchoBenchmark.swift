internal import Synchronization

/// What the event loop alone can do, without a protocol on top: the bound that everything above it is held against.
public enum EchoBenchmark {
    public struct Result: Sendable {
        public let count: Int
        public let elapsedNs: UInt64
        /// CPU time of the serving thread alone.
        public let serverCPUNs: UInt64

        public var perSecond: Double { Double(count) * 1e9 / Double(max(1, elapsedNs)) }
        public var perServerCPUSecond: Double { Double(count) * 1e9 / Double(max(1, serverCPUNs)) }
    }

    /// Round trips: each of the connections has one message on its way at any time.
    public static func roundTrips(connections: Int = 100, messageBytes: Int = 200, durationMs: Int = 2000) throws
        -> Result
    {
        try measure(durationMs) {
            EchoSide()
        } client: { loop, port in
            ClientSide(
                loop, port, connections: connections, request: [UInt8](repeating: 0x78, count: messageBytes),
                messageBytes: messageBytes, answerBytes: messageBytes, ahead: 1)
        }
    }

    /// Deliveries: one message, encoded once, is written to every connection, in windows of `window` messages that a
    /// client asks for two ahead.
    public static func deliveries(
        connections: Int = 1000, messageBytes: Int = 300, window: Int = 4, durationMs: Int = 2000
    ) throws -> Result {
        try measure(durationMs) {
            DeliverySide(messageBytes: messageBytes, window: window)
        } client: { loop, port in
            ClientSide(
                loop, port, connections: connections, request: [1], messageBytes: messageBytes,
                answerBytes: messageBytes * window, ahead: 2)
        }
    }

    private static func measure<Server: ServerSide>(
        _ durationMs: Int, server makeServer: @escaping @Sendable () -> Server,
        client makeClient: @escaping @Sendable (EventLoop, Int) -> ClientSide
    ) throws -> Result {
        let port = Handover<Int>()
        let server = try LoopThread.start(name: "bench-server") { (loop) throws(SystemError) in
            let side = makeServer()
            let listener = try Listener(on: loop, host: "127.0.0.1", port: 0) { socket in
                if let stream = try? Stream(socket, on: loop, delegate: side) { side.accepted(stream) }
            }
            port.put(listener.port)
            return (side, listener)
        }
        defer {
            server.stop()
            server.join()
        }
        let bound = port.take()
        let ready = Handover<LoopBound<ClientSide>>()
        let client = try LoopThread.start(name: "bench-client") { loop in
            let side = makeClient(loop, bound)
            side.whenReady = { ready.put(LoopBound(side, on: loop)) }
            return side
        }
        defer {
            client.stop()
            client.join()
        }
        let side = ready.take()
        let clock = SystemClock()
        let before = sample(client, side, server)
        let start = clock.monotonicNs
        _ = Handover<Bool>().take(timeoutMs: durationMs)
        let after = sample(client, side, server)
        return Result(
            count: after.count - before.count, elapsedNs: clock.monotonicNs - start, serverCPUNs: after.cpu - before.cpu
        )
    }

    private static func sample(
        _ client: LoopThread, _ side: LoopBound<ClientSide>, _ server: LoopThread
    ) -> (count: Int, cpu: UInt64) {
        let count = Handover<Int>()
        let cpu = Handover<UInt64>()
        client.remote.execute { loop in count.put(side.value(on: loop).count) }
        server.remote.execute { _ in cpu.put(CurrentProcess.threadCPUNs) }
        return (count.take(), cpu.take())
    }
}

private protocol ServerSide: StreamDelegate, SendableMetatype {
    func accepted(_ stream: Stream)
}

/// The connections of one client loop. Each sends `request` when it is connected and again whenever it has received as
/// much as that asks for.
private final class ClientSide {
    private var connections: [ClientConnection] = []
    private var connected = 0
    private let messageBytes: Int
    fileprivate let request: [UInt8]
    fileprivate let answerBytes: Int
    private let ahead: Int
    fileprivate var received = 0
    var whenReady: (() -> Void)?

    var count: Int { received / messageBytes }

    init(
        _ loop: EventLoop, _ port: Int, connections count: Int, request: [UInt8], messageBytes: Int, answerBytes: Int,
        ahead: Int
    ) {
        self.request = request
        self.messageBytes = messageBytes
        self.answerBytes = answerBytes
        self.ahead = ahead
        for _ in 0..<count {
            let connection = ClientConnection(self)
            connections.append(connection)
            connection.stream = Stream.connect(host: "127.0.0.1", port: port, on: loop, delegate: connection)
        }
    }

    fileprivate func connectionReady() {
        connected += 1
        guard connected == connections.count else { return }
        for connection in connections { for _ in 0..<ahead { connection.stream?.write(request) } }
        whenReady?()
    }
}

private final class ClientConnection: StreamDelegate {
    private unowned let side: ClientSide
    private var partial = 0
    var stream: Stream?

    init(_ side: ClientSide) {
        self.side = side
    }

    func streamConnected(_ stream: Stream) { side.connectionReady() }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        side.received += bytes.count
        partial += bytes.count
        while partial >= side.answerBytes {
            partial -= side.answerBytes
            stream.write(side.request)
        }
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {}
}

private final class EchoSide: ServerSide {
    func accepted(_ stream: Stream) {}
    func stream(_ stream: Stream, received bytes: Span<UInt8>) { stream.write(copying: bytes) }
    func streamClosed(_ stream: Stream, reason: CloseReason) {}
}

private final class DeliverySide: ServerSide {
    private let message: [UInt8]
    private let window: Int

    init(messageBytes: Int, window: Int) {
        self.window = window
        message = [UInt8](repeating: 0x78, count: messageBytes)
    }

    func accepted(_ stream: Stream) {}

    /// Each byte from a client asks for a window of messages.
    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        for _ in 0..<(bytes.count * window) { stream.write(message) }
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {}
}
