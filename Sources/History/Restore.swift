// `fanout restore`: what is to be done by hand after the log, or the database, or both were lost (docs/restore.md).
//
// Every step looks at what is there and does what is missing, so it may be run any number of times.
internal import KafkaClient
internal import PostgresClient
public import Runtime
internal import Store
internal import Wire

public struct Restore {
    /// What was lost.
    public enum Loss: String, CaseIterable, Sendable {
        /// The log, or some of its topics; the database is whole.
        case log
        /// The database; the log is whole.
        case database
        /// The database is one of a backup, from before; the log is whole.
        case backup
        /// The log, and the database is of a backup or empty.
        case both
    }

    private let configuration: HistoryConfiguration
    private let log: Log
    private let names: Names
    private let partitionCount: Int32

    /// A backup may be older than several logs, whose generations nobody knows any more.
    private static let generationsBetween: Int32 = 16

    public init(_ configuration: HistoryConfiguration, log: Log) throws {
        self.configuration = configuration
        self.log = log
        names = configuration.names
        let topics: [Topic] = [.incoming, .messages, .signals, .members, .users]
        do throws(KafkaError) {
            let admin = try Admin(configuration.kafka)
            defer { admin.close(deadlineMs: 1000) }
            partitionCount = try admin.partitionCounts(of: topics.map { [names] in names[$0] })[0]
        } catch {
            throw HistoryError(.kafka, "the topics are not there (\(error)); run fanout topics create first")
        }
    }

    public func run(_ loss: Loss) throws {
        var store = try StoreConnection(configuration.postgres)
        let applied = try Migrations.apply(to: &store.postgres)
        if !applied.isEmpty { log.info("brought the schema up to date", ["steps": .int(Int64(applied.count))]) }
        if loss == .database || loss == .backup { try fillTables(isOlder: loss == .backup, &store) }
        try raiseGenerations(loss, &store)
        try tellWhatIsLost(loss, &store)
    }

    // MARK: seq

    /// Seq never goes back: the log's generation is above all that the database and the log of accepted messages know.
    private func raiseGenerations(_ loss: Loss, _ store: inout StoreConnection) throws {
        guard let incoming = try configuration.kafka.identities(of: [names[.incoming]])[0] else {
            throw HistoryError(
                .kafka,
                "which log chat.incoming is cannot be told over TLS or SASL, with --kafka-property, or by brokers before 2.8: "
                    + "seq might go back, so nothing is restored")
        }
        let known = try store.rows(LogGenerations.known(names[.incoming], incoming))
        var floors: [Int32: Int32] = [:]
        let highest = try highestSeqs(&store)
        let ends = try ends(of: names[.incoming])
        for partition in 0..<partitionCount {
            let present = known.first { $0.partition == partition }?.generation
            let seq = highest[partition] ?? -1
            var floor = present ?? 0
            // A seq that this run cannot have given yet is of one before it.
            if seq >= LogRun(generation: floor).seq(of: ends[partition] ?? 0) {
                floor = LogRun.generation(ofSeq: seq) + 1
            }
            if loss == .both, present == nil { floor += Self.generationsBetween }
            floors[partition] = floor
        }
        let settled = try store.rows(LogGenerations.claim(names[.incoming], incoming, atLeast: floors))
        let isNew = settled.contains { entry in !known.contains(entry) }
        log.info(
            isNew ? "settled how messages are numbered from here on" : "messages are numbered as before",
            [
                "log": "\(incoming.topicID)",
                "generations": .string(
                    settled.sorted { $0.partition < $1.partition }.map { "\($0.generation)" }.joined(separator: ",")),
            ])
    }

    private func highestSeqs(_ store: inout StoreConnection) throws -> [Int32: Int64] {
        var highest: [Int32: Int64] = [:]
        let rows = try store.postgres.query(
            """
            SELECT partition::bigint, last_seq FROM sink_progress WHERE topic = $1
            UNION ALL SELECT partition::bigint, max(seq) FROM sink_marks GROUP BY partition
            """, [.text(names[.messages])])
        for row in 0..<rows.rowCount {
            guard let partition = rows.int(row, 0), let seq = rows.int(row, 1) else { continue }
            let key = Int32(clamping: partition)
            highest[key] = max(highest[key] ?? -1, seq)
        }
        // The last records alone: behind a join that died some may stand twice, none out of order by more.
        try read([names[.messages]], last: 100) { _, partition, _, value in
            guard let value, let message = try? AcceptedMessage(decoding: value) else { return }
            highest[partition] = max(highest[partition] ?? -1, message.seq)
        }
        return highest
    }

    // MARK: The log

    private func ends(of topic: String) throws -> [Int32: Int64] {
        let reader = try Consumer(configuration.kafka, ConsumerOptions())
        defer { reader.close(deadlineMs: 1000) }
        var ends: [Int32: Int64] = [:]
        for partition in 0..<partitionCount {
            ends[partition] = try reader.watermarks(TopicPartition(topic, partition)).high
        }
        return ends
    }

