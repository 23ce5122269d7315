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
        feed.register()
        #expect(feed.registered(liveAfter: at(10)) == .live(first: true))
        #expect(feed.after == at(10))
        #expect(feed.live(10) == .drop)
        #expect(feed.live(11) == .deliver)
        #expect(feed.live(11) == .drop)
        #expect(feed.live(15) == .deliver)
        #expect(feed.after == at(15))
    }

    @Test func `a device that missed nothing is live at once, and what is sent again is dropped`() {
        var feed = Feed(after: at(20))
        feed.register()
        #expect(feed.registered(liveAfter: at(12)) == .live(first: true))
        #expect(feed.live(13) == .drop)
        #expect(feed.live(20) == .drop)
        #expect(feed.live(21) == .deliver)
    }

    @Test func `a gap is filled page by page while live events wait, then they follow in order`() {
        var feed = Feed(after: at(5))
        feed.register()
        #expect(feed.registered(liveAfter: at(9)) == .fill(after: at(5), through: 9))
        #expect(feed.live(10) == .hold)
        #expect(feed.receive(filled: 6) == .deliver)
        #expect(feed.receive(filled: 6) == .drop)
        #expect(feed.receive(pageUpTo: at(7), isLast: false) == .fill(after: at(7), through: 9))
        #expect(feed.live(12) == .hold)
        #expect(feed.receive(filled: 8) == .deliver)
        #expect(feed.receive(pageUpTo: at(9), isLast: true) == .live(first: true))
        #expect(feed.takeHeld().map(\.payload) == ["event 10", "event 12"])
        #expect(feed.after == at(12))
        #expect(feed.live(12) == .drop)
        #expect(feed.live(13) == .deliver)
    }

    @Test func `a cursor before the window goes to History first, and to the window for the rest`() {
        var feed = Feed(after: at(5))
        feed.register()
        _ = feed.registered(liveAfter: at(900))
        #expect(feed.receive(cannotFill: .older, windowStart: at(800)) == .history(from: at(5), until: at(800)))
        #expect(feed.live(901) == .hold)
        #expect(feed.historyServed() == .fill(after: at(800), through: 900))
        #expect(feed.receive(cannotFill: .older, windowStart: at(850)) == .history(from: at(800), until: at(850)))
        #expect(feed.historyServed() == .fill(after: at(850), through: 900))
        #expect(feed.receive(filled: 860) == .deliver)
        #expect(feed.receive(pageUpTo: at(900), isLast: true) == .live(first: true))
        #expect(feed.takeHeld().count == 1)
    }

    @Test func `what waits is bounded: typing is dropped first, a message closes the session`() {
        var feed = Feed(after: at(5))
        feed.register()
        _ = feed.registered(liveAfter: at(9))
        #expect(feed.live(10, heldBytesMax: 15) == .hold)
        #expect(feed.live(11, .typing, heldBytesMax: 15) == .drop)
        #expect(feed.live(12, heldBytesMax: 15) == .overflow)
    }

    @Test func `a live session that loses its owner resumes from what its link had heard`() {
        var feed = Feed(after: at(5))
        feed.register()
        #expect(feed.registered(liveAfter: at(5)) == .live(first: true))
        feed.ownerLost(heard: at(40))
        #expect(feed.live(41) == .drop)
        feed.register()
        #expect(feed.registered(liveAfter: at(40)) == .live(first: false))
        #expect(feed.live(40) == .drop)
        #expect(feed.live(41) == .deliver)
    }

    @Test func `a session that loses its owner while being filled starts again from what it has`() {
        var feed = Feed(after: at(5))
        feed.register()
        _ = feed.registered(liveAfter: at(9))
        #expect(feed.receive(filled: 6) == .deliver)
        #expect(feed.live(10) == .hold)
        feed.ownerLost(heard: at(10))
        feed.register()
        #expect(feed.registered(liveAfter: at(8)) == .fill(after: Cursor(offset: 6, timestamp: 1_005), through: 8))
        #expect(feed.receive(filled: 7) == .deliver)
        #expect(feed.receive(pageUpTo: at(8), isLast: true) == .live(first: true))
        #expect(feed.takeHeld().isEmpty)
        #expect(feed.live(9) == .deliver)
    }

    @Test func `a cursor of another life of the topic is caught even when it lies beyond the log's end`() {
        var feed = Feed(after: at(5_000))
        feed.register()
        #expect(feed.registered(liveAfter: at(9)) == .live(first: true))
        #expect(feed.receive(cannotFill: .foreign, windowStart: at(9)) == .history(from: at(5_000), until: at(9)))
        #expect(feed.live(10) == .hold)
        #expect(feed.historyServed() == .live(first: false))
        #expect(feed.takeHeld().map(\.payload) == ["event 10"])
        #expect(feed.live(11) == .deliver)
    }

    @Test func `a worker that no longer knows the session makes it wait for the next`() {
        var feed = Feed(after: at(5))
        feed.register()
        _ = feed.registered(liveAfter: at(9))
        #expect(feed.receive(cannotFill: .unknownSession, windowStart: .start) == .wait)
        #expect(feed.live(10) == .drop)
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
