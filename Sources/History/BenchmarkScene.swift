internal import KafkaClient
internal import PostgresClient
internal import Runtime
internal import Store
internal import Synchronization
internal import Wire

/// Who talks where in `fanout bench history`: chats of ten, each user in fifty of them, messages evenly over the last 30
/// days and over all chats, so that no two neighbours in a table are of one chat.
struct BenchmarkScene {
    let partitions: Int32 = 16
    let topic: String
    private let messageCount: Int
    private let users: [UserID]
    private let chats: [ChatID]
    private let firstMs: Int64
    private let spanMs: Int64
    private static let membersPerChat = 10
    private static let chatsPerUser = 50
    private static let days: Int64 = 30
    private static let textBytes = 200

    init(messageCount: Int, chatCount: Int, nowMs: Int64, topic: String) {
        self.topic = topic
        self.messageCount = messageCount
        var random = SystemRandomNumberGenerator()
        let userCount = max(Self.membersPerChat * 2, chatCount * Self.membersPerChat / Self.chatsPerUser)
        users = (0..<userCount).map { _ in .random(using: &random) }
        chats = (0..<chatCount).map { _ in .random(using: &random) }
        firstMs = Day.start(of: nowMs) - (Self.days - 1) * Day.ms
        spanMs = nowMs - firstMs
    }

    // MARK: Choosing

    /// A member of a chat: users stand in it a stride apart.
    private func member(_ number: Int, of chat: Int) -> UserID { users[(chat * 7 + number * stride) % users.count] }
    private var stride: Int { max(1, users.count / Self.membersPerChat - 1) }

    func anyPlace(_ random: inout SystemRandomNumberGenerator) -> (chat: ChatID, user: UserID) {
        let chat = Int.random(in: chats.indices, using: &random)
        return (chats[chat], member(Int.random(in: 0..<Self.membersPerChat, using: &random), of: chat))
    }

    func anySeq(_ random: inout SystemRandomNumberGenerator) -> Int64 {
        Int64.random(in: 0..<Int64(messageCount), using: &random)
    }

    /// The time since which a user's chats have seen about so many messages.
    func cursorMs(missed count: Int) -> Int64 {
        let perUser = Double(messageCount) / Double(chats.count) * Double(Self.chatsPerUser)
        return firstMs + Int64(Double(spanMs) * max(0, 1 - Double(count) / perUser))
    }

    // MARK: Filling

    /// Puts everything into an empty database: messages a day at a time, and each day's index when it is full.
    func fill(_ store: inout StoreConnection, _ log: Log) throws {
        try Migrations.apply(to: &store.postgres)
        guard try store.postgres.query("SELECT count(*) FROM messages").int(0, 0) == 0 else {
            throw HistoryError(.postgres, "the benchmark wants a database without messages")
        }
        // Whatever a crash loses of a benchmark is no loss.
        try store.postgres.execute("SET synchronous_commit = off; SET maintenance_work_mem = '256MB'")
        try fillChats(&store)
        for day in 0..<Self.days {
            try fillDay(firstMs + day * Day.ms, &store)
            log.info("filled", ["day": .int(day + 1), "of": .int(Self.days)])
        }
        try fillState(&store)
        try store.postgres.execute("VACUUM (ANALYZE)")
    }

    private func fillChats(_ store: inout StoreConnection) throws {
        // The triggers are for CDC, and a million rows are checked sooner at once.
        try store.postgres.execute(
            "ALTER TABLE members DISABLE TRIGGER USER; ALTER TABLE members DROP CONSTRAINT members_chat_id_fkey")
        try store.postgres.query(
            "INSERT INTO users (user_id, name) SELECT u, 'user' FROM unnest($1::uuid[]) u", [.ids(users)])
        try store.postgres.query(
            "INSERT INTO chats (chat_id, kind, title, created_at) SELECT c, 'group', 'chat', to_timestamp(0) FROM unnest($1::uuid[]) c",
            [.ids(chats)])
        try store.postgres.query(
            """
            INSERT INTO members (chat_id, user_id, joined_at)
            SELECT ($1::uuid[])[c + 1], ($2::uuid[])[(c * 7 + m * $3::int) % $4::int + 1], to_timestamp(0)
            FROM generate_series(0, $5::int - 1) c, generate_series(0, $6::int - 1) m
            """,
            [
                .ids(chats), .ids(users), .int(Int64(stride)), .int(Int64(users.count)), .int(Int64(chats.count)),
                .int(Int64(Self.membersPerChat)),
            ])
        try store.postgres.execute(
            """
            ALTER TABLE members ADD FOREIGN KEY (chat_id) REFERENCES chats ON DELETE CASCADE;
            ALTER TABLE members ENABLE TRIGGER USER
            """)
    }

