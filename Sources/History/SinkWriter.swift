// One transaction a batch: positions, messages, what they change, marks, reading.
//
// The positions go first and only move if they are where this sink believes them to be. So two sinks that both think a
// partition theirs (a member that was declared dead and is not) cannot both store its records: the second waits for the
// first's transaction, finds the position moved, and starts over from there.
internal import PostgresClient
internal import Store
internal import Wire

struct PartitionKey: Hashable, Comparable, CustomStringConvertible {
    var topic: String
    var partition: Int32

    var description: String { "\(topic)/\(partition)" }

    static func < (left: Self, right: Self) -> Bool { (left.topic, left.partition) < (right.topic, right.partition) }
}

enum SinkWriter {
    struct Step {
        var from: SinkBatch.Position
        var to: SinkBatch.Position
        var reachedMs: Int64
    }

    enum Outcome: Equatable {
        case stored
        /// Another sink has moved these positions. Nothing is stored.
        case fenced
        /// What must be passed over could not be told. Nothing is stored.
        case untold
    }

    /// Stores a batch, or throws with nothing of it stored.
    ///
    /// - Parameters:
    ///   - carefully: row by row, leaving out those that Postgres refuses.
    ///   - tell: is given these rows, by index, before the positions move past them, and says whether they may.
    static func write(
        _ batch: SinkBatch, _ steps: [PartitionKey: Step], carefully: Bool = false, _ store: inout StoreConnection,
        tell: ([Int]) -> Bool
    ) throws(PostgresError) -> Outcome {
        try store.postgres.execute("BEGIN")
        do throws(PostgresError) {
            guard try move(steps, &store.postgres) else {
                try store.postgres.execute("ROLLBACK")
                return .fenced
            }
            let refused = try copy(batch, carefully: carefully, &store.postgres)
            try storeActivity(batch.activity, &store.postgres)
            try apply(batch.changes, &store.postgres)
            try storeMarks(batch.marks, &store.postgres)
            try storeReadings(batch.readings, &store.postgres)
            if let lostBeforeMs = batch.lostBeforeMs { try setDropped(beforeMs: lostBeforeMs, &store.postgres) }
            guard tell(refused) else {
                try store.postgres.execute("ROLLBACK")
                return .untold
            }
            try store.postgres.execute("COMMIT")
            return .stored
        } catch {
            if store.postgres.isGood { _ = try? store.postgres.execute("ROLLBACK") }
            throw error
        }
    }

    private static func move(
        _ steps: [PartitionKey: Step], _ postgres: inout PostgresConnection
    ) throws(PostgresError) -> Bool {
        let keys = steps.keys.sorted()
        let all = keys.compactMap { steps[$0] }
        let moved = try postgres.query(
            """
            UPDATE sink_progress p SET next_offset = v.next, last_seq = v.seq, reached_ms = greatest(p.reached_ms, v.reached)
            FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
                AS v(topic, part, was, next, seq, reached)
            WHERE p.topic = v.topic AND p.partition = v.part AND p.next_offset = v.was
            """,
            [
                .texts(keys.map(\.topic)), .ints(keys.map { Int64($0.partition) }), .ints(all.map(\.from.nextOffset)),
                .ints(all.map(\.to.nextOffset)), .ints(all.map(\.to.lastSeq)), .ints(all.map(\.reachedMs)),
            ]
        ).affectedRows
        return moved == steps.count
    }

    // MARK: Messages

    private static func copy(
        _ batch: SinkBatch, carefully: Bool, _ postgres: inout PostgresConnection
    ) throws(PostgresError) -> [Int] {
        guard batch.rowCount > 0 else { return [] }
        guard carefully else {
            let rows = batch.sortedRows()
            try postgres.beginCopyIn(Copy.messages)
            try postgres.writeCopy(rows.span)
            try postgres.endCopy()
            return []
        }
        let (header, trailer) = (Copy.header, Copy.trailer)
        var refused: [Int] = []
        for index in 0..<batch.rowCount {
            try postgres.execute("SAVEPOINT row")
            do throws(PostgresError) {
                try postgres.beginCopyIn(Copy.messages)
                try postgres.writeCopy(header.span)
                try postgres.writeCopy(batch.rows.span.extracting(batch.row(index)))
                try postgres.writeCopy(trailer.span)
                try postgres.endCopy()
                try postgres.execute("RELEASE row")
            } catch {
                guard error.code == .server, postgres.isGood, !error.isTransient else { throw error }
                try postgres.execute("ROLLBACK TO row")
                // A row that is there already is as good as stored.
                if error.sqlState != "23505" { refused.append(index) }
            }
        }
        return refused
    }

