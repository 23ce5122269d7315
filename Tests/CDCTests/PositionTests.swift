import PostgresClient
import TestSupport
import Testing
import Wire

@testable import CDC

@Suite struct PositionTests {
    @Test func `the position moves over a transaction only when it has ended and is acknowledged whole`() {
        var tracker = PositionTracker(from: LSN(10))
        let first = tracker.begin()
        tracker.sent()
        tracker.sent()
        tracker.acknowledged(first)
        tracker.end(at: LSN(20))
        let second = tracker.begin()
        tracker.sent()
        tracker.end(at: LSN(30))
        tracker.reached(LSN(35))
        tracker.acknowledged(second)
        #expect(tracker.confirmable == LSN(10))
        tracker.acknowledged(first)
        #expect(tracker.confirmable == LSN(35) && tracker.isIdle)
        tracker.reached(LSN(40))
        #expect(tracker.confirmable == LSN(40))
        // Everything of it acknowledged before its end is known.
        let third = tracker.begin()
        tracker.sent()
        tracker.acknowledged(third)
        #expect(tracker.confirmable == LSN(40))
        tracker.end(at: LSN(50))
        #expect(tracker.confirmable == LSN(50))
    }

    @Test func `whatever the order of acknowledgements, the position is that of a naive model`() {
        var random = SeededGenerator.announced("position tracker")
        for _ in 0..<50 {
            var tracker = PositionTracker(from: .zero)
            var outstanding: [UInt64] = []
            var ends: [(tag: UInt64, end: UInt64)] = []
            var open: UInt64?
            var place: UInt64 = 0
            for _ in 0..<400 {
                place += 1
                switch Int.random(in: 0..<6, using: &random) {
                case 0 where open == nil: open = tracker.begin()
                case 1...2 where open != nil:
                    tracker.sent()
                    outstanding.append(open!)
                case 3 where open != nil:
                    tracker.end(at: LSN(place))
                    ends.append((open!, place))
                    open = nil
                default:
                    guard let index = outstanding.indices.randomElement(using: &random) else { continue }
                    tracker.acknowledged(outstanding.remove(at: index))
                }
                let blocked = min(outstanding.min() ?? .max, open ?? .max)
                let model = ends.last { $0.tag < blocked }?.end ?? 0
                #expect(tracker.confirmable == LSN(model))
            }
        }
    }

    @Test func `a heartbeat's time holds when everything before it is confirmed, however many wait`() {
        var heartbeat = Heartbeat()
        #expect(heartbeat.reached(LSN(100)) == nil)
        heartbeat.passed(LSN(10), 1000)
        // At its own place what it stands behind is confirmed, it itself is not.
        #expect(heartbeat.reached(LSN(10)) == nil)
        #expect(heartbeat.reached(LSN(11)) == 1000 && heartbeat.reached(LSN(12)) == nil)
        // Kafka is silent for long: the first that waits and the newest are kept.
        for beat in 2...1000 { heartbeat.passed(LSN(UInt64(beat) * 10), Int64(beat) * 1000) }
        #expect(heartbeat.reached(LSN(5000)) == 2000)
        #expect(heartbeat.reached(LSN(9999)) == nil && heartbeat.reached(LSN(10_001)) == 1_000_000)
    }

    @Test func `what is remembered reads back, and nonsense is nothing`() {
        var state = StoredState(
            systemID: "123", slot: "fanout", position: LSN(1 << 40), unreadFrom: "chat.members",
            filters: [
                SnapshotFilter(from: "a", through: "b", snapshot: TransactionSnapshot("5:9:6,7")!, until: LSN(9)),
                SnapshotFilter(from: "c", snapshot: TransactionSnapshot("5:5:")!, until: LSN(10)),
            ])
        (state.databaseID, state.timeline, state.atMs) = (5, 3, 1_764_534_692_000)
        state.marks = ["0000abcd", "zzzzzzzz"]
        state.putAside(Aside(topic: "a", table: "public.t", since: LSN(7), reason: "no \"key\""))
        #expect(StoredState(text: state.text) == state)
        for bad in ["", "{}", "[]", #"{"system":"1","slot":"s"}"#, #"{"system":"1","slot":"s","lsn":"x"}"#] {
            #expect(StoredState(text: bad) == nil)
        }
    }

