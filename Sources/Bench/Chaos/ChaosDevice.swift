import System
import Wire

/// A device that comes back: it keeps its cursor, reconnects with growing delays, and sends again what has no answer.
/// Whoever holds it may leave and come back, too.
final class ChaosDevice {
    private static let unansweredMax = 4

    unowned let run: ChaosRun
    let user: UserID
    /// Its number in the record.
    let number: Int
    /// Whether its messages name every version that it has seen, as web/fanout.js does, or only what HTTP answers told, as the
    /// protocol asks for at least.
    private let namesEvents: Bool
    private let device: DeviceID
    private let token: String
    private var socket: DeviceSocket?
    private var cursor: String?
    private var lastSeqs: [ChatID: Int64] = [:]
    private var unanswered: [(id: MessageID, frame: [UInt8])] = []
    private var repeated: Set<MessageID> = []
    /// The highest versions that it has seen of its chats' memberships: in events, and in HTTP answers.
    private var seenVersions: [ChatID: Int64] = [:]
    private var toldVersions: [ChatID: Int64] = [:]
    private var backoffMs = 50
    private(set) var isReady = false
    private(set) var connects = 0
    /// Whether it wants to be connected, and when it last did not.
    private(set) var isHere = true
    private(set) var leftMs: Int64 = 0
    /// Whose presence it follows, and what it was last told of it on this connection.
    private(set) var watches: Set<UserID> = []
    private(set) var told: [UserID: PresenceRecord] = [:]

    init(_ run: ChaosRun, user: UserID, number: Int, token: String) {
        self.run = run
        self.user = user
        self.number = number
        self.token = token
        device = .random(using: &run.generator)
        namesEvents = .random(using: &run.generator)
    }

    func connect() {
        guard isHere, socket == nil else { return }
        lastSeqs = [:]
        told = [:]
        isReady = false
        // A device that has seen nothing begins at the server's place for it, so that what comes before its first event is
        // not lost to a reconnect.
        let socket = DeviceSocket(
            to: run.target, device: device, token: token, cursor: cursor ?? "server", on: run.loop, timeoutMs: 3000,
            using: &run.generator)
        socket.onOpen = { [unowned self] in connects += 1 }
        socket.onText = { [unowned self] in take($0) }
        socket.onClose = { [unowned self] _ in closed() }
        self.socket = socket
    }

    /// Sends, unless so much is without an answer that more would only add to a jam: a slow machine gets a slower storm.
    func send(to chat: ChatID) {
        guard isHere, unanswered.count < Self.unansweredMax else { return }
        let id = MessageID.random(using: &run.generator)
        let version = namesEvents ? seenVersion(of: chat) : toldVersions[chat] ?? 0
        var json = JSONWriter()
        json.object {
            $0.field("type", "send")
            $0.field("id", id)
            $0.field("chat", chat)
            $0.field("text", "chaos")
            if version > 0 { $0.field("meta_version", version) }
        }
        run.record.send(id, chat: chat, by: user, seenVersion: seenVersion(of: chat))
        unanswered.append((id, json.bytes))
        if isReady { socket?.send(json.bytes) }
    }

    /// An HTTP answer has told a version.
    func learn(_ version: Int64, of chat: ChatID) { toldVersions[chat] = max(version, toldVersions[chat] ?? 0) }

    private func seenVersion(of chat: ChatID) -> Int64 { max(seenVersions[chat] ?? 0, toldVersions[chat] ?? 0) }

    /// As a network does that goes away.
    func cut() { socket?.close() }

    func leave() {
        isHere = false
        isReady = false
        leftMs = run.loop.nowMs
        socket?.close()
    }

    func comeBack() {
        isHere = true
        connect()
    }

    private func closed() {
        socket = nil
        isReady = false
        guard isHere else { return }
        let delay = Int.random(in: backoffMs / 2...backoffMs, using: &run.generator)
        backoffMs = min(backoffMs * 2, 1000)
        run.loop.schedule(afterMs: delay) { [weak self] in self?.connect() }
    }

