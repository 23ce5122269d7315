import PushLink
import Testing
import Wire

private func at(_ offset: Int64) -> Cursor { Cursor(offset: offset, timestamp: 1_000 + offset) }

private typealias Feed = SessionFeed<String>

extension SessionFeed<String> {
    fileprivate mutating func live(_ offset: Int64, _ kind: EventKind = .message, heldBytesMax: Int = 100) -> Verdict {
        receive(at(offset), kind, "event \(offset)", byteCount: 10, heldBytesMax: heldBytesMax)
    }
}

struct SessionFeedTests {
    @Test func `a new device starts where the owner says and misses nothing after`() {
        var feed = Feed(after: nil)
        feed.register(1)
        #expect(feed.registered(1, liveAfter: at(10)) == .live(first: true))
        #expect(feed.after == at(10))
        #expect(feed.live(10) == .drop)
        #expect(feed.live(11) == .deliver)
        #expect(feed.live(11) == .drop)
        #expect(feed.live(15) == .deliver)
        #expect(feed.after == at(15))
    }

    @Test func `a device that missed nothing is live at once, and what is sent again is dropped`() {
        var feed = Feed(after: at(20))
        feed.register(1)
        #expect(feed.registered(1, liveAfter: at(12)) == .live(first: true))
        #expect(feed.live(13) == .drop)
        #expect(feed.live(20) == .drop)
        #expect(feed.live(21) == .deliver)
    }

    @Test func `a gap is filled page by page while live events wait, then they follow in order`() {
        var feed = Feed(after: at(5))
        feed.register(1)
        #expect(feed.registered(1, liveAfter: at(9)) == .fill(after: at(5), through: 9))
        feed.asked(2)
        #expect(feed.live(10) == .hold)
        #expect(feed.receive(filled: 6, by: 2) == .deliver)
        #expect(feed.receive(filled: 6, by: 2) == .drop)
        #expect(feed.receive(pageUpTo: at(7), isLast: false, by: 2) == .fill(after: at(7), through: 9))
        #expect(feed.fillDue?.after == at(7) && feed.fillDue?.through == 9)
        feed.asked(3)
        #expect(feed.fillDue == nil)
        #expect(feed.live(12) == .hold)
        #expect(feed.receive(filled: 8, by: 3) == .deliver)
        #expect(feed.receive(pageUpTo: at(9), isLast: true, by: 3) == .live(first: true))
        #expect(feed.takeHeld().map(\.payload) == ["event 10", "event 12"])
        #expect(feed.after == at(12))
        #expect(feed.live(12) == .drop)
        #expect(feed.live(13) == .deliver)
    }

