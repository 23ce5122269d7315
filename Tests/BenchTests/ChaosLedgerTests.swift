import Testing
import Wire

@testable import Bench

private let (ada, bob, eve) = (
    UserID(UUID(high: 1, low: 1)), UserID(UUID(high: 1, low: 2)), UserID(UUID(high: 1, low: 3))
)
private let chat = ChatID(UUID(high: 2, low: 1))
private let (one, two) = (MessageID(UUID(high: 3, low: 1)), MessageID(UUID(high: 3, low: 2)))

private func ledger() -> ChaosLedger {
    var ledger = ChaosLedger()
    for (id, seq) in [(one, 10), (two, 11)] as [(MessageID, Int64)] {
        ledger.send(id, chat: chat, members: [ada, bob])
        ledger.acknowledge(id, seq: seq, wasRepeated: false)
    }
    return ledger
}

/// A reckoning that finds nothing wrong would be worth nothing if it could find nothing.
@Suite struct ChaosLedgerTests {
    @Test func `everybody having everything in order is no violation`() {
        var ledger = ledger()
        for user in [ada, bob] {
            ledger.receive(one, chat: chat, seq: 10, by: user, connectionLastSeq: nil)
            ledger.receive(two, chat: chat, seq: 11, by: user, connectionLastSeq: 10)
        }
        ledger.close()
        #expect(ledger.violations.isEmpty)
    }

    @Test func `a message that somebody never got is found`() {
        var ledger = ledger()
        ledger.receive(one, chat: chat, seq: 10, by: ada, connectionLastSeq: nil)
        ledger.receive(two, chat: chat, seq: 11, by: ada, connectionLastSeq: 10)
        ledger.receive(one, chat: chat, seq: 10, by: bob, connectionLastSeq: nil)
        ledger.close()
        #expect(ledger.violations == ["\(bob) never got \(two) (seq 11 of chat \(chat))"])
    }

    @Test func `disorder, a repeat on one connection, a stranger and two places are found`() {
        var disorder = ledger()
        disorder.receive(two, chat: chat, seq: 11, by: ada, connectionLastSeq: nil)
        disorder.receive(one, chat: chat, seq: 10, by: ada, connectionLastSeq: nil)
        #expect(disorder.violations.count == 1)
        var again = ledger()
        again.receive(one, chat: chat, seq: 10, by: ada, connectionLastSeq: nil)
        again.receive(one, chat: chat, seq: 10, by: ada, connectionLastSeq: 10)
        #expect(again.violations.count == 1)
        var stranger = ledger()
        stranger.receive(one, chat: chat, seq: 10, by: eve, connectionLastSeq: nil)
        #expect(stranger.violations.count == 1)
        var places = ledger()
        places.receive(one, chat: chat, seq: 12, by: ada, connectionLastSeq: nil)
        #expect(places.violations.count == 1)
    }

    @Test func `a repeat after a reconnect is the device's own to drop, and whoever just joined may get what was sent`()
    {
        var ledger = ledger()
        ledger.receive(one, chat: chat, seq: 10, by: ada, connectionLastSeq: nil)
        ledger.receive(one, chat: chat, seq: 10, by: ada, connectionLastSeq: nil)
        ledger.joins(eve, chat: chat)
        ledger.receive(two, chat: chat, seq: 11, by: eve, connectionLastSeq: nil)
        #expect(ledger.violations.isEmpty && ledger.repeatsAfterReconnect == 1)
    }

    @Test func `what was neither acknowledged nor refused is found`() {
        var ledger = ChaosLedger()
        ledger.send(one, chat: chat, members: [ada])
        ledger.close()
        #expect(ledger.violations.count == 1)
    }
}
