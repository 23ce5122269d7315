// How fast the sink stores and how long reads take, on the given log and an empty database of its own.
public import KafkaClient
internal import PostgresClient
public import Runtime
internal import Store
internal import Wire

public struct HistoryBenchmark {
    public var messageCount = 500_000
    public var chatCount = 5_000
    public var membersPerChat = 10
    public var textBytes = 200
    /// Over how many days the messages are spread.
    public var days = 10

    private let kafka: KafkaConfiguration
    private let postgres: String
    private let log: Log
    private let clock: any Clock
    private static let partitions: Int32 = 16
    private static let userCount = 5_000

    public struct Report: Sendable {
        public fileprivate(set) var rows: [(String, Double)] = []
    }

    public init(kafka: KafkaConfiguration, postgres: String, log: Log, clock: any Clock) {
        self.kafka = kafka
        self.postgres = postgres
        self.log = log
        self.clock = clock
    }

    public func run() throws -> Report {
        var report = Report()
        var random = SystemRandomNumberGenerator()
        let prefix = "bench" + String(UInt64.random(in: 0 ... .max, using: &random), radix: 36) + "."
        let names = Names(prefix: prefix)
        let admin = try Admin(kafka)
        for outcome in try admin.createTopics(
            [names[.messages], names[.signals], names[.rejected]].map {
                NewTopic($0, partitions: Int(Self.partitions))
            })
        { if let error = outcome.error { throw error } }
        let users = (0..<Self.userCount).map { _ in UserID.random(using: &random) }
        let chats = (0..<chatCount).map { _ in ChatID.random(using: &random) }
        try fill(users: users, chats: chats)
        log.info("writing messages to the log", ["messages": .int(Int64(messageCount))])
        let lastTs = try write(users: users, chats: chats, names)

        var configuration = HistoryConfiguration(kafka: kafka, postgres: postgres, names: names)
        configuration.stopsAtEnd = true
        let start = clock.monotonicNs
        let history = History(configuration, log: log, metrics: Metrics(), clock: clock)
        try history.run()
        let seconds = Double(clock.monotonicNs - start) / 1e9
        report.rows.append(("messages_stored_per_second", Double(messageCount) / seconds))
        _ = try admin.deleteTopics([names[.messages], names[.signals], names[.rejected]])
        try read(users: users, chats: chats, lastTs: lastTs, names, &report)
        return report
    }

    /// Users and chats, without the triggers that only CDC needs.
    private func fill(users: [UserID], chats: [ChatID]) throws {
        var store = try StoreConnection(postgres)
        try Migrations.apply(to: &store.postgres)
        guard try store.postgres.query("SELECT count(*) FROM messages").int(0, 0) == 0 else {
            throw HistoryError(.postgres, "the benchmark wants a database without messages")
        }
        try store.postgres.execute("ALTER TABLE members DISABLE TRIGGER USER")
        try store.postgres.query(
            "INSERT INTO chats (chat_id, kind) SELECT c, 'group' FROM unnest($1::uuid[]) c", [.ids(chats)])
        // Chat n has the users n, n + 1, …
        try store.postgres.query(
            """
            INSERT INTO members (chat_id, user_id, joined_at)
            SELECT ($1::uuid[])[n], ($2::uuid[])[(n + m) % $3 + 1], to_timestamp(0)
            FROM generate_series(1, $4::int) n, generate_series(0, $5::int - 1) m
            """,
            [
                .ids(chats), .ids(users), .int(Int64(users.count)), .int(Int64(chats.count)),
                .int(Int64(membersPerChat)),
            ])
        try store.postgres.execute("ALTER TABLE members ENABLE TRIGGER USER; ANALYZE members; ANALYZE chats")
    }