    @Test func `a cursor before the window goes to History first, and then the owner is asked for the rest`() {
        var feed = Feed(after: at(5))
        feed.register(1)
        _ = feed.registered(1, liveAfter: at(900))
        feed.asked(2)
        #expect(feed.live(901) == .hold)
        #expect(
            feed.receive(cannotFill: .older, windowStart: at(800), by: 2)
                == .history(run: 1, from: at(5), until: at(800)))
        // However much comes while History serves, none of it is kept: it is filled.
        for offset in 902..<950 { #expect(feed.live(Int64(offset), heldBytesMax: 15) == .drop) }
        #expect(feed.historyServed(1) == .register)
        feed.register(3)
        #expect(feed.registered(3, liveAfter: at(950)) == .fill(after: at(800), through: 950))
        feed.asked(4)
        #expect(
            feed.receive(cannotFill: .older, windowStart: at(850), by: 4)
                == .history(run: 2, from: at(800), until: at(850)))
        #expect(!feed.isServing(1) && feed.isServing(2))
        #expect(feed.historyServed(1) == .nothing)
        #expect(feed.historyServed(2) == .register)
        feed.register(5)
        #expect(feed.registered(5, liveAfter: at(960)) == .fill(after: at(850), through: 960))
        feed.asked(6)
        #expect(feed.live(961) == .hold)
        #expect(feed.receive(filled: 860, by: 6) == .deliver)
        #expect(feed.receive(pageUpTo: at(960), isLast: true, by: 6) == .live(first: true))
        #expect(feed.takeHeld().map(\.payload) == ["event 961"])
    }

    @Test func `what waits is bounded: typing is dropped first, and what is more than that is filled in its turn`() {
        var feed = Feed(after: at(5))
        feed.register(1)
        _ = feed.registered(1, liveAfter: at(9))
        feed.asked(2)
        #expect(feed.live(10, heldBytesMax: 15) == .hold)
        #expect(feed.live(11, .typing, heldBytesMax: 15) == .drop)
        #expect(feed.live(12, heldBytesMax: 15) == .drop)
        #expect(feed.live(13) == .drop)
        #expect(feed.receive(pageUpTo: at(9), isLast: true, by: 2) == .register)
        #expect(feed.takeHeld().isEmpty)
        feed.register(3)
        #expect(feed.registered(3, liveAfter: at(13)) == .fill(after: at(9), through: 13))
        feed.asked(4)
        #expect(feed.receive(filled: 10, by: 4) == .deliver)
        #expect(feed.live(14) == .hold)
        #expect(feed.receive(pageUpTo: at(13), isLast: true, by: 4) == .live(first: true))
        #expect(feed.takeHeld().map(\.payload) == ["event 14"])
    }

    @Test func `a live session that loses its owner resumes from what its link had heard`() {
        var feed = Feed(after: at(5))
        feed.register(1)
        #expect(feed.registered(1, liveAfter: at(5)) == .live(first: true))
        feed.ownerLost(heard: at(40))
        #expect(feed.live(41) == .drop)
        feed.register(2)
        #expect(feed.registered(2, liveAfter: at(40)) == .live(first: false))
        #expect(feed.live(40) == .drop)
        #expect(feed.live(41) == .deliver)
    }

    @Test func `a session that loses its owner while being filled starts again from what it has`() {
        var feed = Feed(after: at(5))
        feed.register(1)
        _ = feed.registered(1, liveAfter: at(9))
        feed.asked(2)
        #expect(feed.receive(filled: 6, by: 2) == .deliver)
        #expect(feed.live(10) == .hold)
        feed.ownerLost(heard: at(10))
        feed.register(3)
        #expect(feed.registered(3, liveAfter: at(8)) == .fill(after: Cursor(offset: 6, timestamp: 1_005), through: 8))
        feed.asked(4)
        #expect(feed.receive(filled: 7, by: 4) == .deliver)
        #expect(feed.receive(pageUpTo: at(8), isLast: true, by: 4) == .live(first: true))
        #expect(feed.takeHeld().isEmpty)
        #expect(feed.live(9) == .deliver)
    }

    @Test func `a page of the former owner, come late, does not end the fill that the present one was asked for`() {
        var feed = Feed(after: at(50))
        feed.register(1)
        #expect(feed.registered(1, liveAfter: at(100)) == .fill(after: at(50), through: 100))
        feed.asked(2)
        feed.ownerLost(heard: nil)
        feed.register(3)
        #expect(feed.registered(1, liveAfter: at(100)) == .nothing)
        #expect(feed.registered(3, liveAfter: at(120)) == .fill(after: at(50), through: 120))
        feed.asked(4)
        // Going live at 100 here lost 101 to 120 once, and moved the cursor past them.
        #expect(feed.receive(filled: 60, by: 2) == .drop)
        #expect(feed.receive(pageUpTo: at(100), isLast: true, by: 2) == .nothing)
        #expect(feed.receive(filled: 60, by: 4) == .deliver)
        #expect(feed.receive(pageUpTo: at(120), isLast: true, by: 4) == .live(first: true))
    }

    @Test func `a refusal of the former owner, come late, does not silence the session`() {
        var feed = Feed(after: at(50))
        feed.register(1)
        _ = feed.registered(1, liveAfter: at(100))
        feed.asked(2)
        feed.ownerLost(heard: nil)
        feed.register(3)
        _ = feed.registered(3, liveAfter: at(120))
        feed.asked(4)
        // Waiting for the next claim here was waiting for ever: the present owner has no reason to claim again.
        #expect(feed.receive(cannotFill: .unknownSession, windowStart: .start, by: 2) == .nothing)
        #expect(feed.receive(cannotFill: .older, windowStart: at(90), by: 2) == .nothing)
        #expect(feed.receive(pageUpTo: at(120), isLast: true, by: 4) == .live(first: true))
    }

    @Test func `a page that is due when the owner goes is not asked of the next one`() {
        var feed = Feed(after: at(50))
        feed.register(1)
        _ = feed.registered(1, liveAfter: at(100))
        #expect(feed.fillDue != nil)
        feed.ownerLost(heard: nil)
        #expect(feed.fillDue == nil)
    }

    @Test func `History that was begun for a former owner ends nothing for the present one`() {
        var feed = Feed(after: at(5))
        feed.register(1)
        _ = feed.registered(1, liveAfter: at(900))
        feed.asked(2)
        _ = feed.receive(cannotFill: .older, windowStart: at(800), by: 2)
        feed.ownerLost(heard: nil)
        feed.register(3)
        _ = feed.registered(3, liveAfter: at(990))
        feed.asked(4)
        _ = feed.receive(cannotFill: .older, windowStart: at(950), by: 4)
        #expect(!feed.isServing(1))
        #expect(feed.historyServed(1) == .nothing)
        #expect(feed.historyServed(2) == .register)
        #expect(feed.after == at(950))
    }

    @Test func `a cursor of another life of the topic is caught even when it lies beyond the log's end`() {
        var feed = Feed(after: at(5_000))
        feed.register(1)
        #expect(feed.registered(1, liveAfter: at(9)) == .live(first: true))
        #expect(
            feed.receive(cannotFill: .foreign, windowStart: at(9), by: FillRequest.unasked)
                == .history(run: 1, from: at(5_000), until: at(9)))
        #expect(feed.live(10) == .drop)
        #expect(feed.historyServed(1) == .register)
        feed.register(2)
        #expect(feed.registered(2, liveAfter: at(10)) == .fill(after: at(9), through: 10))
        feed.asked(3)
        #expect(feed.receive(filled: 10, by: 3) == .deliver)
        #expect(feed.receive(pageUpTo: at(10), isLast: true, by: 3) == .live(first: false))
        #expect(feed.live(11) == .deliver)
    }

    @Test func `a session that its owner does not know is named to it again`() {
        var feed = Feed(after: at(5))
        feed.register(1)
        _ = feed.registered(1, liveAfter: at(9))
        feed.asked(2)
        #expect(feed.receive(cannotFill: .unknownSession, windowStart: .start, by: 2) == .register)
        #expect(feed.live(10) == .drop)
        feed.register(3)
        #expect(feed.registered(3, liveAfter: at(9)) == .fill(after: at(5), through: 9))
    }
}