    /// A message's number is its seq, in whatever partition its chat is, and tells its time.
    private func fillDay(_ day: Int64, _ store: inout StoreConnection) throws {
        func number(at ms: Int64) -> Int64 {
            min(Int64(messageCount), (Int64(messageCount) * max(0, ms - firstMs) + spanMs - 1) / spanMs)
        }
        let table = Day.table(day)
        try store.postgres.execute("CREATE TABLE \(table) (LIKE messages INCLUDING DEFAULTS)")
        try store.postgres.query(
            """
            INSERT INTO \(table) (chat_id, ts, seq, message_id, sender, kind, body)
            SELECT ($1::uuid[])[(chat + 1)::int], $3::bigint + n * $4::bigint / $5::bigint, n, md5(n::text)::uuid,
                   ($2::uuid[])[((chat * 7 + n % 10 * $6::int) % $7::int + 1)::int], 'text',
                   ('{"text":"' || repeat('x', $8::int) || '"}')::json
            FROM (SELECT n, n * 7919 % $9::bigint AS chat FROM generate_series($10::bigint, $11::bigint - 1) n) numbered
            """,
            [
                .ids(chats), .ids(users), .int(firstMs), .int(spanMs), .int(Int64(messageCount)), .int(Int64(stride)),
                .int(Int64(users.count)), .int(Int64(Self.textBytes)), .int(Int64(chats.count)),
                .int(number(at: day)), .int(number(at: day + Day.ms)),
            ])
        try store.postgres.execute(
            """
            ALTER TABLE \(table) ADD PRIMARY KEY (chat_id, ts, seq);
            ALTER TABLE messages ATTACH PARTITION \(table) FOR VALUES FROM (\(day)) TO (\(day + Day.ms))
            """)
    }

    /// Nine members of ten have read up to some time of the last day, the others of the last ten.
    private func fillState(_ store: inout StoreConnection) throws {
        let counts: [PostgresValue] = [.int(firstMs), .int(spanMs), .int(Int64(messageCount))]
        try store.postgres.query(
            """
            INSERT INTO chat_activity (chat_id, last_seq, last_ts, changed_ts, last_sender, last_preview)
            SELECT c.chat_id, m.seq, m.ts, m.ts, m.sender, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'
            FROM chats c, LATERAL (
                SELECT * FROM messages WHERE chat_id = c.chat_id ORDER BY ts DESC, seq DESC LIMIT 1) m
            """)
        try store.postgres.query(
            """
            INSERT INTO read_state (user_id, chat_id, read_seq, read_ts, delivered_seq)
            SELECT user_id, chat_id, $3::bigint * (ts - $1::bigint) / $2::bigint, ts - ts % 60000, $3::bigint
            FROM (SELECT user_id, chat_id,
                         $1::bigint + $2::bigint
                         - least($2::bigint, (86400000 * random() * CASE WHEN random() < 0.9 THEN 1 ELSE 10 END)::bigint) AS ts
                  FROM members) reading
            """, counts)
        try store.postgres.query(
            """
            INSERT INTO sink_marks (partition, seq, ts, at_ms)
            SELECT p, $3::bigint * (ts - $1::bigint) / $2::bigint, ts, ts
            FROM generate_series(0, 15) p, generate_series($1::bigint, $1::bigint + $2::bigint, 60000) ts
            ON CONFLICT DO NOTHING
            """, counts)
        try store.postgres.query(
            """
            INSERT INTO sink_progress (topic, partition, next_offset, reached_ms)
            SELECT $1::text, p, 0, $2::bigint FROM generate_series(0, 15) p
            """, [.text(topic), .int(firstMs + spanMs)])
    }

    // MARK: The log

    /// Writes messages as the join does, which go on where the tables end.
    func write(_ count: Int, to name: String, _ kafka: KafkaConfiguration) throws {
        var options = ProducerOptions()
        options.lingerMs = 5
        let producer = try Producer(kafka, options)
        try producer.warmUp(topics: [name])
        let topic = try producer.topic(name)
        let places = chats.map { $0.partition(count: partitions) }
        var seqs = [Int64](repeating: Int64(messageCount), count: Int(partitions))
        let text =
            Array("{\"text\":\"".utf8) + [UInt8](repeating: UInt8(ascii: "x"), count: Self.textBytes)
            + Array("\"}".utf8)
        var reader = JSONReader(text.span)
        try reader.beginObject()
        _ = try reader.nextField()
        let quoted = try reader.readString()
        var json = JSONWriter()
        var random = SystemRandomNumberGenerator()
        for index in 0..<count {
            let chat = Int.random(in: chats.indices, using: &random)
            let partition = Int(places[chat])
            var message = IncomingMessage(
                id: .random(using: &random), chat: chats[chat], from: member(index % Self.membersPerChat, of: chat),
                device: DeviceID(UUID(high: 1, low: UInt64(index))), kind: .text)
            message.text = quoted
            json.removeAll()
            message.writeAccepted(seq: seqs[partition], ts: firstMs + spanMs, to: &json, source: text.span)
            seqs[partition] += 1
            while try producer.produce(
                topic, partition: Int32(partition), key: nil, value: json.bytes.span, tag: UInt64(index)) == .queueFull
            { producer.poll(timeoutMs: 100) { _ in } }
        }
        guard producer.close(deadlineMs: 120_000, { _ in }) else {
            throw HistoryError(.kafka, "the log did not take the messages in time")
        }
    }
}

/// Tells from when to when batches were stored: the sink reads the monotonic clock around each and at no other time. What
/// comes before, such as joining the group, is no part of the rate.
final class BatchClock: Clock {
    private let clock: any Clock
    /// 0 until it is known.
    private let firstNs = Atomic<UInt64>(0)
    private let lastNs = Atomic<UInt64>(0)

    init(_ clock: any Clock) { self.clock = clock }

    var wallMs: Int64 { clock.wallMs }
    var monotonicNs: UInt64 {
        let now = clock.monotonicNs
        _ = firstNs.compareExchange(expected: 0, desired: now, ordering: .relaxed)
        lastNs.store(now, ordering: .relaxed)
        return now
    }

    var seconds: Double { Double(lastNs.load(ordering: .relaxed) - firstNs.load(ordering: .relaxed)) / 1e9 }
}