    /// Applies edits and deletes to their targets. Whether their senders might was decided by the join, from the members at
    /// that place of the log; who is an admin today says nothing about it.
    private static func apply(
        _ changes: [SinkBatch.Change], _ postgres: inout PostgresConnection
    ) throws(PostgresError) {
        for change in changes {
            // The marks around the target's seq say between which times to look.
            let found = try postgres.query(
                """
                SELECT m.ts, m.body FROM messages m
                WHERE m.chat_id = $1 AND m.seq = $2 AND m.kind = 'text'
                  AND m.ts >= coalesce((SELECT ts FROM sink_marks WHERE partition = $3 AND seq <= $2
                                        ORDER BY seq DESC LIMIT 1), 0)
                  AND m.ts <= coalesce((SELECT ts FROM sink_marks WHERE partition = $3 AND seq > $2
                                        ORDER BY seq LIMIT 1), \(Int64.max))
                  AND coalesce(m.changed_seq, -1) < $4
                FOR UPDATE OF m
                """,
                [.id(change.chat), .int(change.target), .int(Int64(change.partition)), .int(change.seq)])
            guard found.rowCount == 1, let ts = found.int(0, 0) else { continue }
            let body = change.isDelete ? Array("{}".utf8) : Self.edited(found.bytes(0, 1), text: change.text.span)
            try postgres.query(
                """
                UPDATE messages SET kind = $4, body = $5, changed_seq = $6 WHERE chat_id = $1 AND ts = $2 AND seq = $3
                """,
                [
                    .id(change.chat), .int(ts), .int(change.target), .text(change.isDelete ? "deleted" : "text"),
                    .text(String(decoding: body, as: UTF8.self)), .int(change.seq),
                ])
            try postgres.query(
                "UPDATE chat_activity SET last_preview = $3 WHERE chat_id = $1 AND last_seq = $2",
                [.id(change.chat), .int(change.target), .text(change.isDelete ? "" : preview(of: change.text.span))])
        }
    }

    /// The body with another text and all else as it was.
    static func edited(_ body: Span<UInt8>, text: Span<UInt8>) -> [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.field("text", raw: text)
        var reader = JSONReader(body)
        // A body that we wrote ourselves; if it were not JSON, only its other fields would be lost.
        if (try? reader.beginObject()) != nil {
            while let name = try? reader.nextField() {
                guard let value = try? reader.skipValue() else { break }
                if !name.equals("text", in: body) {
                    json.field(name.text(in: body), raw: body.extracting(value))
                }
            }
        }
        json.endObject()
        return json.bytes
    }

    private static func preview(of text: Span<UInt8>) -> String {
        var reader = JSONReader(text)
        return (try? reader.readString()).map { SinkBatch.preview($0, in: text) } ?? ""
    }

    // MARK: What is known of chats and readers

    private static func storeActivity(
        _ activity: [ChatID: SinkBatch.Activity], _ postgres: inout PostgresConnection
    ) throws(PostgresError) {
        guard !activity.isEmpty else { return }
        let chats = activity.keys.sorted()
        let all = chats.compactMap { activity[$0] }
        let nobody = UUID(high: 0, low: 0)
        let parameters: [PostgresValue] = [
            .ids(chats), .ints(all.map(\.lastSeq)), .ints(all.map { $0.lastSeq < 0 ? $0.changedTs : $0.lastTs }),
            .uuids(all.map { $0.sender?.uuid ?? nobody }), .texts(all.map(\.preview)), .ints(all.map(\.changedTs)),
        ]
        let values = """
            (SELECT chat, seq, ts, nullif(sender, '00000000-0000-0000-0000-000000000000') AS sender, preview, changed
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::uuid[], $5::text[], $6::bigint[])
                 AS u(chat, seq, ts, sender, preview, changed)) v
            """
        // A chat of which this batch has only edits keeps its last message.
        let updated = try postgres.query(
            """
            UPDATE chat_activity a SET
                last_seq = greatest(a.last_seq, v.seq),
                last_ts = CASE WHEN v.seq > a.last_seq THEN v.ts ELSE a.last_ts END,
                last_sender = CASE WHEN v.seq > a.last_seq THEN v.sender ELSE a.last_sender END,
                last_preview = CASE WHEN v.seq > a.last_seq THEN v.preview ELSE a.last_preview END,
                changed_ts = greatest(a.changed_ts, v.changed)
            FROM \(values) WHERE a.chat_id = v.chat
            """, parameters
        ).affectedRows
        guard updated < chats.count else { return }
        // Chats in which something is said for the first time; those that are gone have no activity. Not one upsert for
        // all: it locks and logs each row before it updates it, at half the price again.
        try postgres.query(
            """
            INSERT INTO chat_activity (chat_id, last_seq, last_ts, last_sender, last_preview, changed_ts)
            SELECT v.chat, v.seq, v.ts, v.sender, v.preview, v.changed FROM \(values) JOIN chats c ON c.chat_id = v.chat
            ON CONFLICT DO NOTHING
            """, parameters)
    }

