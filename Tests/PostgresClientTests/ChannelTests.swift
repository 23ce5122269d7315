import PostgresClient
import System
import TestSupport
import Testing
import Wire

@Suite struct ChannelTests {
    /// Runs the loop until something holds.
    private func run(_ loop: EventLoop, seconds: Double = 20, until holds: () -> Bool) -> Bool {
        let deadline = SystemClock().monotonicNs + UInt64(seconds * 1e9)
        while !holds() {
            if SystemClock().monotonicNs > deadline { return false }
            loop.runOnce(timeoutMs: 20)
        }
        return true
    }

    @Test func `answers come in the order of the calls, however many are under way`() throws {
        let loop = try EventLoop()
        let channel = PostgresChannel(try PostgresCluster.shared().freshDatabase(), on: loop)
        let twice = PostgresStatement("twice", "SELECT $1::int8 * 2, repeat('x', 1000)")
        var answers: [Int64] = []
        for number in 0..<2_000 {
            channel.query(twice, [.int(Int64(number))]) { result in
                if case .success(let rows) = consume result { answers.append(rows.int(0, 0) ?? -1) }
            }
        }
        #expect(channel.pendingCount == 2_000)
        #expect(run(loop) { answers.count == 2_000 })
        let isOrdered = answers == (0..<2_000).map { Int64($0 * 2) }
        #expect(isOrdered)
        #expect(channel.pendingCount == 0)
        channel.close()
    }

    @Test func `a failed statement fails alone, a failed batch fails whole`() throws {
        let loop = try EventLoop()
        let channel = PostgresChannel(try PostgresCluster.shared().freshDatabase(), on: loop)
        var log: [String] = []
        func note(_ name: String) -> PostgresChannel.Answer {
            { result in
                switch consume result {
                case .success(let rows): log.append("\(name) \(rows.rowCount)")
                case .failure(let error): log.append("\(name) \(error.sqlState ?? "-")")
                }
            }
        }
        channel.query("CREATE TABLE t (a int PRIMARY KEY)", [], note("create"))
        channel.query("SELECT 1/0", [], note("divide"))
        channel.query(PostgresStatement("bad", "SELECT nothing"), [], note("bad"))
        var batch = PostgresBatch()
        try batch.add("INSERT INTO t VALUES (1)")
        try batch.add("INSERT INTO t VALUES (1)")
        channel.run(batch, each: { index, _ in log.append("batch \(index)") }) {
            log.append("batch \($0?.sqlState ?? "ok")")
        }
        channel.query("SELECT * FROM t", [], note("select"))
        #expect(run(loop) { log.count >= 6 })
        channel.query(PostgresStatement("bad", "SELECT 1"), [], note("mended"))
        #expect(run(loop) { log.count >= 7 })
        #expect(
            log == ["create 0", "divide 22012", "bad 42703", "batch 0", "batch 23505", "select 0", "mended 1"])
        channel.close()
    }

    @Test func `a lost connection fails what was sent and is made anew for what comes`() throws {
        let loop = try EventLoop()
        let database = try PostgresCluster.shared().freshDatabase()
        let channel = PostgresChannel(database, on: loop)
        var pid: Int64?
        var changes = 0
        channel.onChange = { _ in changes += 1 }
        channel.query("SELECT pg_backend_pid()") { result in
            if case .success(let rows) = consume result { pid = rows.int(0, 0) }
        }
        #expect(run(loop) { pid != nil })
        var failure: PostgresError?
        channel.query("SELECT pg_sleep(60)") { result in
            if case .failure(let error) = consume result { failure = error }
        }
        for _ in 0..<5 { loop.runOnce(timeoutMs: 5) }
        var other = try PostgresConnection(database)
        try other.query("SELECT pg_terminate_backend($1::int)", [.int(try #require(pid))])
        #expect(run(loop) { failure != nil })
        #expect(failure?.code == .connectionLost)
        var answer: Int64?
        channel.query("SELECT 7") { result in
            if case .success(let rows) = consume result { answer = rows.int(0, 0) }
        }
        #expect(run(loop) { answer == 7 })
        #expect(changes == 3)
        channel.close()
    }

    @Test func `calls wait for a server that is away, but no longer than their deadline`() throws {
        let loop = try EventLoop()
        var options = PostgresChannel.Options()
        options.answerTimeoutMs = 100
        options.callsMax = 3
        let away = PostgresChannel("host=127.0.0.1 port=1", on: loop, options)
        var failures: [PostgresError.Code] = []
        for _ in 0..<4 {
            away.query("SELECT 1") { result in
                if case .failure(let error) = consume result { failures.append(error.code) }
            }
        }
        #expect(failures == [.busy])
        #expect(run(loop) { failures.count == 4 })
        #expect(failures == [.busy, .timeout, .timeout, .timeout])
        away.close()

        let slow = PostgresChannel(try PostgresCluster.shared().freshDatabase(), on: loop, options)
        var late: PostgresError?
        slow.query("SELECT pg_sleep(30)") { result in
            if case .failure(let error) = consume result { late = error }
        }
        #expect(run(loop) { late != nil })
        #expect(late?.code == .timeout)
        var answer: Int64?
        slow.query("SELECT 7") { result in
            if case .success(let rows) = consume result { answer = rows.int(0, 0) }
        }
        #expect(run(loop) { answer == 7 })
        slow.close()
    }
}
