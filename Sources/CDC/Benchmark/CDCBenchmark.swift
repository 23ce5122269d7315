internal import KafkaClient
internal import PostgresClient
public import Runtime
internal import Synchronization
internal import System
internal import Wire

/// `fanout bench cdc`: how fast row changes get from Postgres' log into a topic, beside how fast pg_recvlogical reads the
/// same log to nowhere, how long a change takes from before its commit until a consumer has it, and what memory a single
/// large transaction takes.
///
/// It makes a table, a publication, two slots and a topic of its own in the given database and cluster, and removes them.
public struct CDCBenchmark: Sendable {
    public struct Options: Sendable {
        public var changes = 1_000_000
        public var changesPerTransaction = 1_000
        /// For the part with one large transaction; as many as `changes` when nil.
        public var transactionRows: Int?
        /// For the latency part: changes a second, each a transaction of its own.
        public var rate = 1_000
        public var durationMs = 10_000
        public var binary = false

        public init() {}
    }

    private static let table = "fanout_bench_cdc"
    private static let slot = "fanout_bench_cdc"
    private static let referenceSlot = "fanout_bench_reference"

    private let postgres: String
    private let configuration: CDCConfiguration
    private let topic: String
    private let options: Options
    private let log: Log
    private let clock: any Clock

    public init(_ configuration: CDCConfiguration, _ options: Options, log: Log, clock: any Clock) {
        var configuration = configuration
        postgres = configuration.postgres
        topic = "\(Self.table)-\(UInt32.random(in: 0 ... .max))"
        configuration.routes = [TableRoute(table: Self.table, topic: topic, key: ["id"])]
        configuration.publication = Self.table
        configuration.slot = Self.slot
        configuration.group = topic
        configuration.binary = options.binary
        self.configuration = configuration
        self.options = options
        self.log = log
        self.clock = clock
    }

    public func run() throws(CDCError) -> CDCBenchmarkReport {
        var database = try Database(postgres) { _ in }
        try prepare(&database)
        defer { try? clean(&database) }
        var report = CDCBenchmarkReport()
        try measureCatchUp(&database, &report)
        try measureLatency(&report)
        try measureLargeTransaction(&database, &report)
        return report
    }

    // MARK: Catching up

    private func measureCatchUp(_ database: inout Database, _ report: inout CDCBenchmarkReport) throws(CDCError) {
        // The first start makes the slot and reads the empty table.
        try running { _ in }
        let position = try load(&database)
        report.changes = options.changes
        report.walBytes = Int(position.bytes)

        let reference = clock.monotonicNs
        try runReference(until: position.end)
        report.referenceSeconds = Double(clock.monotonicNs - reference) / 1e9

        let cpu = CurrentProcess.cpuNs
        let start = clock.monotonicNs
        try running { loop throws(CDCError) in
            while try database.slot(Self.slot).map({ $0.confirmed < position.end }) ?? true {
                loop.runOnce(timeoutMs: 5)
            }
        }
        report.seconds = Double(clock.monotonicNs - start) / 1e9
        report.cpuSeconds = Double(CurrentProcess.cpuNs - cpu) / 1e9
    }

    /// Inserts, updates and deletes: two of the first for each of the others, in transactions of a thousand.
    private func load(_ database: inout Database) throws(CDCError) -> (end: LSN, bytes: Int64) {
        let before = try place(&database)
        let size = options.changesPerTransaction
        var done = 0
        while done < options.changes {
            let inserts = size / 2
            let others = size / 4
            for sql in [
                "BEGIN",
                """
                INSERT INTO \(Self.table) SELECT gen_random_uuid(), gen_random_uuid(), g, 'a note of ' || g, now()
                FROM generate_series(\(done), \(done + inserts - 1)) g
                """,
                "UPDATE \(Self.table) SET note = note || '!' WHERE n BETWEEN \(done) AND \(done + others - 1)",
                "DELETE FROM \(Self.table) WHERE n BETWEEN \(done + others) AND \(done + 2 * others - 1)",
                "COMMIT",
            ] { _ = try database.ask("load", sql) }
            done += inserts + 2 * others
        }
        let after = try place(&database)
        return (after, Int64(after.value - before.value))
    }

    private func place(_ database: inout Database) throws(CDCError) -> LSN {
        try database.ask("read the position", "SELECT pg_current_wal_flush_lsn()::text").text(0, 0)
            .flatMap { LSN($0) } ?? .zero
    }

    /// pg_recvlogical with the same plugin, writing to nowhere.
    private func runReference(until end: LSN) throws(CDCError) {
        do {
            let program = try Self.program("pg_recvlogical")
            let child = try ChildProcess(
                program,
                [
                    "--dbname", postgres, "--slot", Self.referenceSlot, "--start", "--no-loop", "--endpos", "\(end)",
                    "--option", "proto_version=1", "--option", "publication_names=\(Self.table)", "--file", "/dev/null",
                ])
            let exit = child.wait()
            guard exit.isSuccess else { throw CDCError(.setup, "pg_recvlogical failed: \(exit)") }
        } catch let error as CDCError {
            throw error
        } catch {
            throw CDCError(.setup, "cannot run pg_recvlogical: \(error)")
        }
    }

