internal import PostgresClient
public import Wire

/// Which generation the runs of `chat.incoming`'s partitions have (docs/decisions/012). One place for all who number
/// messages: the join, which writes seq, and the chat servers, which tell it to senders.
public enum LogGenerations {
    public struct Entry: Sendable, Equatable {
        public let partition: Int32
        public let generation: Int32
    }

    /// Those of one log; none before somebody has claimed them.
    public static func known(_ topic: String, _ log: LogIdentity) -> Statement<Entry> {
        Statement(
            "generations.known",
            "SELECT partition::bigint, generation::bigint FROM log_runs WHERE topic = $1 AND log = $2",
            [.text(topic), .uuid(log.topicID)], read)
    }

    /// Makes sure that the log has generations, the next after those of all logs before it, and that none is below what is
    /// asked for. Whoever asks first settles it for all.
    public static func claim(
        _ topic: String, _ log: LogIdentity, atLeast: [Int32: Int32]
    ) -> Statement<Entry> {
        let partitions = atLeast.keys.sorted()
        return Statement(
            "generations.claim",
            """
            INSERT INTO log_runs AS known (topic, partition, log, generation)
            SELECT $1, v.part, $2, greatest(v.least, coalesce(
                (SELECT r.generation FROM log_runs r WHERE r.topic = $1 AND r.partition = v.part AND r.log = $2),
                (SELECT max(r.generation) + 1 FROM log_runs r WHERE r.topic = $1 AND r.partition = v.part), 0))
            FROM unnest($3::bigint[], $4::bigint[]) AS v(part, least)
            ON CONFLICT (topic, partition, log) DO UPDATE SET generation = greatest(known.generation, excluded.generation)
            RETURNING partition::bigint, generation::bigint
            """,
            [
                .text(topic), .uuid(log.topicID), .ints(partitions.map(Int64.init)),
                .ints(partitions.map { Int64(atLeast[$0] ?? 0) }),
            ], read)
    }

    private static let read: @Sendable (borrowing PostgresResult, Int) -> Entry? = { row, index in
        guard let partition = row.int(index, 0), let generation = row.int(index, 1) else { return nil }
        return Entry(partition: Int32(clamping: partition), generation: Int32(clamping: generation))
    }
}
