import System
import WebSocket
import Wire

/// A device that comes back: it keeps its cursor, reconnects with growing delays, and sends again what has no answer.
final class ChaosDevice: StreamDelegate {
    unowned let run: ChaosRun
    let user: UserID
    private let device = DeviceID.random()
    private let token: String
    private var stream: Stream?
    private var handshake: ClientHandshake?
    private var replies: HTTPReplyParser?
    private var frames = ServerFrames()
    private var cursor: String?
    private var lastSeqs: [ChatID: Int64] = [:]
    private var unanswered: [(id: MessageID, frame: [UInt8])] = []
    private var repeated: Set<MessageID> = []
    private var backoffMs = 50
    private var isReady = false
    private(set) var connects = 0
    private(set) var resets = 0
    var isActive = true

    init(_ run: ChaosRun, user: UserID, token: String) {
        self.run = run
        self.user = user
        self.token = token
    }

    func connect() {
        guard isActive, stream == nil else { return }
        var random = SystemRandomNumberGenerator()
        let address = run.target
        let handshake = ClientHandshake(
            host: "\(address.host):\(address.port)", target: "/v1/ws?device=\(device)", subprotocols: ["fanout.v1"],
            fields: [HTTPResponse.Field("Authorization", "Bearer \(token)")], using: &random)
        self.handshake = handshake
        replies = HTTPReplyParser()
        frames = ServerFrames()
        lastSeqs = [:]
        isReady = false
        let stream = Stream.connect(to: address, on: run.loop, delegate: self, timeoutMs: 3000)
        self.stream = stream
        _ = stream.write(handshake.request)
    }

    func send(_ id: MessageID, _ json: [UInt8]) {
        unanswered.append((id, json))
        if isReady { write(json) }
    }

    /// As a network does that goes away.
    func cut() { stream?.close() }

    func stop() {
        isActive = false
        stream?.close()
    }

    private func write(_ json: [UInt8]) {
        var frame: [UInt8] = []
        Frame.append(to: &frame, .text, json.span, mask: 0)
        _ = stream?.write(frame)
    }

    // MARK: Receiving

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        var offset = 0
        if replies != nil {
            do {
                guard let reply = try replies?.next(bytes, &offset) else { return }
                _ = try handshake?.verify(reply)
                replies = nil
            } catch {
                return stream.close()
            }
            connects += 1
            // A device that has seen nothing begins at the server's place for it, so that what comes before its first
            // event is not lost to a reconnect.
            write(Array(#"{"type":"hello","cursor":"\#(cursor ?? "server")"}"#.utf8))
        }
        frames.take(bytes.extracting(offset..<bytes.count)) { opcode, payload in
            switch opcode {
            case .text: take(payload)
            case .ping:
                var pong: [UInt8] = []
                Frame.append(to: &pong, .pong, payload, mask: 0)
                _ = stream.write(pong)
            case .close: stream.close()
            default: break
            }
        }
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {
        self.stream = nil
        isReady = false
        guard isActive else { return }
        let delay = Int.random(in: backoffMs / 2...backoffMs)
        backoffMs = min(backoffMs * 2, 1000)
        run.loop.schedule(afterMs: delay) { [weak self] in self?.connect() }
    }

    private enum Field: String, CaseIterable {
        case type, id, chat, seq, cursor, code, reset
        case retryAfter = "retry_after_ms"
    }
    private static let fields = JSONFields<Field>()

    private func take(_ payload: Span<UInt8>) {
        var (type, code) = ("", "")
        var (id, chat, seq) = (MessageID?.none, ChatID?.none, Int64?.none)
        var cursor: String?
        var retryAfterMs: Int64?
        var isReset = false
        do throws(JSONError) {
            var reader = JSONReader(payload)
            try reader.beginObject()
            while let name = try reader.nextField() {
                switch Self.fields.find(name, in: payload) {
                case .type: type = try reader.readText()
                case .code: code = try reader.readText()
                case .id: id = try reader.readID()
                case .chat: chat = try reader.readID()
                case .seq: seq = try reader.readInt()
                case .cursor: cursor = try reader.readText()
                case .reset: isReset = try reader.readBool()
                case .retryAfter: retryAfterMs = try reader.readInt()
                case nil: try reader.skipValue()
                }
            }
        } catch {
            return run.violate("\(user) got a frame that is no JSON: \(error)")
        }
        if let cursor { self.cursor = cursor }
        switch type {
        case "message":
            guard let id, let chat, let seq else { return run.violate("\(user) got a message without id, chat or seq") }
            run.received(id, chat: chat, seq: seq, by: user, connectionLastSeq: lastSeqs[chat])
            lastSeqs[chat] = max(seq, lastSeqs[chat] ?? -1)
        case "caught_up":
            isReady = true
            backoffMs = 50
            if isReset { resets += 1 }
            for entry in unanswered {
                repeated.insert(entry.id)
                write(entry.frame)
            }
            run.deviceReady(self)
        case "sent":
            guard let id, let seq else { return run.violate("\(user) got a sent without id or seq") }
            unanswered.removeAll { $0.id == id }
            run.sent(id, seq: seq, wasRepeated: repeated.contains(id))
        case "error":
            guard let id, let entry = unanswered.first(where: { $0.id == id }) else { return }
            if let retryAfterMs {
                run.loop.schedule(afterMs: Int(retryAfterMs)) { [weak self] in
                    guard let self, isReady, unanswered.contains(where: { $0.id == id }) else { return }
                    repeated.insert(id)
                    write(entry.frame)
                }
            } else {
                unanswered.removeAll { $0.id == id }
                run.refused(id, code)
            }
        default: break
        }
    }
}