    private static func program(_ name: String) throws(CDCError) -> String {
        let root = "/usr/lib/postgresql"
        let versions = ((try? Directory.list(root)) ?? []).compactMap { Int($0) }.sorted(by: >)
        let places = versions.map { "\(root)/\($0)/bin" } + ["/usr/bin", "/usr/local/bin", "/usr/local/pgsql/bin"]
        guard let found = places.map({ "\($0)/\(name)" }).first(where: { File.isExecutable($0) }) else {
            throw CDCError(.setup, "\(name) is not installed", hint: "apt-get install postgresql")
        }
        return found
    }

    // MARK: Latency

    private func measureLatency(_ report: inout CDCBenchmarkReport) throws(CDCError) {
        let count = options.rate * options.durationMs / 1000
        let sent = Mutex([UInt64](repeating: 0, count: count))
        let seen = Mutex([UInt64](repeating: 0, count: count))
        let left = Atomic(count)
        let (clock, options, topic, kafka, postgres) = (clock, options, topic, configuration.kafka, postgres)
        let failure = Mutex<String?>(nil)
        try running { loop throws(CDCError) in
            let reader = Thread.start(name: "bench-read") {
                do {
                    try Self.follow(topic, kafka, clock, left) { number, at in seen.withLock { $0[number] = at } }
                } catch {
                    failure.withLock { $0 = "\(error)" }
                }
            }
            let writer = Thread.start(name: "bench-write") {
                do {
                    try Self.write(postgres, count, rate: options.rate, clock) { number, at in
                        sent.withLock { $0[number] = at }
                    }
                } catch {
                    failure.withLock { $0 = "\(error)" }
                }
            }
            writer.join()
            let deadline = clock.monotonicNs + 10_000_000_000
            while left.load(ordering: .relaxed) > 0, clock.monotonicNs < deadline { loop.runOnce(timeoutMs: 20) }
            left.store(0, ordering: .relaxed)
            reader.join()
        }
        if let text = failure.withLock({ $0 }) { throw CDCError(.setup, "the latency part failed: \(text)") }
        let (starts, ends) = (sent.withLock { $0 }, seen.withLock { $0 })
        // The first second warms up.
        let latencies = zip(starts, ends).dropFirst(options.rate).filter { $0.1 > 0 }
            .map { Double($0.1 &- $0.0) / 1e6 }.sorted()
        report.rate = options.rate
        report.lost = zip(starts, ends).count { $0.1 == 0 }
        guard !latencies.isEmpty else { return }
        report.p50Ms = latencies[latencies.count / 2]
        report.p99Ms = latencies[latencies.count * 99 / 100]
        report.maxMs = latencies[latencies.count - 1]
    }

    /// Changes at scheduled times, each counted from just before it is sent: how fast this connection commits is not in
    /// question here.
    private static func write(
        _ postgres: String, _ count: Int, rate: Int, _ clock: any Clock, _ note: (Int, UInt64) -> Void
    ) throws {
        var connection = try PostgresConnection(postgres)
        try connection.prepare(
            "bench", "INSERT INTO \(table) VALUES (gen_random_uuid(), gen_random_uuid(), $1, 'latency', now())")
        let start = clock.monotonicNs
        let loop = try EventLoop()
        for number in 0..<count {
            let due = start + UInt64(number) * 1_000_000_000 / UInt64(rate)
            while case let now = clock.monotonicNs, now < due { loop.runOnce(timeoutMs: due - now > 2_000_000 ? 1 : 0) }
            note(number, clock.monotonicNs)
            try connection.query(prepared: "bench", [.int(Int64(-1 - number))])
        }
    }

