import Wire

/// What every device sent, was answered and got, noted as it happened; what holds whatever the members were is checked
/// at once. `ChaosReckoning` judges the rest when the log is known. Pure.
struct ChaosRecord {
    struct Sent {
        let chat: ChatID
        let by: UserID
        /// The highest version of the chat's membership that this device had seen, in an event or in an HTTP answer.
        let seenVersion: Int64
        /// The log has it.
        var isAcknowledged = false
        /// Its place, told by the answer to its only sending: the answer to a repeat may be about the repeat.
        var answeredSeq: Int64?
        var refusal: String?
        /// The refusal may be of a repeat, while the first sending is in the log.
        var wasRepeated = false

        var isSettled: Bool { isAcknowledged || refusal != nil }
    }

    /// One device's messages, each once, by their places.
    struct Device {
        let user: UserID
        var messages: [ChatID: [Int64: MessageID]] = [:]
        fileprivate var lastSeq: [ChatID: Int64] = [:]
    }

    private(set) var sent: [MessageID: Sent] = [:]
    private(set) var devices: [Device] = []
    private(set) var violations: [String] = []
    private(set) var deliveries = 0
    private(set) var repeatsAfterReconnect = 0
    private var unsettled: Set<MessageID> = []

    /// Returns the device's number.
    mutating func add(deviceOf user: UserID) -> Int {
        devices.append(Device(user: user))
        return devices.count - 1
    }

    mutating func send(_ id: MessageID, chat: ChatID, by user: UserID, seenVersion: Int64) {
        sent[id] = Sent(chat: chat, by: user, seenVersion: seenVersion)
        unsettled.insert(id)
    }

    mutating func acknowledge(_ id: MessageID, seq: Int64, wasRepeated: Bool) {
        sent[id]?.isAcknowledged = true
        if !wasRepeated { sent[id]?.answeredSeq = seq }
        unsettled.remove(id)
    }

    mutating func refuse(_ id: MessageID, _ code: String, wasRepeated: Bool) {
        sent[id]?.refusal = code
        sent[id]?.wasRepeated = wasRepeated
        unsettled.remove(id)
    }

    /// - Parameter connectionLastSeq: the highest of this chat that has come on this connection; only across connections
    ///   is a repeat the device's own to drop.
    mutating func receive(_ id: MessageID, chat: ChatID, seq: Int64, by device: Int, connectionLastSeq: Int64?) {
        let user = devices[device].user
        if let last = connectionLastSeq, seq <= last {
            violate("\(user) got seq \(seq) of chat \(chat) after \(last) on one connection")
        }
        let last = devices[device].lastSeq[chat] ?? -1
        let known = devices[device].messages[chat]?[seq]
        if let known, known == id {
            repeatsAfterReconnect += 1
            return
        }
        if let known { violate("\(user) got \(known) and \(id) at seq \(seq) of chat \(chat)") }
        if seq <= last { violate("\(user) got seq \(seq) of chat \(chat) for the first time after \(last)") }
        devices[device].lastSeq[chat] = max(last, seq)
        devices[device].messages[chat, default: [:]][seq] = id
        deliveries += 1
    }

    mutating func violate(_ line: String) {
        if violations.count < 1000 { violations.append(line) }
    }

    var isSettled: Bool { unsettled.isEmpty }
    var acknowledged: Int { sent.values.count(where: \.isAcknowledged) }
    var refused: [String: Int] { Dictionary(sent.values.compactMap(\.refusal).map { ($0, 1) }, uniquingKeysWith: +) }
}
