import System
import Wire

/// One device: a WebSocket that says hello, maybe sends, and books what it gets. On the generator's loop only.
final class LoadDevice {
    unowned let generator: LoadGenerator
    let user: UserID
    let chat: Int
    private var socket: DeviceSocket?
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
        let socket = DeviceSocket(
            to: address, device: device, token: token, cursor: nil, on: generator.loop, timeoutMs: 20_000,
            using: &random)
        socket.onText = { [unowned self] in take($0) }
        socket.onClose = { [unowned self] reason in
            self.socket = nil
            failure = failure ?? reason
            generator.deviceClosed(self)
        }
        self.socket = socket
    }

    func send(_ json: [UInt8]) { socket?.send(json) }

    func close() { socket?.close() }

    private func take(_ payload: Span<UInt8>) {
        if let (seq, id) = EventFrame.message(payload) {
            received += 1
            lastSeq = generator.delivered(id, seq: seq, after: lastSeq)
        } else {
            takeAnswer(payload)
        }
    }

    private func takeAnswer(_ payload: Span<UInt8>) {
        guard let answer = try? EventFrame.answer(payload) else {
            failure = "unreadable frame: \(String(showing: payload))"
            return close()
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