    /// Reads topics to their present ends, or the last records of each partition.
    private func read(
        _ topics: [String], last: Int64? = nil,
        _ body: (_ topic: String, _ partition: Int32, _ key: Span<UInt8>?, _ value: Span<UInt8>?) throws -> Void
    ) throws {
        var options = ConsumerOptions()
        options.reportsEndOfPartition = true
        let reader = try Consumer(configuration.kafka, options)
        defer { reader.close(deadlineMs: 1000) }
        var left: [TopicPartition: Int64] = [:]
        var starts: [PartitionStart] = []
        for topic in topics {
            for partition in 0..<partitionCount {
                let place = TopicPartition(topic, partition)
                let marks = try reader.watermarks(place)
                let start = last.map { max(marks.low, marks.high - $0) } ?? marks.low
                guard start < marks.high else { continue }
                left[place] = marks.high
                starts.append(PartitionStart(place, at: .offset(start)))
            }
        }
        try reader.assign(starts)
        while !left.isEmpty {
            let batch = reader.poll(maxMessages: 2000, timeoutMs: 100)
            for index in 0..<batch.count {
                let message = batch[index]
                let place = TopicPartition(reader.name(of: message.topic), message.partition)
                guard let end = left[place], message.offset < end else { continue }
                try body(place.topic, place.partition, message.key, message.value)
                if message.offset == end - 1 { left[place] = nil }
            }
            switch batch.event {
            case .endOfPartition(let place, _): left[place] = nil
            case .lostPlace(let place): throw HistoryError(.kafka, "a topic changed while it was read: \(place)")
            case .error(let error, _) where !error.isRetriable: throw error
            default: break
            }
        }
    }

    // MARK: Users, chats and members

    /// Makes the tables what the log last told of them. Who had left, or was deleted, since a backup goes again.
    private func fillTables(isOlder: Bool, _ store: inout StoreConnection) throws {
        var rows = RowsOfTopics()
        try read([names[.users], names[.members]]) { _, _, key, value in
            guard let key else { return }
            rows.take(key: key, value: value)
        }
        guard !rows.isEmpty else {
            throw HistoryError(.kafka, "chat.users and chat.members are empty: there is nothing to restore from")
        }
        let (users, chats, members) = (rows.rows(.users), rows.rows(.chats), rows.rows(.members))
        for (table, list) in [("users", users), ("chats", chats), ("members", members)] where isOlder && list.isEmpty {
            guard try store.postgres.query("SELECT FROM \(table) LIMIT 1", []).rowCount == 0 else {
                throw HistoryError(
                    .kafka,
                    "the log tells no row of \(table), and the table has some, which would be deleted: is the topic "
                        + "new? Let CDC fill it, or use restore database")
            }
        }
        var counts = (written: 0, removed: 0)
        try store.postgres.transaction { postgres throws(PostgresError) in
            if isOlder {
                for sql in RestoreSQL.removals {
                    counts.removed += try postgres.query(
                        sql, [.texts(users), .texts(chats), .texts(members)]
                    ).affectedRows
                }
            }
            for (sql, list) in [(RestoreSQL.users, users), (RestoreSQL.chats, chats), (RestoreSQL.members, members)] {
                var rest = list[...]
                while !rest.isEmpty {
                    counts.written += try postgres.query(sql, [.texts(Array(rest.prefix(5000)))]).affectedRows
                    rest = rest.dropFirst(5000)
                }
            }
            // The members' triggers have raised the versions; none may be below what has been told.
            try postgres.query(RestoreSQL.versions, [.texts(chats)])
            try postgres.execute(RestoreSQL.directChats)
        }
        log.info(
            "users, chats and members are what the log last told",
            [
                "users": .int(Int64(users.count)), "chats": .int(Int64(chats.count)),
                "members": .int(Int64(members.count)), "rows_written": .int(Int64(counts.written)),
                "rows_removed": .int(Int64(counts.removed)),
            ])
    }

    // MARK: What cannot be had back

    private func tellWhatIsLost(_ loss: Loss, _ store: inout StoreConnection) throws {
        switch loss {
        case .log, .both:
            let rows = try store.postgres.query(
                "SELECT partition::bigint, next_offset, last_seq FROM sink_progress WHERE topic = $1 ORDER BY partition",
                [.text(names[.messages])])
            for row in 0..<rows.rowCount {
                log.warning(
                    "lost: what chat.messages held of this partition beyond the last message that is stored",
                    [
                        "partition": .int(rows.int(row, 0) ?? -1), "position": .int(rows.int(row, 1) ?? -1),
                        "last_seq": .int(rows.int(row, 2) ?? -1),
                    ])
            }
            log.warning("lost: what was sent and not yet delivered; devices that were away are told to reload")
            if loss == .both { log.warning("lost: changes of users, chats and members since the backup") }
        case .database:
            log.warning(
                "lost: read positions older than chat.signals reaches back, push subscriptions and tokens, the places of devices that keep none themselves, and messages older than chat.messages reaches back"
            )
        case .backup:
            log.warning(
                "lost: push subscriptions and tokens made since the backup, and read positions since then that chat.signals no longer tells"
            )
        }
    }
}