    @Test func `a snapshot shows what had committed, also when transaction numbers wrap`() {
        let snapshot = TransactionSnapshot("100:110:103,105")!
        for xid: UInt32 in [1, 99, 100, 102, 104, 109] { #expect(snapshot.shows(xid), "\(xid)") }
        for xid: UInt32 in [103, 105, 110, 111, 5000] { #expect(!snapshot.shows(xid), "\(xid)") }
        let late = TransactionSnapshot("4294967290:4294967300:4294967299")!
        #expect(late.shows(4_294_967_289) && late.shows(4_294_967_295) && late.shows(2))
        #expect(!late.shows(3) && !late.shows(4) && !late.shows(100))
        for bad in ["", "1:2", "2:1:", "a:b:", "1:2:x"] { #expect(TransactionSnapshot(bad) == nil) }
    }

    private static let server = ServerFacts(
        systemID: "1", database: "d", databaseID: 5, timeline: 1, position: LSN(200))

    @Test func `another or an older database is not read in place of the one that the topics hold`() {
        var state = StoredState(systemID: "1", slot: "s", position: LSN(100))
        (state.databaseID, state.timeline) = (5, 1)
        let slot = SlotFacts(
            plugin: "pgoutput", database: "d", isActive: false, confirmed: LSN(90), walStatus: "reserved")
        func reason(_ change: (inout ServerFacts) -> Void, slot: SlotFacts?) -> String? {
            var server = Self.server
            change(&server)
            let decision = StartDecision.decide(stored: state, slot: slot, server: server)
            if case .restored(let reason) = decision { return reason }
            #expect(slot == nil ? decision != .stream : decision == .stream)
            return nil
        }
        func fork(_ timeline: Int64, at position: UInt64) -> ServerFacts.Fork {
            ServerFacts.Fork(timeline: timeline, at: LSN(position))
        }
        // Whether it still has the slot, as a copied directory has, or not, as a backup has none.
        for slot in [slot, nil] {
            #expect(reason({ _ in }, slot: slot) == nil)
            #expect(reason({ $0.systemID = "2" }, slot: slot)?.contains("another database cluster") == true)
            #expect(reason({ $0.databaseID = 6 }, slot: slot)?.contains("dropped and made again") == true)
            #expect(reason({ $0.position = LSN(99) }, slot: slot)?.contains("the server is at 0/63") == true)
            #expect(reason({ $0.timeline = 2 }, slot: slot)?.contains("does not come from") == true)
            let forks = [fork(1, at: 99), fork(2, at: 150)]
            #expect(reason({ ($0.timeline, $0.forks) = (3, forks) }, slot: slot)?.contains("left timeline 1") == true)
            // A standby that had everything has taken over.
            #expect(reason({ ($0.timeline, $0.forks) = (2, [fork(1, at: 100)]) }, slot: slot) == nil)
        }
        (state.databaseID, state.timeline) = (nil, nil)
        #expect(reason({ ($0.timeline, $0.databaseID) = (9, 9) }, slot: slot) == nil, "stored by an older version")
    }

    @Test func `a slot that is not the one that was left is never streamed from`() {
        let state = StoredState(systemID: "1", slot: "s", position: LSN(100))
        let slot = SlotFacts(
            plugin: "pgoutput", database: "d", isActive: false, confirmed: LSN(90), walStatus: "reserved")
        func decide(_ stored: StoredState?, _ slot: SlotFacts?) -> StartDecision {
            .decide(stored: stored, slot: slot, server: Self.server)
        }
        func isSnapshot(_ decision: StartDecision) -> Bool { if case .snapshot = decision { true } else { false } }
        #expect(decide(state, slot) == .stream)
        var unread = state
        unread.unreadFrom = "a"
        #expect(decide(unread, slot) == .resumeSnapshot)
        #expect(isSnapshot(decide(nil, nil)))
        #expect(isSnapshot(decide(nil, slot)))
        #expect(isSnapshot(decide(state, nil)))
        for change: (inout SlotFacts) -> Void in [
            { $0.confirmed = LSN(101) }, { $0.walStatus = "lost" },
        ] {
            var other = slot
            change(&other)
            #expect(isSnapshot(decide(state, other)))
        }
    }

    @Test func `another database's or program's slot is refused, never read again in place of it`() {
        let state = StoredState(systemID: "1", slot: "s", position: LSN(100))
        for change: (inout SlotFacts) -> Void in [{ $0.plugin = "test_decoding" }, { $0.database = "x" }] {
            var slot = SlotFacts(
                plugin: "pgoutput", database: "d", isActive: false, confirmed: LSN(90), walStatus: "lost")
            change(&slot)
            for stored in [state, nil] {
                var server = Self.server
                (server.systemID, server.position) = ("2", LSN(1))
                let decision = StartDecision.decide(stored: stored, slot: slot, server: server)
                guard case .refuse = decision else {
                    Issue.record("\(decision)")
                    continue
                }
            }
        }
    }

    @Test func `a hundred topics and a thousand open transactions fit beside an offset`() throws {
        let topics = (0..<100).map { "shop.a-topic-with-a-long-name.\($0)" }
        var xid: UInt64 = 1 << 33
        var random = SeededGenerator.announced("open transactions")
        let open = (0..<1000).map { _ in
            xid += UInt64.random(in: 1...30, using: &random)
            return xid
        }
        let snapshot = try #require(
            TransactionSnapshot("\(open[0]):\(xid + 1):\(open.map(String.init).joined(separator: ","))"))
        var state = StoredState(systemID: "7123456789012345678", slot: "fanout", position: LSN(1 << 50))
        state.unreadFrom = topics.min()
        #expect(state.unread(of: topics) == topics.sorted())
        for _ in 0..<5 { state.note(SnapshotFilter(from: topics[0], snapshot: snapshot, until: LSN(1 << 51))) }
        #expect(state.fits && state.filters.count == 1)
        #expect(StoredState(text: state.text) == state)
        state.note(SnapshotFilter(from: topics[1], through: topics[1], snapshot: snapshot, until: LSN(1 << 51)))
        #expect(!state.fits, "what does not fit is known before it is sent")
    }

    @Test func `what is put aside is remembered until it is read, and its reasons only while there is room`() throws {
        var state = StoredState(systemID: "1", slot: "s", position: LSN(1))
        state.marks = []
        let topics = (0..<30).map { "shop.a-topic-with-a-long-name.\($0)" }
        for topic in topics {
            let reason = String(repeating: "ü", count: 500)
            state.putAside(Aside(topic: topic, table: "public.a_table", since: LSN(1 << 40), reason: reason))
            #expect(state.fits)
        }
        #expect(state.aside.map(\.topic) == topics && state.aside[0].reason.isEmpty)
        let note = try SlotNote(decoding: state.text.utf8.span)
        #expect(note.aside.map(\.topic) == topics && note.aside[3].position == "100/0")
        state.marks = ["former00", "others00"]
        state.takeBack(topics[0], [topics[0]: "0000abcd", "another": "others00"])
        #expect(state.aside.map(\.topic) == Array(topics.dropFirst()) && state.marks == ["0000abcd", "others00"])
    }

    @Test func `a topic's mark is another when one of its tables is`() {
        let route = TableRoute(table: "t", topic: "topic", key: ["a", "b"])
        func mark(_ topic: String, _ route: TableRoute, _ text: String) -> String {
            TableIdentity.mark(topic, [(route, TableIdentity(tableID: 1, text: text))])
        }
        let first = mark("topic", route, "1/t2/a 23")
        #expect(first.utf8.count == 8 && mark("topic", route, "1/t2/a 23") == first)
        var other = route
        other.key = ["ab"]
        var marks = [first, mark("topi", route, "1/t2/a 23"), mark("topic", route, "1/t3/a 23")]
        marks.append(mark("topic", other, "1/t2/a 23"))
        for number in 0..<10_000 { marks.append(mark("topic", route, "\(number)")) }
        #expect(Set(marks).count == marks.count)
    }

    @Test func `a key that no row can have any more is told from one whose row may be there`() {
        func read(_ key: String, _ kinds: [ColumnKind]) -> GoneSearch.Key {
            GoneSearch.read(key.utf8.span, Array(["a", "b"].prefix(kinds.count)), kinds)
        }
        #expect(read(#"{"a":1,"b":"x"}"#, [.integer, .text]) == .columns(["1", "x"]))
        #expect(
            read(#"{"a":true}"#, [.bool]) == .columns(["true"]) && read(#"{"a":"NaN"}"#, [.float]) == .columns(["NaN"]))
        for (key, kinds) in [
            (#"{"a":1}"#, [ColumnKind.text]), (#"{"a":"1"}"#, [.integer]), (#"{"a":1}"#, [.bool]),
            (#"{"a":true}"#, [.text]),
            (#"{"z":1}"#, [.integer]), (#"{"a":1,"z":1}"#, [.integer]), (#"{"a":1}"#, [.integer, .integer]),
        ] { #expect(read(key, kinds) == .former, "\(key)") }
        for key in ["", "[]", "{", #"{"a":null}"#] { #expect(read(key, [.integer]) == .unknown, "\(key)") }
    }

    @Test func `of a topic whose reading was interrupted every table is read again`() {
        var state = StoredState(systemID: "1", slot: "s", position: LSN(1))
        let topics = ["chat.users", "chat.members", "shop.orders"]
        #expect(state.unread(of: topics).isEmpty)
        state.unreadFrom = "chat.users"
        #expect(state.unread(of: topics) == ["chat.users", "shop.orders"])
        state.note(SnapshotFilter(from: "chat.users", snapshot: TransactionSnapshot("5:9:")!, until: LSN(9)))
        #expect(topics.map { state.filters[0].covers($0) } == [true, false, true])
    }

    @Test func `progress is a hundred per cent at the end alone, and unknown without an estimate`() {
        #expect(Session.percent(10, of: nil) == nil && Session.percent(10, of: 0) == nil)
        #expect(Session.percent(10, of: 40) == 25 && Session.percent(50, of: 40) == 99)
        #expect(Session.percent(40, of: 40) == 100 && Session.percent(0, of: 0) == 100)
    }

    @Test func `Kafka is silent when records wait and none is acknowledged, however long a transaction takes`() {
        let second: UInt64 = 1_000_000_000
        var watch = AcknowledgementWatch(from: 0)
        for time in 1...60 { #expect(watch.look(UInt64(time) * second, acknowledged: time, inFlight: 100_000) == nil) }
        #expect(watch.look(65 * second, acknowledged: 60, inFlight: 100_000) == nil)
        #expect(watch.look(66 * second, acknowledged: 60, inFlight: 100_000) == .silent)
        #expect(watch.look(80 * second, acknowledged: 60, inFlight: 100_000) == nil)
        #expect(watch.look(81 * second, acknowledged: 61, inFlight: 99_999) == .back)
        #expect(watch.look(90 * second, acknowledged: 61, inFlight: 0) == nil)
    }
}