    // MARK: Presence

    func watch(_ user: UserID) {
        if watches.insert(user).inserted, isReady { ask("watch", user) }
    }

    func unwatch(_ user: UserID) {
        guard watches.remove(user) != nil, isReady else { return }
        told[user] = nil
        ask("unwatch", user)
    }

    private func ask(_ type: String, _ user: UserID) {
        var json = JSONWriter()
        json.object {
            $0.field("type", type)
            $0.field("user", user)
        }
        socket?.send(json.bytes)
    }

    // MARK: Receiving

    private enum Field: String, CaseIterable {
        case type, id, chat, seq, cursor, code, reset, user, change
        case status
        case retryAfter = "retry_after_ms"
        case lastSeen = "last_seen"
        case metaVersion = "meta_version"
    }
    private static let fields = JSONFields<Field>()

    private func take(_ payload: Span<UInt8>) {
        var (type, code, change) = ("", "", "")
        var (id, chat, seq) = (MessageID?.none, ChatID?.none, Int64?.none)
        var (subject, version) = (UserID?.none, Int64?.none)
        var cursor: String?
        var retryAfterMs: Int64?
        var (status, lastSeen) = (PresenceRecord.Status?.none, Int64?.none)
        var isReset = false
        do throws(JSONError) {
            var reader = JSONReader(payload)
            try reader.beginObject()
            while let name = try reader.nextField() {
                switch Self.fields.find(name, in: payload) {
                case .type: type = try reader.readText()
                case .code: code = try reader.readText()
                case .change: change = try reader.readText()
                case .user: subject = try reader.readID()
                case .status: status = PresenceRecord.Status(rawValue: try reader.readText())
                case .lastSeen: lastSeen = try reader.readInt()
                case .metaVersion: version = try reader.readInt()
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
            run.record.receive(id, chat: chat, seq: seq, by: number, connectionLastSeq: lastSeqs[chat])
            lastSeqs[chat] = max(seq, lastSeqs[chat] ?? -1)
        case "member":
            guard let chat, let subject, let version else {
                return run.violate("\(user) got a member event without chat, user or version")
            }
            seenVersions[chat] = max(version, seenVersions[chat] ?? 0)
            run.sawChange(self, of: chat, isOut: subject == user && change == "removed")
        case "members_changed":
            guard let chat, let version else {
                return run.violate("\(user) got a members_changed event without chat or version")
            }
            seenVersions[chat] = max(version, seenVersions[chat] ?? 0)
        case "caught_up":
            isReady = true
            backoffMs = 50
            // A storm is shorter than what the log keeps for those who were away.
            if isReset { run.violate("\(user) lost its place") }
            for entry in unanswered {
                repeated.insert(entry.id)
                socket?.send(entry.frame)
            }
            for user in watches { ask("watch", user) }
            run.deviceReady(self)
        case "presence":
            guard let subject, let status, let lastSeen else {
                return run.violate("\(user) got a presence frame without user, status or last_seen")
            }
            // What was on its way when it ceased to watch may still come.
            if watches.contains(subject) {
                told[subject] = PresenceRecord(user: subject, status: status, lastSeen: lastSeen)
            }
        case "sent":
            guard let id, let seq else { return run.violate("\(user) got a sent without id or seq") }
            unanswered.removeAll { $0.id == id }
            run.record.acknowledge(id, seq: seq, wasRepeated: repeated.contains(id))
        case "error":
            guard let id, let entry = unanswered.first(where: { $0.id == id }) else { return }
            if let retryAfterMs {
                run.loop.schedule(afterMs: Int(retryAfterMs)) { [weak self] in
                    guard let self, isReady, unanswered.contains(where: { $0.id == id }) else { return }
                    repeated.insert(id)
                    socket?.send(entry.frame)
                }
            } else {
                unanswered.removeAll { $0.id == id }
                run.record.refuse(id, code, wasRepeated: repeated.contains(id))
                if code != "not_member" { run.violate("\(user) was refused: \(code)") }
            }
        default: break
        }
    }
}
