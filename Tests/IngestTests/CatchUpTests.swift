import Ingest
import PostgresClient
import PushLink
import Runtime
import System
import TestSupport
import Testing
import WebSocket
import Wire

/// A device that was away for longer than Delivery's window reaches back.
@Suite(.serialized) struct CatchUpTests {
    private let user = UserID.random()
    private let other = UserID.random()
    private let chat = ChatID.random()
    private let nowMs = SystemClock().wallMs

    /// A database in which History has stored so many messages, one a second until a minute ago.
    private func database(
        _ names: Names, messages: Int, reachedMs: Int64, text: String = "'m' || n", cluster: PostgresCluster? = nil
    ) throws -> String {
        let database = try (cluster ?? PostgresCluster.shared()).freshDatabase(migrated: true)
        var postgres = try PostgresConnection(database)
        let first = nowMs - 60_000 - Int64(messages) * 1000
        try postgres.execute(
            """
            CREATE TABLE IF NOT EXISTS messages_all PARTITION OF messages DEFAULT;
            INSERT INTO users (user_id, name) VALUES ('\(user)', 'U'), ('\(other)', 'O');
            INSERT INTO chats (chat_id, kind, open_history) VALUES ('\(chat)', 'group', true);
            INSERT INTO members (chat_id, user_id) VALUES ('\(chat)', '\(user)'), ('\(chat)', '\(other)');
            INSERT INTO messages (chat_id, ts, seq, message_id, sender, kind, body)
                SELECT '\(chat)', \(first) + n * 1000, n, gen_random_uuid(), '\(other)', 'text',
                       json_build_object('text', \(text)) FROM generate_series(1, \(messages)) n;
            INSERT INTO chat_activity (chat_id, last_seq, last_ts)
                VALUES ('\(chat)', \(messages), \(first + Int64(messages) * 1000));
            INSERT INTO sink_progress (topic, partition, next_offset, last_seq, reached_ms)
                SELECT '\(names[.messages])', n, \(messages), \(messages), \(reachedMs) FROM generate_series(0, 3) n;
            """)
        return database
    }

