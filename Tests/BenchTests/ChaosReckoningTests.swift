import Testing
import Wire

@testable import Bench

private let (ada, bob, eve) = (
    UserID(UUID(high: 1, low: 1)), UserID(UUID(high: 1, low: 2)), UserID(UUID(high: 1, low: 3))
)
private let chat = ChatID(UUID(high: 2, low: 1))
private let (one, two) = (MessageID(UUID(high: 3, low: 1)), MessageID(UUID(high: 3, low: 2)))

/// Ada has two devices, Bob and Eve one each. Version 1: Ada and Bob; 2: Eve is in, too; 3: Bob is out.
private struct Storm {
    var record = ChaosRecord()
    var log = ChaosLog()
    let devices: [Int]

    init(seen: Int64 = 1) {
        var record = record
        devices = [ada, ada, bob, eve].map { record.add(deviceOf: $0) }
        self.record = record
        var history = MembershipHistory()
        for (user, isMember, version) in [(ada, true, 0), (bob, true, 1), (eve, true, 2), (bob, false, 3)] {
            history.change(user, isMember: isMember)
            if version > 0 { history.reach(Int64(version)) }
        }
        log.memberships[chat] = history
        send(one, seq: 10, seen: seen)
    }

    mutating func send(_ id: MessageID, seq: Int64, seen: Int64) {
        record.send(id, chat: chat, by: ada, seenVersion: seen)
        record.acknowledge(id, seq: seq, wasRepeated: false)
        log.accepted[chat, default: []].append(.init(id: id, seq: seq, from: ada))
    }

    mutating func receive(_ id: MessageID = one, seq: Int64 = 10, by numbers: [Int], after last: Int64? = nil) {
        for number in numbers {
            record.receive(id, chat: chat, seq: seq, by: devices[number], connectionLastSeq: last)
        }
    }

    var violations: [String] { ChaosReckoning(record, log).violations }
}

/// A reckoning that finds nothing wrong would be worth nothing if it could find nothing.
@Suite struct ChaosReckoningTests {
    @Test(arguments: [[0, 1, 2], [0, 1, 2, 3], [0, 1, 3]])
    func `the members of any state since the one that the sender had seen may be those who have it`(who: [Int]) {
        var storm = Storm()
        storm.receive(by: who)
        #expect(storm.violations.isEmpty)
    }

    @Test func `whoever was removed before the sender sent, knowing it, must not have it`() {
        var storm = Storm(seen: 3)
        storm.receive(by: [0, 1, 2, 3])
        #expect(storm.violations.count == 1)
        var right = Storm(seen: 3)
        right.receive(by: [0, 1, 3])
        #expect(right.violations.isEmpty)
        #expect(ChaosReckoning(right.record, right.log).causalSends == 1)
    }

    @Test func `whoever was added before the sender sent, knowing it, must have it`() {
        var storm = Storm(seen: 2)
        storm.receive(by: [0, 1, 2])
        #expect(storm.violations.count == 1)
    }

    @Test func `what the log says the sender had seen counts as well`() {
        var storm = Storm()
        storm.log.accepted[chat]?[0].seenVersion = 3
        storm.receive(by: [0, 1, 2])
        #expect(storm.violations.count == 1)
    }

    @Test func `a later message is not joined with an older state`() {
        var storm = Storm()
        storm.send(two, seq: 11, seen: 1)
        storm.receive(by: [0, 1, 3])
        storm.receive(two, seq: 11, by: [0, 1, 2], after: 10)
        #expect(storm.violations.count == 1)
    }

    @Test func `a member who never got it, a stranger who did, and a device that was left out are found`() {
        for who in [[0, 1], [0, 1, 2, 3, 3], [0, 2]] {
            var storm = Storm()
            storm.send(two, seq: 11, seen: 1)
            storm.receive(by: who == [0, 1, 2, 3, 3] ? [0, 1, 2] : who)
            storm.receive(two, seq: 11, by: [0, 1, 2], after: 10)
            if who.count == 5 { storm.receive(two, seq: 12, by: [3]) }
            #expect(!storm.violations.isEmpty, "\(who)")
        }
    }

