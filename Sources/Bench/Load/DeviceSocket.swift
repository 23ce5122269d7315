import System
import WebSocket
import Wire

/// A device's WebSocket: says hello once it is open, answers pings, and hands over whole text frames. One connection; who
/// comes back makes another. On the loop's thread only.
final class DeviceSocket: StreamDelegate {
    /// Called once the server has taken the handshake, and `hello` is on its way.
    var onOpen: () -> Void = {}
    var onText: (Span<UInt8>) -> Void = { _ in }
    /// Called once, also when it was closed by `close`.
    var onClose: () -> Void = {}
    private let cursor: String?
    private let handshake: ClientHandshake
    private var replies: HTTPReplyParser? = HTTPReplyParser()
    private var frames = ServerFrames()
    private var stream: Stream?

    /// - Parameter cursor: the place to resume from; without one only what happens from now on comes.
    init(
        to address: SocketAddress, device: DeviceID, token: String, cursor: String?, on loop: EventLoop, timeoutMs: Int,
        using generator: inout some RandomNumberGenerator
    ) {
        self.cursor = cursor
        handshake = ClientHandshake(
            host: "\(address.host):\(address.port)", target: "/v1/ws?device=\(device)", subprotocols: ["fanout.v1"],
            fields: [HTTPResponse.Field("Authorization", "Bearer \(token)")], using: &generator)
        let stream = Stream.connect(to: address, on: loop, delegate: self, timeoutMs: timeoutMs)
        self.stream = stream
        _ = stream.write(handshake.request)
    }

    func send(_ json: [UInt8]) { write(.text, json.span) }

    func close() { stream?.close() }

    private func write(_ opcode: Opcode, _ payload: Span<UInt8>) {
        var frame: [UInt8] = []
        // The mask protects proxies from hostile pages; towards our own server a constant one is as good.
        Frame.append(to: &frame, opcode, payload, mask: 0)
        _ = stream?.write(frame)
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        var offset = 0
        if replies != nil {
            do {
                guard let reply = try replies?.next(bytes, &offset) else { return }
                _ = try handshake.verify(reply)
                replies = nil
            } catch {
                return stream.close()
            }
            var hello = JSONWriter()
            hello.object {
                $0.field("type", "hello")
                if let cursor { $0.field("cursor", cursor) }
            }
            send(hello.bytes)
            onOpen()
        }
        frames.take(bytes.extracting(offset..<bytes.count)) { opcode, payload in
            switch opcode {
            case .text: onText(payload)
            case .ping: write(.pong, payload)
            case .close: stream.close()
            default: break
            }
        }
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {
        self.stream = nil
        onClose()
    }
}
