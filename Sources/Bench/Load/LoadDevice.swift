import System
import WebSocket
import Wire

/// One device: a WebSocket that says hello, maybe sends, and books what it gets. On the generator's loop only.
final class LoadDevice: StreamDelegate {
    unowned let generator: LoadGenerator
    let user: UserID
    let chat: Int
    private var handshake: ClientHandshake?
    private var replies: HTTPReplyParser? = HTTPReplyParser()
    private var frames = ServerFrames()
    private(set) var stream: Stream?
    private(set) var isCaughtUp = false
    private(set) var received = 0
    private var lastSeq: Int64 = -1
    private(set) var failure: String?

    init(_ generator: LoadGenerator, user: UserID, chat: Int) {
        self.generator = generator
        self.user = user
        self.chat = chat
    }

    func connect(to address: SocketAddress, token: String, device: DeviceID) {
        var random = SystemRandomNumberGenerator()
        let handshake = ClientHandshake(
            host: "\(address.host):\(address.port)", target: "/v1/ws?device=\(device)", subprotocols: ["fanout.v1"],
            fields: [HTTPResponse.Field("Authorization", "Bearer \(token)")], using: &random)
        self.handshake = handshake
        let stream = Stream.connect(to: address, on: generator.loop, delegate: self, timeoutMs: 20_000)
        self.stream = stream
        _ = stream.write(handshake.request)
    }

    func send(_ json: [UInt8]) {
        var frame: [UInt8] = []
        frame.reserveCapacity(json.count + 14)
        // The mask protects proxies from hostile pages; towards our own server a constant one is as good and free.
        Frame.append(to: &frame, .text, json.span, mask: 0)
        _ = stream?.write(frame)
    }

    func close() { stream?.close() }

    // MARK: Receiving

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        var offset = 0
        if replies != nil {
            guard finishHandshake(bytes, &offset) else { return }
        }
        frames.take(bytes.extracting(offset..<bytes.count)) { opcode, payload in take(opcode, payload) }
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {
        self.stream = nil
        if failure == nil, reason != .local { failure = "closed: \(reason)" }
        generator.deviceClosed(self)
    }

    private func finishHandshake(_ bytes: Span<UInt8>, _ offset: inout Int) -> Bool {
        do {
            guard let reply = try replies?.next(bytes, &offset) else { return false }
            _ = try handshake?.verify(reply)
            replies = nil
            handshake = nil
            send(Array(#"{"type":"hello"}"#.utf8))
            return true
        } catch {
            failure = "handshake: \(error)"
            stream?.close()
            return false
        }
    }

    private func take(_ opcode: Opcode?, _ payload: Span<UInt8>) {
        switch opcode {
        case .text:
            if let (seq, id) = EventFrame.message(payload) {
                received += 1
                lastSeq = generator.delivered(id, seq: seq, after: lastSeq)
            } else {
                takeAnswer(payload)
            }
        case .ping:
            var pong: [UInt8] = []
            Frame.append(to: &pong, .pong, payload, mask: 0)
            _ = stream?.write(pong)
        case .close:
            let code = payload.count >= 2 ? Int(payload[0]) << 8 | Int(payload[1]) : 1005
            failure = "the server closed with \(code)"
            stream?.close()
        default: break
        }
    }

    private func takeAnswer(_ payload: Span<UInt8>) {
        guard let answer = try? EventFrame.answer(payload) else {
            failure = "unreadable frame: \(String(showing: payload))"
            stream?.close()
            return
        }
        switch answer {
        case .caughtUp:
            isCaughtUp = true
            generator.deviceReady()
        case .sent(let id): generator.acknowledged(id)
        case .refused(let id, let code, let retryAfterMs): generator.refused(id, code: code, retryAfterMs: retryAfterMs)
        case .hello, .other: break
        }
    }
}