struct OwnerTableTests {
    private var owners = OwnerTable<String>()

    private mutating func claim(term: UInt64, by link: String, of count: Int32 = 16) -> OwnerTable<String>.Outcome {
        owners.claim(PartitionClaim(partition: 3, term: term), partitionCount: count, by: link)
    }

    private mutating func heard(_ offset: Int64, from link: String) -> Bool {
        owners.heard(at(offset), of: 3, from: link)
    }

    @Test mutating func `the highest term owns a partition, and only its stream counts`() {
        var outcomes = [claim(term: 1, by: "a")]
        var counted = [heard(7, from: "a"), heard(9, from: "b")]
        outcomes.append(claim(term: 2, by: "b"))
        counted.append(heard(8, from: "a"))
        outcomes.append(claim(term: 1, by: "a"))
        #expect(
            outcomes == [
                .accepted(lostBy: nil, heard: nil), .accepted(lostBy: "a", heard: at(7)), .refused(term: 2),
            ])
        #expect(counted == [true, false, false])
        #expect(owners.owner(of: 3) == "b")
    }

    @Test mutating func `a partition without its link waits, and an old claim does not get it`() {
        _ = claim(term: 2, by: "b")
        _ = heard(8, from: "b")
        let released = owners.release(3, by: "a")
        #expect(released == nil)
        let lost = owners.remove("b")
        #expect(lost.map(\.partition) == [3] && lost.map(\.heard) == [at(8)])
        #expect(owners.owner(of: 3) == nil)
        let outcome = claim(term: 1, by: "a")
        #expect(outcome == .refused(term: 2))
    }

    @Test mutating func `a worker with another partition count is refused`() {
        #expect(owners.partition(of: UserID(UUID(high: 1, low: 2))) == nil)
        _ = claim(term: 1, by: "a")
        let outcome = claim(term: 2, by: "b", of: 8)
        #expect(outcome == .refused(term: .max))
        #expect(owners.partition(of: UserID(UUID(high: 1, low: 2))) != nil)
    }
}

struct LinkLedgerTests {
    private var ledger = LinkLedger<String>()
    private let user = UserID(UUID(high: 1, low: 2))

    private mutating func claim(term: UInt64, by link: String) {
        let partition = user.partition(count: 4)
        _ = ledger.claim(PartitionClaim(partition: partition, term: term), partitionCount: 4, by: link)
    }

    private var partition: Int32 { ledger.partition(of: user) ?? -1 }

    @Test mutating func `an answer counts once, from the link that was asked`() throws {
        claim(term: 1, by: "a")
        let asked = ledger.register([7, 8], in: partition)
        let question = try #require(asked)
        #expect(question.link == "a" && question.request != FillRequest.unasked)
        let answers = [
            ledger.registered(question.request, in: partition, by: "b"),
            ledger.registered(question.request, in: partition + 1, by: "a"),
            ledger.registered(question.request, in: partition, by: "a"),
            ledger.registered(question.request, in: partition, by: "a"),
        ]
        #expect(answers == [[], [], [7, 8], []])
    }

    @Test mutating func `what was asked of a former owner is void, though its link lives on`() throws {
        claim(term: 1, by: "a")
        let asked = ledger.register([7], in: partition)
        let question = try #require(asked)
        claim(term: 2, by: "b")
        let late = ledger.registered(question.request, in: partition, by: "a")
        #expect(late.isEmpty)
        let next = ledger.fill(in: partition)
        #expect(next?.link == "b")
    }

    @Test mutating func `sessions hear that nobody will answer when their link ends`() throws {
        claim(term: 1, by: "a")
        let asked = ledger.lookUp(7, of: user)
        let question = try #require(asked)
        let heard = ledger.heard(at(9), of: partition, from: "a")
        #expect(heard)
        let loss = ledger.remove("a")
        #expect(loss.lookUps == [7] && loss.partitions == [partition: at(9)])
        let late = ledger.lookedUp(question.request, by: "a")
        #expect(late == nil)
        let none = ledger.register([7], in: partition)
        #expect(none == nil)
    }
}
