import Wire

/// Holds what the devices got against the log. Pure.
///
/// A message must have reached every device of all members as of *one* state of its chat's membership, and nobody else. Which
/// state is the join's choice within two bounds: not older than what the sender had seen (causal membership), and not older
/// than the state of the chat's message before. So the reckoning walks each chat's messages in order and looks for the
/// oldest allowed state whose members are exactly those who got the message. The oldest leaves most room for the messages
/// behind it, so when it finds none, no choice of the join could have been right. This says exactly that each member has
/// every message from their join to their removal, once, and nobody has one outside of it.
struct ChaosReckoning {
    private(set) var violations: [String] = []
    /// Messages whose sender knew of a change that decides who gets them: an older state would be noticed.
    private(set) var causalSends = 0

    private let record: ChaosRecord
    private let log: ChaosLog
    private var receivers: [MessageID: [UserID: Int]] = [:]
    private let devicesOfUser: [UserID: Int]

    init(_ record: ChaosRecord, _ log: ChaosLog) {
        self.record = record
        self.log = log
        devicesOfUser = Dictionary(record.devices.map { ($0.user, 1) }, uniquingKeysWith: +)
        violations = record.violations
        collectReceipts()
        for (chat, messages) in log.accepted { check(chat, messages) }
        checkAnswers()
    }

    /// Every message that a device has is in the log, at the place where the device has it.
    private mutating func collectReceipts() {
        var places: [MessageID: (chat: ChatID, seq: Int64)] = [:]
        for (chat, messages) in log.accepted {
            for message in messages {
                if places.updateValue((chat, message.seq), forKey: message.id) != nil {
                    violate("\(message.id) is in the log twice")
                }
            }
        }
        for device in record.devices {
            for (chat, messages) in device.messages {
                for (seq, id) in messages {
                    if let place = places[id], place == (chat, seq) {
                        receivers[id, default: [:]][device.user, default: 0] += 1
                    } else {
                        violate("\(device.user) got \(id) at seq \(seq) of chat \(chat), where the log has it not")
                    }
                }
            }
        }
    }

    private mutating func check(_ chat: ChatID, _ messages: [ChaosLog.Accepted]) {
        guard let history = log.memberships[chat], history.problem == nil else {
            let problem = log.memberships[chat]?.problem ?? "the log has no members of it"
            return violate("chat \(chat) cannot be checked: \(problem)")
        }
        let states = history.states
        // The state of the message before.
        var current = 0
        for message in messages {
            guard let sent = record.sent[message.id], sent.chat == chat, sent.by == message.from else {
                violate("chat \(chat) has \(message.id) of \(message.from), which they did not send there")
                continue
            }
            let seen = max(sent.seenVersion, message.seenVersion)
            guard let first = states[current...].firstIndex(where: { $0.version >= seen }) else {
                violate("the sender of \(message.id) had seen version \(seen) of chat \(chat), which the log has not")
                continue
            }
            let got = everyDevice(of: message.id, chat)
            if first > 0, states[first].version == seen, states[first - 1].members != states[first].members,
                states[first - 1].members != got
            {
                causalSends += 1
            }
            if let found = states[first...].firstIndex(where: { $0.members == got }) {
                current = found
                if !got.contains(message.from) { violate("\(message.id) was sent by no member and accepted") }
            } else {
                violate(Self.difference(message, chat, got, states[first...]))
            }
        }
    }

    /// The users who have it, each on all of their devices.
    private mutating func everyDevice(of id: MessageID, _ chat: ChatID) -> Set<UserID> {
        let counts = receivers[id] ?? [:]
        for (user, count) in counts where count != devicesOfUser[user] {
            violate("\(count) of the \(devicesOfUser[user] ?? 0) devices of \(user) got \(id) of chat \(chat)")
        }
        return Set(counts.keys)
    }

    private static func difference(
        _ message: ChaosLog.Accepted, _ chat: ChatID, _ got: Set<UserID>, _ states: ArraySlice<MembershipHistory.State>
    ) -> String {
        let nearest = states.min {
            $0.members.symmetricDifference(got).count < $1.members.symmetricDifference(got).count
        }
        let members = nearest?.members ?? []
        let (missing, outside) = (members.subtracting(got), got.subtracting(members))
        return "no state of chat \(chat) from version \(states.first?.version ?? -1) on has the members who got"
            + " \(message.id) (seq \(message.seq)); nearest is version \(nearest?.version ?? -1):"
            + " without it \(missing.map(\.description).sorted()), outside \(outside.map(\.description).sorted())"
    }

    /// Acknowledged means kept, and refused means that nobody has it.
    private mutating func checkAnswers() {
        var places: [MessageID: Int64] = [:]
        for messages in log.accepted.values { for message in messages { places[message.id] = message.seq } }
        for (id, sent) in record.sent {
            guard sent.isSettled else {
                violate("message \(id) was neither acknowledged nor refused")
                continue
            }
            let place = places[id]
            if sent.isAcknowledged, place == nil, !log.rejected.contains(id) {
                violate("message \(id) was acknowledged and is lost")
            }
            if let place, let answered = sent.answeredSeq, place != answered {
                violate("message \(id) was acknowledged at seq \(answered) and is at \(place)")
            }
            if let refusal = sent.refusal, !sent.wasRepeated, place != nil {
                violate("message \(id) was refused (\(refusal)) and accepted")
            }
            if sent.refusal == "not_member" || log.rejected.contains(id) { checkRefusal(id, sent) }
        }
    }

    /// Only who may not have been a member any more can be told so.
    private mutating func checkRefusal(_ id: MessageID, _ sent: ChaosRecord.Sent) {
        guard let states = log.memberships[sent.chat]?.states else { return }
        let wasOut = states.contains { $0.version >= sent.seenVersion && !$0.members.contains(sent.by) }
        if !wasOut { violate("message \(id) was refused, though its sender was a member all the time") }
    }

    private mutating func violate(_ line: String) {
        if violations.count < 1000 { violations.append(line) }
    }
}
