import Testing
import Wire

@testable import Bench

@Suite struct LedgerTests {
    @Test func `loss, repeats and disorder are told apart`() {
        var ledger = Ledger(runID: 7, chats: 1, membersPerChat: 1)
        let ids = (0..<4).map { ledger.send(chat: 0, scheduledNs: UInt64($0)) }
        for number in 0..<4 { ledger.acknowledge(number, nowNs: 100) }
        var last: Int64 = -1
        for (id, seq) in [(ids[0], 10), (ids[1], 11), (ids[1], 11), (ids[3], 13), (ids[2], 12)] as [(MessageID, Int64)]
        {
            last = ledger.deliver(id, seq: seq, after: last, nowNs: 200)
        }
        #expect(ledger.delivered == 3)
        #expect(ledger.repeats == 1)
        #expect(ledger.outOfOrder == 1)
        #expect(ledger.expected - ledger.delivered == 1)
    }

    @Test func `another run's messages are strangers`() {
        var ledger = Ledger(runID: 7, chats: 1, membersPerChat: 2)
        _ = ledger.send(chat: 0, scheduledNs: 0)
        _ = ledger.deliver(MessageID(UUID(high: 8, low: 0)), seq: 1, after: -1, nowNs: 5)
        _ = ledger.deliver(MessageID(UUID(high: 7, low: 99)), seq: 2, after: 1, nowNs: 5)
        #expect(ledger.strangers == 2 && ledger.delivered == 0)
    }

    @Test func `a message is done when its sender knows and every device has it`() {
        var ledger = Ledger(runID: 7, chats: 1, membersPerChat: 2)
        let id = ledger.send(chat: 0, scheduledNs: 0)
        _ = ledger.deliver(id, seq: 1, after: -1, nowNs: 5)
        ledger.acknowledge(0, nowNs: 6)
        #expect(!ledger.isDone(0))
        _ = ledger.deliver(id, seq: 1, after: -1, nowNs: 7)
        #expect(ledger.isDone(0))
    }

    @Test func `an acknowledgement counts once`() {
        var ledger = Ledger(runID: 7, chats: 2, membersPerChat: 2)
        _ = ledger.send(chat: 1, scheduledNs: 0)
        ledger.acknowledge(0, nowNs: 1)
        ledger.acknowledge(0, nowNs: 2)
        #expect(ledger.acknowledgedByChat == [0, 1])
    }

    @Test func `an event is read where the writer puts its fields`() throws {
        let id = MessageID(UUID(high: 7, low: 3))
        var json = JSONWriter()
        json.object {
            $0.field("type", "message")
            $0.field("chat", ChatID.random())
            $0.field("seq", 1234)
            $0.field("id", id)
            $0.field("from", UserID.random())
        }
        let event = EventFrame.message(json.bytes.span)
        #expect(event?.seq == 1234 && event?.id == id)
        let sent = [UInt8](#"{"type":"sent","id":"\#(id)","chat":"\#(ChatID.random())","seq":5,"ts":1}"#.utf8)
        #expect(EventFrame.message(sent.span) == nil)
        guard case .sent(id) = try EventFrame.answer(sent.span) else { return #expect(Bool(false)) }
    }
}