    private static func storeMarks(
        _ marks: [SinkBatch.Mark], _ postgres: inout PostgresConnection
    ) throws(PostgresError) {
        guard !marks.isEmpty else { return }
        try postgres.query(
            """
            INSERT INTO sink_marks (partition, seq, ts, at_ms)
            SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
            ON CONFLICT DO NOTHING
            """,
            [
                .ints(marks.map { Int64($0.partition) }), .ints(marks.map(\.seq)), .ints(marks.map(\.ts)),
                .ints(marks.map(\.atMs)),
            ])
    }

    /// Anybody may write a signal about any chat; only members have a place in it.
    private static func storeReadings(
        _ readings: [SinkBatch.Reader: SinkBatch.Reading], _ postgres: inout PostgresConnection
    ) throws(PostgresError) {
        guard !readings.isEmpty else { return }
        let readers = readings.keys.sorted { ($0.user, $0.chat) < ($1.user, $1.chat) }
        let all = readers.compactMap { readings[$0] }
        try postgres.query(
            """
            INSERT INTO read_state AS r (user_id, chat_id, read_seq, read_ts, delivered_seq)
            SELECT v.reader, v.chat, least(v.seq, b.newest),
                   coalesce((SELECT ts FROM sink_marks WHERE partition = v.part AND seq <= least(v.seq, b.newest)
                             ORDER BY seq DESC LIMIT 1), 0),
                   least(v.delivered, b.newest)
            FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
                AS v(reader, chat, seq, delivered, part, newest)
            LEFT JOIN chat_activity a ON a.chat_id = v.chat
            CROSS JOIN LATERAL (SELECT greatest(v.newest, a.last_seq) AS newest) b
            JOIN members m ON m.chat_id = v.chat AND m.user_id = v.reader
            ON CONFLICT (user_id, chat_id) DO UPDATE SET
                read_seq = greatest(r.read_seq, excluded.read_seq),
                read_ts = greatest(r.read_ts, excluded.read_ts),
                delivered_seq = greatest(r.delivered_seq, excluded.delivered_seq)
            """,
            [
                .ids(readers.map(\.user)), .ids(readers.map(\.chat)), .ints(all.map(\.readSeq)),
                .ints(all.map(\.deliveredSeq)), .ints(all.map { Int64($0.partition) }), .ints(all.map(\.limitSeq)),
            ])
    }

    // MARK: Positions

    /// Where to go on in these partitions. All partitions of these topics that are new are written down at 0, also those
    /// that are not ours: a sync must not take what some of the sinks have stored for everything.
    static func positions(
        of keys: [PartitionKey], partitionCount: Int32, _ store: inout StoreConnection
    ) throws(PostgresError) -> [PartitionKey: SinkBatch.Position] {
        let keys = keys.sorted()
        try store.postgres.query(
            """
            INSERT INTO sink_progress (topic, partition, next_offset)
            SELECT t, p, 0 FROM unnest($1::text[]) t, generate_series(0, $2::bigint - 1) p
            ON CONFLICT (topic, partition) DO NOTHING
            """, [.texts(Set(keys.map(\.topic)).sorted()), .int(Int64(partitionCount))])
        let parameters: [PostgresValue] = [.texts(keys.map(\.topic)), .ints(keys.map { Int64($0.partition) })]
        let rows = try store.postgres.query(
            """
            SELECT s.topic, s.partition, s.next_offset, s.last_seq, s.reached_ms,
                   (SELECT at_ms FROM sink_marks m WHERE m.partition = s.partition ORDER BY seq DESC LIMIT 1), s.log
            FROM sink_progress s JOIN unnest($1::text[], $2::bigint[]) v(t, p) ON s.topic = v.t AND s.partition = v.p
            """, parameters)
        var positions: [PartitionKey: SinkBatch.Position] = [:]
        for row in 0..<rows.rowCount {
            guard let topic = rows.text(row, 0), let partition = rows.int(row, 1), let next = rows.int(row, 2),
                let lastSeq = rows.int(row, 3)
            else { continue }
            positions[PartitionKey(topic: topic, partition: Int32(clamping: partition))] = SinkBatch.Position(
                nextOffset: next, lastSeq: lastSeq, lastMarkMs: rows.int(row, 5) ?? .min,
                log: rows.uuid(row, 6).flatMap { LogIdentity(topicID: $0) })
        }
        return positions
    }

