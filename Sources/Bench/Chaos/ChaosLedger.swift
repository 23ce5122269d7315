import Wire

/// What must be true of every device once the storm is over. Pure.
///
/// Each chat has one driver that sends and changes the membership, one thing after the other, so at each message it is
/// known who must get it and who must not.
struct ChaosLedger {
    struct Sent {
        let chat: ChatID
        let must: Set<UserID>
        /// Members may join while the message is still on its way: they may get it or not.
        var may: Set<UserID> = []
        /// The log has it.
        var isAcknowledged = false
        /// Its place, once told by a delivery or by the answer to its only sending.
        var seq: Int64?
        var refusal: String?
    }

    private(set) var sent: [MessageID: Sent] = [:]
    private var order: [ChatID: [MessageID]] = [:]
    private(set) var received: [UserID: [MessageID: Int]] = [:]
    private var lastSeq: [UserID: [ChatID: Int64]] = [:]
    private(set) var violations: [String] = []
    private(set) var repeatsAfterReconnect = 0
    private(set) var deliveries = 0

    mutating func send(_ id: MessageID, chat: ChatID, members: Set<UserID>) {
        sent[id] = Sent(chat: chat, must: members)
        order[chat, default: []].append(id)
    }

    /// - Parameter wasRepeated: it was sent more than once, so the answer may be about a repeat, which the join drops:
    ///   the message's own event tells its place.
    mutating func acknowledge(_ id: MessageID, seq: Int64, wasRepeated: Bool) {
        sent[id]?.isAcknowledged = true
        if !wasRepeated { place(id, seq) }
    }

    /// Everybody must see a message at one place.
    private mutating func place(_ id: MessageID, _ seq: Int64) {
        if let known = sent[id]?.seq, known != seq { violate("message \(id) is at \(known) and at \(seq)") }
        sent[id]?.seq = seq
    }

    mutating func refuse(_ id: MessageID, _ code: String) { sent[id]?.refusal = code }

    /// Whoever joins now may still get what has just been sent: a stage that was down joins it again later.
    mutating func joins(_ user: UserID, chat: ChatID) {
        for id in (order[chat] ?? []).suffix(8) { sent[id]?.may.insert(user) }
    }

    /// - Parameter isFirstOfConnection: nothing of this chat has come on this connection yet, so a repeat is a device's
    ///   own to drop.
    mutating func receive(_ id: MessageID, chat: ChatID, seq: Int64, by user: UserID, connectionLastSeq: Int64?) {
        guard let message = sent[id] else { return violate("\(user) got a message that nobody sent: \(id)") }
        if message.chat != chat { violate("\(user) got \(id) in another chat") }
        place(id, seq)
        if let last = connectionLastSeq, seq <= last {
            violate("\(user) got seq \(seq) of chat \(chat) after \(last) on one connection")
        }
        let last = lastSeq[user]?[chat] ?? -1
        if received[user]?[id] != nil {
            repeatsAfterReconnect += 1
            return
        }
        if seq <= last { violate("\(user) got seq \(seq) of chat \(chat) for the first time after \(last)") }
        lastSeq[user, default: [:]][chat] = max(last, seq)
        received[user, default: [:]][id] = 1
        deliveries += 1
        if !message.must.contains(user), !message.may.contains(user) {
            violate("\(user) is no member and got \(id) (seq \(seq) of chat \(chat))")
        }
    }

    func has(_ user: UserID, _ id: MessageID) -> Bool { received[user]?[id] != nil }

    /// How many deliveries are still to come.
    var outstanding: Int {
        sent.reduce(0) { total, entry in
            !entry.value.isAcknowledged ? total : total + entry.value.must.filter { !has($0, entry.key) }.count
        }
    }

    mutating func close() {
        for (id, message) in sent {
            guard message.isAcknowledged else {
                if message.refusal == nil { violate("message \(id) was neither acknowledged nor refused") }
                continue
            }
            for user in message.must where !has(user, id) {
                violate("\(user) never got \(id) (seq \(message.seq ?? -1) of chat \(message.chat))")
            }
        }
    }

    var acknowledged: Int { sent.values.filter(\.isAcknowledged).count }
    var refused: [String: Int] { Dictionary(sent.values.compactMap(\.refusal).map { ($0, 1) }, uniquingKeysWith: +) }

    private mutating func violate(_ line: String) {
        if violations.count < 1000 { violations.append(line) }
    }
}