    private func write(users: [UserID], chats: [ChatID], _ names: Names) throws -> Int64 {
        var options = ProducerOptions()
        options.lingerMs = 5
        let producer = try Producer(kafka, options)
        try producer.warmUp(topics: [names[.messages]])
        let topic = try producer.topic(names[.messages])
        let partitions = chats.map { $0.partition(count: Self.partitions) }
        var seqs = [Int64](repeating: 0, count: Int(Self.partitions))
        let text =
            Array("{\"text\":\"".utf8) + [UInt8](repeating: UInt8(ascii: "x"), count: textBytes) + Array("\"}".utf8)
        var textAt = JSONReader(text.span)
        try textAt.beginObject()
        _ = try textAt.nextField()
        let textRange = try textAt.readString()
        let first = clock.wallMs - Int64(days) * Day.ms
        var ts = first
        var json = JSONWriter()
        var random = SystemRandomNumberGenerator()
        for index in 0..<messageCount {
            let chat = Int.random(in: 0..<chats.count, using: &random)
            let partition = partitions[chat]
            ts = first + Int64(Double(index) / Double(messageCount) * Double(days) * Double(Day.ms))
            var message = IncomingMessage(
                id: .random(using: &random), chat: chats[chat], from: users[(chat + 1 + index % 10) % users.count],
                device: DeviceID(UUID(high: 1, low: UInt64(index))), kind: .text)
            message.text = textRange
            json.removeAll()
            message.writeAccepted(seq: seqs[Int(partition)], ts: ts, to: &json, source: text.span)
            seqs[Int(partition)] += 1
            while try producer.produce(
                topic, partition: partition, key: nil, value: json.bytes.span, tag: UInt64(index)) == .queueFull
            { producer.poll(timeoutMs: 100) { _ in } }
        }
        guard producer.close(deadlineMs: 120_000, { _ in }) else {
            throw HistoryError(.kafka, "the log did not take the messages in time")
        }
        return ts
    }

    private func read(
        users: [UserID], chats: [ChatID], lastTs: Int64, _ names: Names, _ report: inout Report
    ) throws {
        var store = try StoreConnection(postgres)
        var random = SystemRandomNumberGenerator()
        for _ in 0..<20 {
            _ = try store.rows(MessagePages.before(nil, in: chats[0], readableFromMs: 0, limit: 50))
        }
        try measure("page_of_50", 1000, &report) {
            _ = try store.rows(
                MessagePages.before(
                    nil, in: chats.randomElement(using: &random) ?? chats[0], readableFromMs: 0, limit: 50))
        }
        try measure("page_of_50_older", 1000, &report) {
            let place = MessagePlace(ts: lastTs - Int64.random(in: 0..<Int64(days) * Day.ms, using: &random), seq: 0)
            _ = try store.rows(
                MessagePages.before(
                    place, in: chats.randomElement(using: &random) ?? chats[0], readableFromMs: 0, limit: 50))
        }
        try measure("conversation_list_of_50", 500, &report) {
            _ = try store.rows(Conversations.of(users.randomElement(using: &random) ?? users[0], limit: 50))
        }
        // As much of each user's past as holds about 1,000 messages.
        let perUserMs =
            Double(messageCount) / Double(chatCount) * Double(membersPerChat) * Double(chatCount)
            / Double(Self.userCount) / (Double(days) * Double(Day.ms))
        let bound = lastTs - Int64(min(1000 / perUserMs, Double(days) * Double(Day.ms)))
        var synced = 0
        try measure("sync_of_about_1000", 200, &report) {
            let bounds = (0..<Self.partitions).map { Sync.Bound(partition: $0, ts: bound) }
            let found = try store.rows(Sync.chats(of: users.randomElement(using: &random) ?? users[0], since: bounds))
            var plan = SyncPlan(found, bounds: bounds, partitionCount: Self.partitions)
            while !plan.isFinished {
                let rows = try store.rows(plan.nextPage())
                synced += rows.count
                plan.received(rows)
            }
        }
        report.rows.append(("messages_in_a_sync", Double(synced) / 200))
    }

    private func measure(_ name: String, _ count: Int, _ report: inout Report, _ body: () throws -> Void) throws {
        var times: [Double] = []
        for _ in 0..<count {
            let start = clock.monotonicNs
            try body()
            times.append(Double(clock.monotonicNs - start) / 1e6)
        }
        times.sort()
        report.rows.append((name + "_ms_p50", times[count / 2]))
        report.rows.append((name + "_ms_p99", times[count * 99 / 100]))
    }
}