    /// Goes on somewhere else: with another log, or where one has lost its end. `lostBeforeMs`: not all that was in the log
    /// before is here.
    static func move(
        _ key: PartitionKey, to position: SinkBatch.Position, lostBeforeMs: Int64?, _ store: inout StoreConnection
    ) throws(PostgresError) {
        try store.postgres.transaction { postgres throws(PostgresError) in
            try postgres.query(
                "UPDATE sink_progress SET next_offset = $3, last_seq = $4, log = $5 WHERE topic = $1 AND partition = $2",
                [
                    .text(key.topic), .int(Int64(key.partition)), .int(position.nextOffset), .int(position.lastSeq),
                    position.log.map { .uuid($0.topicID) } ?? .null,
                ])
            if let lostBeforeMs { try setDropped(beforeMs: lostBeforeMs, &postgres) }
        }
    }

    /// Which log each position is of, where it was not known.
    static func setLogs(_ logs: [PartitionKey: LogIdentity], _ store: inout StoreConnection) throws(PostgresError) {
        guard !logs.isEmpty else { return }
        let keys = logs.keys.sorted()
        try store.postgres.query(
            """
            UPDATE sink_progress p SET log = v.log FROM unnest($1::text[], $2::bigint[], $3::uuid[]) AS v(topic, part, log)
            WHERE p.topic = v.topic AND p.partition = v.part AND p.log IS NULL
            """,
            [
                .texts(keys.map(\.topic)), .ints(keys.map { Int64($0.partition) }),
                .uuids(keys.compactMap { logs[$0]?.topicID }),
            ])
    }

    /// The records up to `offset` are gone from the log, and nothing follows them.
    static func skip(
        _ key: PartitionKey, to offset: Int64, lostBeforeMs: Int64?, _ store: inout StoreConnection
    ) throws(PostgresError) {
        try store.postgres.transaction { postgres throws(PostgresError) in
            try postgres.query(
                "UPDATE sink_progress SET next_offset = $3 WHERE topic = $1 AND partition = $2 AND next_offset < $3",
                [.text(key.topic), .int(Int64(key.partition)), .int(offset)])
            if let lostBeforeMs { try setDropped(beforeMs: lostBeforeMs, &postgres) }
        }
    }

    /// Says that what the log took before this time is not all here: who was away since then must start over. It stands in
    /// `sink_progress`, with no topic.
    static func setDropped(beforeMs: Int64, _ postgres: inout PostgresConnection) throws(PostgresError) {
        try postgres.query(
            """
            INSERT INTO sink_progress (topic, partition, next_offset, reached_ms) VALUES ('', 0, 0, $1)
            ON CONFLICT (topic, partition) DO UPDATE SET reached_ms = greatest(sink_progress.reached_ms, excluded.reached_ms)
            """, [.int(beforeMs)])
    }

    /// Everything that the log took before `reachedMs` is stored in these partitions, if they are still where we are.
    static func setReached(
        _ keys: [PartitionKey], _ positions: [PartitionKey: SinkBatch.Position], reachedMs: Int64,
        _ store: inout StoreConnection
    ) throws(PostgresError) {
        guard !keys.isEmpty else { return }
        let keys = keys.sorted()
        try store.postgres.query(
            """
            UPDATE sink_progress p SET reached_ms = $4
            FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS v(topic, part, next)
            WHERE p.topic = v.topic AND p.partition = v.part AND p.next_offset = v.next AND p.reached_ms < $4
            """,
            [
                .texts(keys.map(\.topic)), .ints(keys.map { Int64($0.partition) }),
                .ints(keys.map { positions[$0]?.nextOffset ?? -1 }), .int(reachedMs),
            ])
    }
}
