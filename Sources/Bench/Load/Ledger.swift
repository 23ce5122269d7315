import Runtime
import Wire

/// The books of one run: what was sent, what was acknowledged, what every device got, and what that says about loss,
/// repeats and order. Messages have numbers; a message's number is the low half of its id, so a delivery says which
/// message it is without a look-up by text.
struct Ledger {
    /// The high half of every message's id in this run, so that another run's messages are told apart.
    let runID: UInt64
    private(set) var scheduledNs: [UInt64] = []
    private var chatOf: [Int32] = []
    private var acknowledged: [Bool] = []
    /// How many of a message's deliveries are still to come.
    private var missing: [Int32] = []
    private let membersPerChat: Int
    /// Messages that the log has, by chat: what each of the chat's devices must get.
    private(set) var acknowledgedByChat: [Int]
    private(set) var refused = 0

    private(set) var delivered = 0
    private(set) var repeats = 0
    private(set) var outOfOrder = 0
    private(set) var strangers = 0
    let endToEnd = Histogram()
    let acknowledgement = Histogram()
    /// Deliveries before this number of the run are warm-up.
    var measuredFrom = Int.max

    init(runID: UInt64, chats: Int, membersPerChat: Int) {
        self.runID = runID
        self.membersPerChat = membersPerChat
        acknowledgedByChat = Array(repeating: 0, count: chats)
    }

    var sent: Int { scheduledNs.count }
    var acknowledgedTotal: Int { acknowledgedByChat.reduce(0, +) }

    /// Books a message; its number makes its id.
    mutating func send(chat: Int, scheduledNs: UInt64) -> MessageID {
        self.scheduledNs.append(scheduledNs)
        chatOf.append(Int32(chat))
        acknowledged.append(false)
        missing.append(Int32(membersPerChat))
        return MessageID(UUID(high: runID, low: UInt64(sent - 1)))
    }

    /// The number of a message of this run.
    func number(of id: MessageID) -> Int? {
        guard id.uuid.high == runID, id.uuid.low < UInt64(sent) else { return nil }
        return Int(id.uuid.low)
    }

    func chat(of number: Int) -> Int { Int(chatOf[number]) }

    /// Every device of its chat has it, and its sender knows that the log has it.
    func isDone(_ number: Int) -> Bool { missing[number] == 0 && acknowledged[number] }

    mutating func acknowledge(_ number: Int, nowNs: UInt64) {
        guard !acknowledged[number] else { return }
        acknowledged[number] = true
        acknowledgedByChat[Int(chatOf[number])] += 1
        if number >= measuredFrom { acknowledgement.record(ns: nowNs &- min(nowNs, scheduledNs[number])) }
    }

    mutating func refuse() { refused += 1 }

    /// A device got a message of its chat at `seq`, after having had `lastSeq`. Returns its new last seq.
    mutating func deliver(_ id: MessageID, seq: Int64, after lastSeq: Int64, nowNs: UInt64) -> Int64 {
        guard let number = number(of: id) else {
            strangers += 1
            return max(seq, lastSeq)
        }
        if seq == lastSeq {
            repeats += 1
        } else if seq < lastSeq {
            outOfOrder += 1
        } else {
            delivered += 1
            missing[number] -= 1
            if number >= measuredFrom { endToEnd.record(ns: nowNs &- min(nowNs, scheduledNs[number])) }
        }
        return max(seq, lastSeq)
    }

    /// What must have arrived once everything has.
    var expected: Int { acknowledgedTotal * membersPerChat }
}