    @Test func `disorder and a repeat on one connection are found; a repeat on the next is the device's own to drop`() {
        var disorder = Storm()
        disorder.send(two, seq: 11, seen: 1)
        disorder.receive(two, seq: 11, by: [0, 1, 2])
        disorder.receive(by: [0, 1, 2])
        #expect(disorder.violations.count == 3)
        var again = Storm()
        again.receive(by: [0, 1, 2])
        again.receive(by: [2], after: 10)
        #expect(again.violations.count == 1)
        var next = Storm()
        next.receive(by: [0, 1, 2])
        next.receive(by: [2])
        #expect(next.violations.isEmpty && next.record.repeatsAfterReconnect == 1)
    }

    @Test func `what was acknowledged and is not in the log, and what was neither acknowledged nor refused, is found`()
    {
        var lost = Storm()
        lost.receive(by: [0, 1, 2])
        lost.record.send(two, chat: chat, by: ada, seenVersion: 1)
        #expect(lost.violations == ["message \(two) was neither acknowledged nor refused"])
        lost.record.acknowledge(two, seq: 11, wasRepeated: false)
        #expect(lost.violations == ["message \(two) was acknowledged and is lost"])
        #expect(!lost.log.settles(lost.record))
    }

    @Test func `a log without a version that a sender has seen has not come to its end`() {
        var storm = Storm(seen: 3)
        #expect(storm.log.settles(storm.record))
        storm.send(two, seq: 11, seen: 4)
        #expect(!storm.log.settles(storm.record))
        storm.log.memberships[chat]?.reach(4)
        #expect(storm.log.settles(storm.record))
    }

    @Test func `only who may have been out is refused, and then nobody has the message`() {
        for (sender, isRight) in [(bob, true), (ada, false)] {
            var storm = Storm()
            storm.receive(by: [0, 1, 2])
            storm.record.send(two, chat: chat, by: sender, seenVersion: 1)
            storm.record.refuse(two, "not_member", wasRepeated: false)
            #expect(storm.violations.isEmpty == isRight)
        }
        var both = Storm()
        both.receive(by: [0, 1, 2])
        both.record.refuse(one, "not_member", wasRepeated: false)
        #expect(!both.violations.isEmpty)
        // Acknowledgement and membership were lost, in this order: only the repeat is refused.
        both.record.refuse(one, "not_member", wasRepeated: true)
        both.log.memberships[chat]?.change(ada, isMember: false)
        both.log.memberships[chat]?.reach(4)
        #expect(both.violations.isEmpty)
    }

    @Test func `what CDC repeats after a crash changes no history, and a gap in it is told`() {
        var history = MembershipHistory()
        history.reach(0)
        history.change(ada, isMember: true)
        history.reach(1)
        history.change(bob, isMember: true)
        // It ended before the version of this change, and repeats the one before.
        history.change(ada, isMember: true)
        history.reach(1)
        history.change(bob, isMember: true)
        history.reach(2)
        #expect(history.states.map(\.members) == [[], [ada], [ada, bob]])
        #expect(history.problem == nil)
        history.reach(4)
        #expect(history.problem != nil)
    }

    @Test func `a chat made while CDC took its first snapshot begins with that, and no later one will do`() throws {
        var collected = ChaosLogReader.Collected(chats: [chat])
        func take(_ operation: String, _ table: String, _ row: String) throws {
            let side = operation == "d" ? "before" : "after"
            let text = #"{"op":"\#(operation)","\#(side)":\#(row),"source":{"table":"\#(table)"}}"#
            try collected.take(.members, Array(text.utf8).span, 0, 0)
        }
        func member(_ user: UserID) -> String { #"{"chat_id":"\#(chat)","user_id":"\#(user)"}"# }
        func version(_ version: Int) -> String { #"{"chat_id":"\#(chat)","meta_version":\#(version)}"# }
        try take("r", "members", member(ada))
        try take("r", "members", member(bob))
        try take("r", "chats", version(1))
        try take("c", "members", member(eve))
        try take("u", "chats", version(2))
        try take("d", "members", member(bob))
        try take("u", "chats", version(3))
        let history = try #require(collected.log.memberships[chat])
        #expect(history.states.map(\.members) == [[ada, bob], [ada, bob, eve], [ada, eve]])
        #expect(history.states.map(\.version) == [1, 2, 3] && history.problem == nil)
        try take("r", "members", member(ada))
        #expect(collected.log.memberships[chat]?.problem != nil)
    }
}
