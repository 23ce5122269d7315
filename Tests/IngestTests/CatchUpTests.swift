import Ingest
import PostgresClient
import PushLink
import System
import TestSupport
import Testing
import Wire

/// A device that was away for longer than Delivery's window reaches back.
@Suite(.serialized) struct CatchUpTests {
    private let user = UserID.random()
    private let other = UserID.random()
    private let chat = ChatID.random()
    private let nowMs = SystemClock().wallMs

    /// A database in which History has stored so many messages, one a second until a minute ago.
    private func database(_ names: Names, messages: Int, reachedMs: Int64) throws -> String {
        let database = try PostgresCluster.shared().freshDatabase(migrated: true)
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
                       json_build_object('text', 'm' || n) FROM generate_series(1, \(messages)) n;
            INSERT INTO chat_activity (chat_id, last_seq, last_ts)
                VALUES ('\(chat)', \(messages), \(first + Int64(messages) * 1000));
            INSERT INTO sink_progress (topic, partition, next_offset, last_seq, reached_ms)
                SELECT '\(names[.messages])', n, \(messages), \(messages), \(reachedMs) FROM generate_series(0, 3) n;
            """)
        return database
    }

    /// Connects with an old cursor and answers the fill as Delivery does when its window is too short.
    private func connect(_ bench: Bench, _ worker: Worker, cursorMs: Int64, windowMs: Int64) throws -> Device {
        worker.liveAfter = Cursor(offset: 100, timestamp: nowMs)
        let cursor = Cursor(offset: 5, timestamp: cursorMs)
        let device = try bench.device(user, hello: #"{"type":"hello","cursor":"\#(cursor.text)"}"#)
        try bench.wait("a fill is asked for") { worker.fills.count == 1 }
        worker.send(
            .cannotFill(
                request: worker.fills[0].request, session: worker.fills[0].session, .older,
                windowStart: Cursor(offset: 60, timestamp: windowMs)))
        return device
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
        let seqs = device.frames("message").compactMap { frame in
            frame.firstMatch(of: /"seq":(\d+)/).flatMap { Int($0.1) }
        }
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
        // Live events wait meanwhile.
        worker.push(#"{"type":"message","seq":2000}"#, offset: 101, to: [user])
        try bench.wait("the live event has been taken") { worker.acknowledged == 1 }
        #expect(device.frames("message").isEmpty && worker.fills.count == 1)
        var postgres = try PostgresConnection(place)
        try postgres.query("UPDATE sink_progress SET reached_ms = $1", [.int(nowMs)])
        try bench.wait("the rest is asked of Delivery") { worker.fills.count == 2 }
        worker.page(worker.fills[1], [], upTo: Cursor(offset: 100, timestamp: nowMs), isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(device.frames("message").last == #"{"type":"message","seq":2000}"#)
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
}
