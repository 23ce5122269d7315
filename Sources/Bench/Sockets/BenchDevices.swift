import PushLink
import System
import WebSocket
import Wire

/// Many devices on one loop, as cheap as they can be: they count bytes and look no further, once they are in.
final class BenchDevices {
    let loop: EventLoop
    private let target: ServerUnderTest
    private let address: SocketAddress
    private var devices: [BenchDevice] = []
    fileprivate var live = 0
    fileprivate var failed = 0
    fileprivate var receivedBytes = 0
    private let helloFrame: [UInt8]
    private let tokens: TokenSource

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    init(_ loop: EventLoop, _ target: ServerUnderTest, _ tokens: @escaping TokenSource) {
        self.loop = loop
        self.target = target
        self.tokens = tokens
        guard let address = SocketAddress.numeric(host: "127.0.0.1", port: target.port) else {
            preconditionFailure("loopback has no address")
        }
        self.address = address
        var hello: [UInt8] = []
        Frame.append(to: &hello, .text, Array(#"{"type":"hello"}"#.utf8).span, mask: 0)
        helloFrame = hello
    }

    func run(_ what: String, seconds: UInt64 = 60, until condition: () -> Bool) throws(Failure) {
        let end = loop.monotonicNs + seconds * 1_000_000_000
        while !condition() {
            loop.runOnce(timeoutMs: 50)
            guard loop.monotonicNs < end else { throw Failure(description: "it took too long: \(what)") }
        }
    }

    /// The port is there before the server has read who may come in, so the first devices try until one is in.
    func waitUntilServing() throws(Failure) {
        var nextTry: UInt64 = 0
        try run("the server serves") {
            if live == 0, loop.monotonicNs > nextTry {
                nextTry = loop.monotonicNs + 200_000_000
                devices.append(BenchDevice(self, source: address.source(devices.count)))
                devices[devices.count - 1].connect(to: address, token: tokens(.random(), ""), hello: nil)
            }
            return live > 0
        }
        closeAll()
        failed = 0
    }

    /// Connects until `count` devices are in; at most `under` are on their way at once.
    func connect(count: Int, under: Int) throws(Failure) {
        try run("\(count) devices connect") {
            while devices.count < count, devices.count - live < under {
                let device = BenchDevice(self, source: address.source(devices.count))
                devices.append(device)
                device.connect(to: address, token: tokens(device.user, ""), hello: helloFrame)
            }
            return live >= count || failed > 0
        }
        if failed > 0 { throw Failure(description: "a device was refused: is the descriptor limit high enough?") }
    }

    func closeAll() {
        for device in devices { device.close() }
        devices = []
        live = 0
    }

    /// Pushes events to the first devices for a while, as many under way as the link acknowledges.
    func fanOut(
        _ event: [UInt8], through worker: BenchWorker, to recipients: Int, durationMs: Int
    ) throws(Failure) -> (deliveries: Int, seconds: Double) {
        let numbers = worker.sessions(of: Set(devices.prefix(recipients).map(\.user)))
        guard numbers.count == min(recipients, devices.count) else {
            throw Failure(description: "only \(numbers.count) sessions were registered")
        }
        let frameBytes = Frame.encode(.text, event).count
        let start = loop.monotonicNs
        let end = start + UInt64(durationMs) * 1_000_000
        receivedBytes = 0
        var pushed = 0
        try run("the fan-out", seconds: UInt64(durationMs / 1000) + 60) {
            if loop.monotonicNs < end {
                while worker.inFlight < 64 {
                    worker.push(event, to: numbers)
                    pushed += 1
                }
                worker.flush()
                return false
            }
            return receivedBytes >= pushed * numbers.count * frameBytes || failed > 0
        }
        if failed > 0 { throw Failure(description: "\(failed) devices were cut off") }
        return (pushed * numbers.count, Double(loop.monotonicNs - start) / 1e9)
    }
}

/// One device: a handshake, a hello, and then whatever comes is counted.
private final class BenchDevice: StreamDelegate {
    let user = UserID.random()
    private unowned let all: BenchDevices
    private let source: SocketAddress?
    private var stream: Stream?
    private var handshake: ClientHandshake?
    private var hello: [UInt8]?
    private var isLive = false
    private var isOpen = false

    init(_ all: BenchDevices, source: SocketAddress?) { (self.all, self.source) = (all, source) }

    func connect(to address: SocketAddress, token: String, hello: [UInt8]?) {
        var random = SystemRandomNumberGenerator()
        let handshake = ClientHandshake(
            host: "bench", target: "/v1/ws?device=\(DeviceID.random())",
            fields: [.init("Authorization", "Bearer \(token)")], using: &random)
        self.handshake = handshake
        self.hello = hello
        let stream = Stream.connect(to: address, from: source, on: all.loop, delegate: self)
        self.stream = stream
        stream.write(handshake.request)
    }

    func close() {
        isLive = false
        handshake = nil
        stream?.close()
        stream = nil
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        if isLive {
            // A ping of an idle server: two bytes, answered so that the session lives.
            if bytes.count == 2, bytes[0] == 0x89 {
                stream.write([0x8a, 0x80, 0, 0, 0, 0])
            } else {
                all.receivedBytes += bytes.count
            }
            return
        }
        if let handshake {
            var parser = HTTPReplyParser()
            var offset = 0
            do {
                guard let reply = try parser.next(bytes, &offset) else { throw HTTPError(.badHandshake) }
                _ = try handshake.verify(reply)
            } catch {
                if hello != nil { all.failed += 1 }
                return close()
            }
            self.handshake = nil
            if let hello { stream.write(hello) } else { return becomeLive() }
        }
        // `hello` and `caught_up` are short: the second ends what comes before events.
        let text = String(showing: bytes)
        if text.contains(#""caught_up""#) { becomeLive() }
    }

    private func becomeLive() {
        isLive = true
        all.live += 1
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {
        if self.stream != nil, hello != nil { all.failed += 1 }
        self.stream = nil
    }
}
