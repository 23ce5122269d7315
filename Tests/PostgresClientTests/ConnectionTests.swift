import PostgresClient
import Synchronization
import TestSupport
import Testing
import Wire

@Suite struct ConnectionTests {
    @Test func `every kind of parameter comes back as it went in`() throws {
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase())
        let id = UUID("0123abcd-89ab-4def-8123-456789abcdef")!
        let result = try postgres.query(
            "SELECT $1, $2, $3, $4::text, $5, $6, $7, $8, $9, $10, $11::int, $12, $13",
            [
                .bool(true), .int(-5), .double(1.5), .text("h\u{e9} '\\"), .bytes([0, 255, 1]), .uuid(id),
                .timestampMs(1_700_000_000_123), .ints([1, -2]), .texts(["a", ""]), .uuids([id]), .null,
                .texts([]), .timestampMs(-1),
            ])
        #expect(result.rowCount == 1 && result.columnCount == 13)
        #expect(result.bool(0, 0) == true)
        #expect(result.int(0, 1) == -5)
        #expect(result.double(0, 2) == 1.5)
        #expect(result.text(0, 3) == "h\u{e9} '\\")
        let bytes = [UInt8](copying: result.bytes(0, 4))
        #expect(bytes == [0, 255, 1])
        #expect(result.uuid(0, 5) == id)
        #expect(result.timestampMs(0, 6) == 1_700_000_000_123)
        #expect(result.isNull(0, 10) && result.int(0, 10) == nil)
        #expect(result.timestampMs(0, 12) == -1)
        let arrays = try postgres.query(
            "SELECT $1::int8[]::text, $2::text[]::text, $3::uuid[]::text, $4::int8[]::text",
            [.ints([1, -2]), .texts(["a", "", "b\"c"]), .uuids([id]), .ints([])])
        #expect(arrays.text(0, 0) == "{1,-2}")
        #expect(arrays.text(0, 1) == #"{a,"","b\"c"}"#)
        #expect(arrays.text(0, 2) == "{\(id)}")
        #expect(arrays.text(0, 3) == "{}")
    }

    @Test func `numbers of every width are read in binary and in text`() throws {
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase())
        let sql = "SELECT 7::int2, -8::int4, 9::int8, 4000000000::oid, 0.5::float4, 'f'::bool, 'x'::text"
        for binary in [true, false] {
            let row = try postgres.query(sql, binary: binary)
            #expect(row.int(0, 0) == 7 && row.int(0, 1) == -8 && row.int(0, 2) == 9 && row.int(0, 3) == 4_000_000_000)
            #expect(row.double(0, 4) == 0.5 && row.bool(0, 5) == false && row.int(0, 6) == nil)
        }
    }

    @Test func `an error carries its state, statement, detail and hint, and the connection stays good`() throws {
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase())
        try postgres.execute("CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)")
        try postgres.prepare("insert", "INSERT INTO t VALUES ($1)")
        do {
            try postgres.query(prepared: "insert", [.int(1)])
            Issue.record("the duplicate was accepted")
        } catch {
            #expect(error.code == .server && error.sqlState == "23505" && error.statement == "insert")
            #expect(error.detail == "Key (a)=(1) already exists.")
        }
        let error = #expect(throws: PostgresError.self) { try postgres.execute("SELECT lenght('x')") }
        #expect(error?.sqlState == "42883" && error?.hint != nil && error?.statement == "SELECT lenght('x')")
        #expect(try postgres.query("SELECT count(*) FROM t").int(0, 0) == 1)
        #expect(throws: PostgresError.self) { try postgres.query("SELECT $1::text", [.text("a\0b")]) }
        let isGood = postgres.isGood
        #expect(isGood)
    }

    @Test func `a transaction commits whole or not at all`() throws {
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase())
        try postgres.execute("CREATE TABLE t (a int)")
        let value = try postgres.transaction { tx throws(PostgresError) in
            try tx.query("INSERT INTO t VALUES (1)")
            return 42
        }
        #expect(value == 42)
        #expect(throws: PostgresError.self) {
            try postgres.transaction { tx throws(PostgresError) in
                try tx.query("INSERT INTO t VALUES (2)")
                try tx.query("SELECT 1/0")
            }
        }
        // An error that was swallowed inside must not look like a commit.
        #expect(throws: PostgresError.self) {
            try postgres.transaction { tx throws(PostgresError) in
                try tx.query("INSERT INTO t VALUES (3)")
                _ = try? tx.execute("SELECT 1/0")
            }
        }
        #expect(try postgres.query("SELECT sum(a) FROM t").int(0, 0) == 1)
    }

    @Test func `a batch answers each statement in order, and nothing of a failed one stays`() throws {
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase())
        try postgres.execute("CREATE TABLE t (a int PRIMARY KEY)")
        var batch = PostgresBatch()
        try batch.prepare("insert", "INSERT INTO t VALUES ($1) RETURNING a")
        for number in 0..<2_000 { try batch.add(prepared: "insert", [.int(Int64(number))]) }
        // Answers larger than any socket buffer, so that both sides must be able to send at once.
        for _ in 0..<50 { try batch.add("SELECT repeat('x', 100000)") }
        var inserted: [Int64] = []
        var largest = 0
        try postgres.run(batch) { index, result in
            if index > 0 && index <= 2_000 { inserted.append(result.int(0, 0) ?? -1) }
            if index > 2_000 { largest += result.bytes(0, 0).count }
        }
        #expect(inserted == Array(0..<2_000))
        #expect(largest == 5_000_000)

        batch.removeAll()
        try batch.add(prepared: "insert", [.int(5_000)])
        try batch.add(prepared: "insert", [.int(1)])
        try batch.add(prepared: "insert", [.int(5_001)])
        let error = #expect(throws: PostgresError.self) { try postgres.run(batch) }
        #expect(error?.sqlState == "23505")
        #expect(try postgres.query("SELECT count(*) FROM t").int(0, 0) == 2_000)
    }

    @Test func `rows stream in and out by COPY, and a COPY given up stores nothing`() throws {
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase())
        try postgres.execute("CREATE TABLE t (a int, b text)")
        try postgres.beginCopyIn("COPY t FROM STDIN")
        for number in 0..<10_000 {
            let row = [UInt8]("\(number)\trow \(number)\n".utf8)
            try postgres.writeCopy(row.span)
        }
        #expect(try postgres.endCopy() == 10_000)

        try postgres.beginCopyIn("COPY t FROM STDIN")
        let row = [UInt8]("1\tx\n".utf8)
        try postgres.writeCopy(row.span)
        try postgres.failCopy("changed our mind")
        #expect(throws: PostgresError.self) { try postgres.beginCopyIn("COPY nothing FROM STDIN") }
        let isGood = postgres.isGood
        #expect(isGood)

        try postgres.beginCopyOut("COPY (SELECT * FROM t ORDER BY a) TO STDOUT")
        var count = 0
        while let row = try postgres.readCopy() {
            if count == 4_711 {
                let text = String(showing: row.bytes)
                #expect(text == "4711\trow 4711\n")
            }
            count += 1
        }
        #expect(count == 10_000)
        #expect(try postgres.query("SELECT 1").int(0, 0) == 1)
    }

    @Test func `notices reach the sink`() throws {
        let seen = Mutex<[String]>([])
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase()) { notice in
            seen.withLock { $0.append(notice.description) }
        }
        try postgres.execute("DO $$ BEGIN RAISE WARNING 'mind the gap'; END $$")
        #expect(seen.withLock { $0 } == ["WARNING: mind the gap"])
    }

    @Test func `a connection that the server ends is told as lost`() throws {
        let database = try PostgresCluster.shared().freshDatabase()
        var postgres = try PostgresConnection(database)
        var other = try PostgresConnection(database)
        try other.query("SELECT pg_terminate_backend($1::int)", [.int(Int64(postgres.backendPID))])
        let error = #expect(throws: PostgresError.self) { try postgres.query("SELECT 1") }
        #expect(error?.code == .connectionLost && error?.isTransient == true)
        let isGood = postgres.isGood
        #expect(!isGood)
    }

    @Test func `a server that does not answer in time is left`() throws {
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase())
        postgres.answerTimeoutMs = 50
        let error = #expect(throws: PostgresError.self) { try postgres.execute("SELECT pg_sleep(20)") }
        #expect(error?.code == .timeout)
        let isGood = postgres.isGood
        #expect(!isGood)
    }

    @Test func `a password is never shown`() throws {
        for string in [
            "postgres://u:s3cret@127.0.0.1:1/db", "host=127.0.0.1 port=1 password=s3cret",
            "postgres://u:s3cret@h:s3cret/x",
            "host=h password s3cret", "postgres://u:s3@cret:s3cret@[x", "password='s3cret",
        ] {
            #expect(!ConnectionString.shown(string).contains("s3cret"), "\(string)")
            let error = #expect(throws: PostgresError.self) { _ = try PostgresConnection(string) }
            #expect(error.map { !"\($0)".contains("s3cret") } == true, "\(String(describing: error))")
        }
        #expect(ConnectionString.shown("postgres://u:s3cret@h:7/db") == "host=h port=7 dbname=db user=u")
    }

    @Test func `a missing database is not worth another try, a missing server is`() throws {
        let missing = try PostgresCluster.shared().connectionString(database: "nowhere")
        let database = #expect(throws: PostgresError.self) { _ = try PostgresConnection(missing) }
        #expect(database?.isTransient == false)
        let server = #expect(throws: PostgresError.self) { _ = try PostgresConnection("host=127.0.0.1 port=1") }
        #expect(server?.code == .connect && server?.isTransient == true)
    }

    @Test func `identifiers and literals survive hostile names`() throws {
        var postgres = try PostgresConnection(PostgresCluster.shared().freshDatabase())
        for name in [#"a"; DROP TABLE x; --"#, "it's", #"back\slash'"#] {
            try postgres.execute("CREATE TABLE \(SQL.identifier(name)) (a int)")
            let row = try postgres.query("SELECT count(*) FROM pg_class WHERE relname = \(SQL.literal(name))")
            #expect(row.int(0, 0) == 1)
        }
    }
}
