import System
import WebSocket
import Wire

/// A device's WebSocket: says hello once it is open, answers pings, and hands over whole text frames. One connection; who
/// comes back makes another. On the loop's thread only.
final class DeviceSocket: StreamDelegate {
    /// Called once the server has taken the handshake, and `hello` is on its way.
    var onOpen: () -> Void = {}
    var onText: (Span<UInt8>) -> Void = { _ in }
    /// Called once; without a reason when it was closed by `close`.
    var onClose: (_ reason: String?) -> Void = { _ in }
    private let cursor: String?
    private var handshake: ClientHandshake?
    private var replies: HTTPReplyParser? = HTTPReplyParser()
    private var frames = ServerFrames()
    private var stream: Stream?
    /// What ended it, where the stream would only say that it was closed here.
    private var failure: String?

    /// - Parameters:
    ///   - source: the address that it comes from.
    ///   - cursor: the place to resume from; without one only what happens from now on comes.
    init(
        to address: SocketAddress, from source: SocketAddress? = nil, device: DeviceID, token: String, cursor: String?,
        on loop: EventLoop, timeoutMs: Int, using generator: inout some RandomNumberGenerator
    ) {
        self.cursor = cursor
        let handshake = ClientHandshake(
            host: "\(address.host):\(address.port)", target: "/v1/ws?device=\(device)", subprotocols: ["fanout.v1"],
            fields: [HTTPResponse.Field("Authorization", "Bearer \(token)")], using: &generator)
        self.handshake = handshake
        let stream = Stream.connect(to: address, from: source, on: loop, delegate: self, timeoutMs: timeoutMs)
        self.stream = stream
        _ = stream.write(handshake.request)
    }

    func send(_ json: [UInt8]) { write(.text, json.span) }

    func close() { stream?.close() }

    private func write(_ opcode: Opcode, _ payload: Span<UInt8>) {
        var frame: [UInt8] = []
        frame.reserveCapacity(payload.count + 14)
        // The mask protects proxies from hostile pages; towards our own server a constant one is as good and free.
        Frame.append(to: &frame, opcode, payload, mask: 0)
        _ = stream?.write(frame)
    }

    private func end(_ reason: String) {
        failure = reason
        stream?.close()
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        var offset = 0
        if replies != nil {
            do {
                guard let reply = try replies?.next(bytes, &offset) else { return }
                _ = try handshake?.verify(reply)
            } catch {
                return end("handshake: \(error)")
            }
            (replies, handshake) = (nil, nil)
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
            case .close:
                let code = payload.count >= 2 ? Int(payload[0]) << 8 | Int(payload[1]) : 1005
                end("the server closed with \(code)")
            default: break
            }
        }
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {
        self.stream = nil
        onClose(failure ?? (reason == .local ? nil : "closed: \(reason)"))
    }
}