    /// Connects with an old cursor and answers the fill as Delivery does when its window is too short.
    private func connect(
        _ bench: Bench, _ worker: Worker, cursorMs: Int64, windowMs: Int64, _ beforeAnswer: () throws -> Void = {}
    ) throws -> Device {
        worker.liveAfter = Cursor(offset: 100, timestamp: nowMs)
        let cursor = Cursor(offset: 5, timestamp: cursorMs)
        let device = try bench.device(user, hello: #"{"type":"hello","cursor":"\#(cursor.text)"}"#)
        try bench.wait("a fill is asked for") { worker.fills.count == 1 }
        try beforeAnswer()
        worker.send(
            .cannotFill(
                request: worker.fills[0].request, session: worker.fills[0].session, .older,
                windowStart: Cursor(offset: 60, timestamp: windowMs)))
        return device
    }

    private func seqs(_ device: Device) -> [Int] {
        device.frames("message").compactMap { $0.firstMatch(of: /"seq":(\d+)/).flatMap { Int($0.1) } }
    }

    @Test
    func `however many devices start while one question about large chats is out, the next one is for all of them`()
        throws
    {
        let bench = try Bench(database: { try database($0, messages: 1, reachedMs: nowMs) })
        let url = try #require(bench.postgres)
        var postgres = try PostgresConnection(url)
        let asked = "fanout_ingest_large_chat_questions_total"
        try postgres.execute("BEGIN; LOCK TABLE members IN ACCESS EXCLUSIVE MODE")
        let worker = try bench.worker()
        let cursor = Cursor(offset: 5, timestamp: nowMs).text
        let devices = try (0..<100).map { _ in
            try bench.device(.random(), hello: #"{"type":"hello","cursor":"\#(cursor)"}"#)
        }
        try bench.wait("all have said hello") { bench.metric("fanout_ingest_frames_total") == 100 }
        #expect(bench.metric(asked) == 1)
        try postgres.execute("COMMIT")
        try bench.wait("all are named to the worker") { worker.sessions.count == 100 }
        #expect(bench.metric(asked) == 2)
        #expect(devices.allSatisfy { !$0.isClosed })
    }

    @Test func `History serves what it missed, in order, and Delivery the rest`() throws {
        let bench = try Bench(database: { try database($0, messages: 1200, reachedMs: nowMs) })
        let worker = try bench.worker()
        let device = try connect(bench, worker, cursorMs: nowMs - 60_000 - 1_000_000, windowMs: nowMs - 50_000)
        try bench.wait("the rest is asked of Delivery") { worker.fills.count == 2 }
        #expect(worker.fills[1].after == Cursor(offset: 60, timestamp: nowMs - 50_000))
        worker.page(
            worker.fills[1], [(80, #"{"type":"message","seq":1201}"#)], upTo: Cursor(offset: 100, timestamp: nowMs),
            isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(!device.frames("caught_up")[0].contains("reset"))
        let seqs = seqs(device)
        #expect(seqs.first ?? .max <= 201, "what lies at the cursor's time is among it")
        #expect(seqs.last == 1201)
        #expect(seqs == Array((seqs.first ?? 0)...1201))
        #expect(device.frames("message")[0].contains(#""m\#(seqs[0])""#))
        let cursor = Cursor(offset: 5, timestamp: nowMs - 60_000 - 1_000_000)
        #expect(device.frames("message")[0].hasSuffix(#","cursor":"\#(cursor.text)"}"#))
    }

    @Test func `a History that is behind is waited for`() throws {
        var place = ""
        let bench = try Bench(database: {
            place = try database($0, messages: 10, reachedMs: nowMs - 100_000)
            return place
        })
        let worker = try bench.worker()
        let device = try connect(bench, worker, cursorMs: nowMs - 70_000, windowMs: nowMs - 50_000)
        // What comes meanwhile is part of what is filled behind it.
        let live = #"{"type":"message","seq":2000}"#
        worker.push(live, offset: 101, to: [user])
        try bench.wait("the live event has been taken") { worker.acknowledged == 1 }
        worker.liveAfter = Cursor(offset: 101, timestamp: nowMs)
        #expect(device.frames("message").isEmpty && worker.fills.count == 1)
        var postgres = try PostgresConnection(place)
        try postgres.query("UPDATE sink_progress SET reached_ms = $1", [.int(nowMs)])
        try bench.wait("the rest is asked of Delivery") { worker.fills.count == 2 }
        #expect(worker.fills[1].through == 101)
        worker.page(worker.fills[1], [(101, live)], upTo: worker.liveAfter, isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(!device.frames("caught_up")[0].contains("reset"))
        #expect(device.frames("message").last == live)
        #expect(device.frames("message").count > 1)
    }

    @Test func `older than what is kept, the place is lost`() throws {
        var place = ""
        let bench = try Bench(database: {
            place = try database($0, messages: 10, reachedMs: nowMs)
            return place
        })
        var postgres = try PostgresConnection(place)
        try postgres.query(
            "INSERT INTO sink_progress (topic, partition, next_offset, reached_ms) VALUES ('', 0, 0, $1)",
            [.int(nowMs - 65_000)])
        let worker = try bench.worker()
        let device = try connect(bench, worker, cursorMs: nowMs - 70_000, windowMs: nowMs - 50_000)
        try bench.wait("the rest is asked of Delivery") { worker.fills.count == 2 }
        worker.page(worker.fills[1], [], upTo: Cursor(offset: 100, timestamp: nowMs), isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(device.frames("caught_up")[0].contains(#""reset":true"#))
        #expect(device.frames("message").isEmpty)
    }

    @Test func `300 missed messages of 10,000 letters reach a device whose queue holds a tenth of them`() throws {
        // All of a page was queued at once, which closed the session as too slow, and again each time it came back.
        let names = Names(prefix: TestKafka.unique("ingest") + ".")
        let place = try database(names, messages: 300, reachedMs: nowMs, text: "repeat('x', 10000)")
        let bench = try Bench(postgres: place, names: names) {
            $0.limits.sessionQueueBytes = 300 << 10
            $0.limits.fillBytes = 64 << 10
        }
        let worker = try bench.worker()
        let device = try connect(bench, worker, cursorMs: nowMs - 60_000 - 300_000, windowMs: nowMs - 50_000)
        device.stream?.pauseReading()
        try bench.wait("History is asked") {
            String(decoding: bench.metrics.render(), as: UTF8.self).contains("fanout_ingest_history_fills_total 1")
        }
        device.stream?.resumeReading()
        try bench.wait("the rest is asked of Delivery", seconds: 60) { worker.fills.count == 2 || device.isClosed }
        try #require(device.closeCode == nil && worker.fills.count == 2)
        worker.page(worker.fills[1], [], upTo: worker.liveAfter, isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(seqs(device) == Array(1...300))
    }

    @Test
    func `a device whose History stays behind is sent away with its cursor, and never told that it has caught up`()
        throws
    {
        let names = Names(prefix: TestKafka.unique("ingest") + ".")
        let place = try database(names, messages: 10, reachedMs: nowMs - 100_000)
        let bench = try Bench(postgres: place, names: names) { $0.limits.historyWaitMs = 500 }
        let worker = try bench.worker()
        let device = try connect(bench, worker, cursorMs: nowMs - 70_000, windowMs: nowMs - 50_000)
        try bench.wait("closed") { device.isClosed }
        #expect(device.closeCode == .tryAgainLater && Int(device.closeReason) != nil)
        #expect(device.frames("caught_up").isEmpty && device.frames("message").isEmpty)
    }

    @Test func `a Postgres that goes away for a moment delays what was missed, and skips nothing`() throws {
        let cluster = try PostgresCluster()
        let names = Names(prefix: TestKafka.unique("ingest") + ".")
        let bench = try Bench(
            postgres: try database(names, messages: 10, reachedMs: nowMs, cluster: cluster), names: names)
        let worker = try bench.worker()
        let device = try connect(bench, worker, cursorMs: nowMs - 60_000 - 1_000_000, windowMs: nowMs - 50_000) {
            try cluster.stop(.immediate)
        }
        worker.push(#"{"type":"message","seq":2000}"#, offset: 101, to: [user])
        try bench.wait("the refusal has been taken, and what came behind it") { worker.acknowledged == 1 }
        try cluster.start()
        try bench.wait("the rest is asked of Delivery", seconds: 30) { worker.fills.count == 2 }
        worker.page(worker.fills[1], [], upTo: worker.liveAfter, isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(!device.frames("caught_up")[0].contains("reset"))
        #expect(seqs(device) == Array(1...10))
    }

    @Test func `an owner that comes while History serves begins anew, and nothing is left out`() throws {
        var place = ""
        let bench = try Bench(database: {
            place = try database($0, messages: 10, reachedMs: nowMs - 100_000)
            return place
        })
        let worker = try bench.worker()
        let device = try connect(bench, worker, cursorMs: nowMs - 60_000 - 1_000_000, windowMs: nowMs - 50_000)
        let next = Worker("next", term: 2, partitionCount: 4, bench.loop)
        next.liveAfter = Cursor(offset: 120, timestamp: nowMs)
        next.connect(port: bench.server.pushPorts[0])
        // Its window reaches back far enough.
        try bench.wait("the next owner is asked") { next.fills.count == 1 }
        #expect(next.fills[0].after == Cursor(offset: 5, timestamp: nowMs - 60_000 - 1_000_000))
        var postgres = try PostgresConnection(place)
        try postgres.query("UPDATE sink_progress SET reached_ms = $1", [.int(nowMs)])
        next.page(
            next.fills[0], [(6, #"{"type":"message","seq":1}"#), (7, #"{"type":"message","seq":2}"#)],
            upTo: next.liveAfter, isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(seqs(device) == [1, 2])
    }

    @Test func `a device without a cursor, whose stream begins behind a change, tells the next owner of it`() throws {
        let names = Names(prefix: TestKafka.unique("ingest") + ".")
        let place = try database(names, messages: 10, reachedMs: nowMs)
        let bench = try Bench(postgres: place, names: names) { $0.limits.largeChat = 1 }
        // Postgres is asked, and nobody owns the partition yet.
        let device = try bench.device(user)
        try bench.wait("the device is greeted") { device.frames("hello").count == 1 }
        let worker = try bench.worker()
        try bench.wait("live") { device.frames("caught_up").count == 1 }
        #expect(worker.session(of: user)?.largeChats == [chat])
        var postgres = try PostgresConnection(place)
        try postgres.query("DELETE FROM members WHERE user_id = $1", [.id(user)])
        // The event stands before the place where the stream begins, so the session does not see it.
        let next = try bench.worker("next", term: 2)
        try bench.wait("the next owner is told") { next.session(of: user)?.largeChats == [] }
    }

    @Test func `what a session knew of its chats is asked anew behind what it passed over`() throws {
        let names = Names(prefix: TestKafka.unique("ingest") + ".")
        let place = try database(names, messages: 10, reachedMs: nowMs)
        let bench = try Bench(postgres: place, names: names) { $0.limits.largeChat = 1 }
        let worker = try bench.worker()
        let device = try bench.device(user, hello: #"{"type":"hello","cursor":"\#(worker.liveAfter.text)"}"#)
        try bench.wait("live") { device.frames("caught_up").count == 1 }
        #expect(worker.session(of: user)?.largeChats == [chat])
        func send() { device.send(#"{"type":"send","id":"\#(MessageID.random())","chat":"\#(chat)","text":"x"}"#) }
        send()
        try bench.wait("a member may send") { device.frames("sent").count == 1 }
        var postgres = try PostgresConnection(place)
        try postgres.query("DELETE FROM members WHERE user_id = $1", [.id(user)])
        // The owner is another, and its window begins after the change of membership.
        worker.liveAfter = Cursor(offset: 200, timestamp: nowMs)
        worker.claim([0, 1, 2, 3])
        try bench.wait("a fill is asked for") { worker.fills.count == 1 }
        #expect(worker.session(of: user)?.largeChats == [chat])
        worker.send(
            .cannotFill(
                request: worker.fills[0].request, session: worker.fills[0].session, .older,
                windowStart: Cursor(offset: 150, timestamp: nowMs - 50_000)))
        try bench.wait("the rest is asked of Delivery") { worker.fills.count == 2 }
        #expect(worker.session(of: user)?.largeChats == [])
        send()
        try bench.wait("who is no member any more may not") { device.frames("error").count == 1 }
        #expect(device.frames("error")[0].contains("not_member"))
    }
}
