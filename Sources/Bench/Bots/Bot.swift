import HTTPClient
import System
import Wire

/// One demo person at a device: a WebSocket, and an HTTP call for the list of conversations. On the loop's thread only.
final class Bot {
    private unowned let traffic: DemoTraffic
    private let device: DeviceID
    private var mind: BotMind
    private var socket: DeviceSocket?
    private var timer: Timer?
    private var cursor: String?
    /// Whether what was missed has come: only what is live is answered.
    private var isLive = false

    init(_ traffic: DemoTraffic, user: UserID, others: Set<UserID>, seed: UInt64) {
        self.traffic = traffic
        mind = BotMind(user: user, others: others, seed: seed)
        var generator = SplitMix(seed: ~seed)
        device = .random(using: &generator)
    }

    func connect() {
        guard let token = traffic.token(of: mind.user) else { return retry() }
        var generator = SystemRandomNumberGenerator()
        let socket = DeviceSocket(
            to: traffic.target, device: device, token: token, cursor: cursor, on: traffic.loop, timeoutMs: 5000,
            using: &generator)
        socket.onText = { [unowned self] in take($0) }
        socket.onClose = { [unowned self] _ in closed() }
        self.socket = socket
    }

    private func closed() {
        socket = nil
        isLive = false
        timer?.cancel()
        mind.forget()
        retry()
    }

    private func retry() {
        traffic.loop.schedule(afterMs: .random(in: 500...3000)) { [weak self] in self?.connect() }
    }

    // MARK: Listening

    private enum Field: String, CaseIterable { case type, chat, from, seq, cursor, kind }
    private static let fields = JSONFields<Field>()

    private func take(_ payload: Span<UInt8>) {
        var (type, kind) = ("", "")
        var (chat, from, seq) = (ChatID?.none, UserID?.none, Int64?.none)
        do throws(JSONError) {
            var reader = JSONReader(payload)
            try reader.beginObject()
            while let name = try reader.nextField() {
                switch Self.fields.find(name, in: payload) {
                case .type: type = try reader.readText()
                case .kind: kind = try reader.readText()
                case .chat: chat = try reader.readID()
                case .from: from = try reader.readID()
                case .seq: seq = try reader.readInt()
                case .cursor: cursor = try reader.readText()
                case nil: try reader.skipValue()
                }
            }
        } catch {
            return socket?.close() ?? ()
        }
        switch type {
        case "caught_up":
            isLive = true
            askForChats()
        case "member", "members_changed": askForChats()
        case "message":
            guard isLive, kind == "text", let chat, let from, let seq else { return }
            mind.heard(chat, from: from, seq: seq, nowMs: nowMs)
            act()
        default: break
        }
    }

    private func askForChats() {
        traffic.chats(of: mind.user) { [weak self] chats in
            guard let self, isLive else { return }
            mind.chats = chats
            act()
        }
    }

    // MARK: Acting

    private var nowMs: Int64 { Int64(traffic.loop.monotonicMs) }

    /// Does what is due, and comes back for the rest.
    private func act() {
        guard isLive else { return }
        while let action = mind.next(nowMs: nowMs) { socket?.send(Self.frame(action)) }
        mind.idle(nowMs: nowMs)
        timer?.cancel()
        guard let due = mind.dueMs else { return }
        timer = traffic.loop.schedule(afterMs: Int(max(0, due - nowMs))) { [weak self] in self?.act() }
    }

    private static func frame(_ action: BotMind.Action) -> [UInt8] {
        var json = JSONWriter()
        json.object { json in
            switch action {
            case .delivered(let chat, let seq): mark("delivered", chat, seq, &json)
            case .read(let chat, let seq): mark("read", chat, seq, &json)
            case .typing(let chat):
                json.field("type", "typing")
                json.field("chat", chat)
            case .send(let chat, let text):
                json.field("type", "send")
                json.field("id", MessageID.random())
                json.field("chat", chat)
                json.field("text", text)
            }
        }
        return json.bytes
    }

    private static func mark(_ kind: String, _ chat: ChatID, _ seq: Int64, _ json: inout JSONWriter) {
        json.field("type", kind)
        json.field("chat", chat)
        json.field("seq", seq)
    }
}