    private static func follow(
        _ topic: String, _ kafka: KafkaConfiguration, _ clock: any Clock, _ left: borrowing Atomic<Int>,
        _ note: (Int, UInt64) -> Void
    ) throws {
        let consumer = try Consumer(kafka, ConsumerOptions())
        defer { consumer.close(deadlineMs: 1000) }
        let admin = try Admin(kafka)
        let partitions = try admin.partitionCounts(of: [topic])[0]
        admin.close(deadlineMs: 500)
        try consumer.assign((0..<partitions).map { PartitionStart(TopicPartition(topic, $0), at: .end) })
        let mark = Array(#","n":-"#.utf8)
        while left.load(ordering: .relaxed) > 0 {
            let batch = consumer.poll(maxMessages: 1000, timeoutMs: 50)
            let now = clock.monotonicNs
            for index in 0..<batch.count {
                let message = batch[index]
                guard let value = message.value, let number = Self.number(after: mark, in: value) else { continue }
                note(number - 1, now)
                left.subtract(1, ordering: .relaxed)
            }
        }
    }

    private static func number(after mark: [UInt8], in value: Span<UInt8>) -> Int? {
        guard value.count > mark.count else { return nil }
        for start in 0..<value.count - mark.count
        where value.extracting(start..<start + mark.count).elementsEqual(mark.span) {
            var number = 0
            var index = start + mark.count
            while index < value.count, value[index] &- 0x30 < 10 {
                number = number * 10 + Int(value[index] &- 0x30)
                index += 1
            }
            return number
        }
        return nil
    }

    // MARK: A large transaction

    /// Many rows in one transaction: from its commit until all of it is confirmed, and the most memory that the process
    /// had meanwhile, what Kafka's client keeps included.
    private func measureLargeTransaction(
        _ database: inout Database, _ report: inout CDCBenchmarkReport
    ) throws(CDCError) {
        let peak = Atomic<UInt64>(0)
        let isDone = Atomic(false)
        let rows = options.transactionRows ?? options.changes
        report.transactionRows = rows
        try running { loop throws(CDCError) in
            report.restingBytes = Int(CurrentProcess.residentBytes)
            let sampler = Thread.start(name: "bench-memory") {
                guard let loop = try? EventLoop() else { return }
                defer { loop.close() }
                while !isDone.load(ordering: .relaxed) {
                    let now = CurrentProcess.residentBytes
                    if now > peak.load(ordering: .relaxed) { peak.store(now, ordering: .relaxed) }
                    loop.runOnce(timeoutMs: 5)
                }
            }
            defer {
                isDone.store(true, ordering: .relaxed)
                sampler.join()
            }
            for sql in [
                "BEGIN",
                """
                INSERT INTO \(Self.table) SELECT gen_random_uuid(), gen_random_uuid(), g, 'a note of ' || g, now()
                FROM generate_series(1, \(rows)) g
                """,
            ] { _ = try database.ask("load", sql) }
            let start = clock.monotonicNs
            _ = try database.ask("load", "COMMIT")
            let position = try place(&database)
            while try database.slot(Self.slot).map({ $0.confirmed < position }) ?? true {
                loop.runOnce(timeoutMs: 5)
            }
            report.largeSeconds = Double(clock.monotonicNs - start) / 1e9
        }
        report.peakBytes = Int(peak.load(ordering: .relaxed))
    }

    // MARK: Around it

    /// Runs CDC on a thread of its own while `body` runs, which begins once it streams.
    private func running(_ body: (EventLoop) throws(CDCError) -> Void) throws(CDCError) {
        let metrics = Metrics()
        let cdc = CDC(configuration, log: log, clock: clock, metrics: metrics)
        let failure = Mutex<CDCError?>(nil)
        let hasEnded = Atomic(false)
        let loop: EventLoop
        do { loop = try EventLoop() } catch { throw CDCError(.transient, "\(error)") }
        let thread = Thread.start(name: "cdc") {
            do throws(CDCError) { try cdc.run() } catch { failure.withLock { $0 = error } }
            hasEnded.store(true, ordering: .releasing)
        }
        defer {
            cdc.stop()
            thread.join()
            loop.close()
        }
        while !cdc.isReady, !hasEnded.load(ordering: .acquiring) { loop.runOnce(timeoutMs: 2) }
        if let error = failure.withLock({ $0 }) { throw error }
        try body(loop)
    }

    private func prepare(_ database: inout Database) throws(CDCError) {
        try? clean(&database)
        for sql in [
            """
            CREATE TABLE \(Self.table)
                (id uuid PRIMARY KEY, chat uuid NOT NULL, n bigint NOT NULL, note text, at timestamptz NOT NULL)
            """,
            "CREATE INDEX ON \(Self.table) (n)",
            "CREATE PUBLICATION \(Self.table) FOR TABLE \(Self.table)",
            "SELECT pg_create_logical_replication_slot('\(Self.referenceSlot)', 'pgoutput')",
        ] { _ = try database.ask("prepare the benchmark", sql) }
        do throws(KafkaError) {
            let admin = try Admin(configuration.kafka)
            defer { admin.close(deadlineMs: 1000) }
            for outcome in try admin.createTopics([NewTopic(topic, partitions: 16)]) {
                if let error = outcome.error { throw error }
            }
        } catch {
            throw CDCError(error, "cannot make the benchmark's topic")
        }
    }

    private func clean(_ database: inout Database) throws(CDCError) {
        for slot in [Self.slot, Self.referenceSlot] {
            _ = try database.ask(
                "clean up",
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active",
                [.text(slot)])
        }
        _ = try database.ask("clean up", "DROP PUBLICATION IF EXISTS \(Self.table)")
        _ = try database.ask("clean up", "DROP TABLE IF EXISTS \(Self.table)")
        if let admin = try? Admin(configuration.kafka) {
            _ = try? admin.deleteTopics([topic])
            admin.close(deadlineMs: 1000)
        }
    }
}
