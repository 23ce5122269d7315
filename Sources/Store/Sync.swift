// What a device missed that was away for longer than the hot window reaches back.
//
// Its cursor tells when the last delivery that it has was written. What it misses is what the join accepted after that,
// in all chats that it is in:
//
//  1. `coverage` once: too old a cursor (before `droppedBeforeMs`) gets `"reset":true` and the conversation list
//     instead. The rest is here when the sink has come past the start of the hot window: wait until
//     `isComplete(upToMs: windowStart.timestamp)`, asking again every few dozen milliseconds.
//  2. `bounds` and `chats`, and of them `SyncPlan`.
//  3. `plan.nextPage()` and `plan.received(rows)` in turns until it is finished, each page as the socket has room for it.
//
// The device may get messages that it has (it drops what it knows by chat and seq), and never misses one. Each chat's
// messages come in order.
internal import PostgresClient
public import Wire

public enum Sync {
    /// Deliveries and accepted messages are written a moment apart, by clocks that differ: start that much earlier.
    static let slackMs: Int64 = 10_000

    public struct Coverage: Sendable, Equatable {
        /// How many partitions the sink stores.
        public let partitionCount: Int
        /// What was accepted before this is stored, in all partitions.
        public let reachedMs: Int64
        /// Older messages have been dropped.
        public let droppedBeforeMs: Int64

        public func isComplete(upToMs: Int64) -> Bool { partitionCount > 0 && reachedMs >= upToMs + 1000 }
        public func isTooOld(cursorMs: Int64) -> Bool { cursorMs - slackMs < droppedBeforeMs }
    }

    /// - Parameter topic: the cluster's name of `chat.messages`.
    public static func coverage(topic: String) -> Statement<Coverage> {
        Statement(
            "sync.coverage",
            """
            SELECT count(*), coalesce(min(reached_ms), 0),
                   coalesce((SELECT max(reached_ms) FROM sink_progress WHERE topic = ''), 0)
            FROM sink_progress WHERE topic = $1
            """, [.text(topic)]
        ) { row, index in
            guard let count = row.int(index, 0), let reachedMs = row.int(index, 1), let dropped = row.int(index, 2)
            else { return nil }
            return Coverage(partitionCount: Int(count), reachedMs: reachedMs, droppedBeforeMs: dropped)
        }
    }

    /// For a partition, no message accepted after the asked-for time is older than `ts`.
    public struct Bound: Sendable, Equatable {
        public let partition: Int32
        public let ts: Int64

        public init(partition: Int32, ts: Int64) {
            self.partition = partition
            self.ts = ts
        }
    }

    public static func bounds(afterMs: Int64, topic: String) -> Statement<Bound> {
        Statement(
            "sync.bounds",
            """
            SELECT p.partition,
                   coalesce((SELECT m.ts FROM sink_marks m WHERE m.partition = p.partition AND m.at_ms <= $1
                             ORDER BY m.at_ms DESC LIMIT 1), 0)
            FROM sink_progress p WHERE p.topic = $2
            """, [.int(afterMs - slackMs), .text(topic)]
        ) { row, index in
            guard let partition = row.int(index, 0), let ts = row.int(index, 1) else { return nil }
            return Bound(partition: Int32(clamping: partition), ts: ts)
        }
    }

    public struct Chat: Sendable, Equatable {
        public let chat: ChatID
        public let changedTs: Int64
        public let readableFromMs: Int64

        public init(chat: ChatID, changedTs: Int64, readableFromMs: Int64) {
            self.chat = chat
            self.changedTs = changedTs
            self.readableFromMs = readableFromMs
        }
    }

    /// The user's chats in which something was said since the earliest of the bounds.
    public static func chats(of user: UserID, since bounds: [Bound]) -> Statement<Chat> {
        Statement(
            "sync.chats",
            """
            SELECT m.chat_id, a.changed_ts,
                   CASE WHEN c.open_history THEN 0 ELSE floor(extract(epoch FROM m.joined_at) * 1000)::bigint END
            FROM members m JOIN chat_activity a USING (chat_id) JOIN chats c USING (chat_id)
            WHERE m.user_id = $1 AND a.changed_ts >= $2
            ORDER BY a.changed_ts DESC
            """, [.id(user), .int(bounds.map(\.ts).min() ?? 0)]
        ) { row, index in
            guard let chat: ChatID = row.id(index, 0), let changedTs = row.int(index, 1),
                let readableFromMs = row.int(index, 2)
            else { return nil }
            return Chat(chat: chat, changedTs: changedTs, readableFromMs: readableFromMs)
        }
    }
}

/// Walks through the missed messages chat by chat, the most recently active first, a page at a time.
public struct SyncPlan: Sendable {
    /// Chats still to be read, the current one last, each with the place after which to read.
    private var rest: [(chat: ChatID, after: (ts: Int64, seq: Int64))]
    private let limit: Int
    /// A page asks for so many chats at most.
    private static let chatsMax = 64
    private var asked: Int = 0

    /// - Parameter partitionCount: of the chat-side topics.
    public init(_ chats: [Sync.Chat], bounds: [Sync.Bound], partitionCount: Int32, limit: Int = 500) {
        let byPartition = Dictionary(bounds.map { ($0.partition, $0.ts) }, uniquingKeysWith: min)
        self.limit = limit
        rest = chats.reversed().compactMap { chat in
            let bound = byPartition[chat.chat.partition(count: partitionCount)] ?? 0
            guard chat.changedTs >= bound else { return nil }
            return (chat.chat, (max(bound, chat.readableFromMs), -1))
        }
    }

    public var isFinished: Bool { rest.isEmpty }

    /// Empty pages are possible; go on until `isFinished`.
    public mutating func nextPage() -> Statement<StoredMessage> {
        let chats = rest.suffix(Self.chatsMax).reversed()
        asked = chats.count
        return Statement(
            "sync.page",
            """
            SELECT m.* FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS q(chat, ts, seq),
            LATERAL (
                SELECT \(StoredMessage.columns) FROM messages
                WHERE chat_id = q.chat AND ts >= q.ts AND (ts, seq) > (q.ts, q.seq)
                ORDER BY ts, seq LIMIT $4
            ) m
            LIMIT $4
            """,
            [
                .ids(chats.map(\.chat)), .ints(chats.map(\.after.ts)), .ints(chats.map(\.after.seq)),
                .int(Int64(limit)),
            ], StoredMessage.read)
    }

    public mutating func received(_ rows: [StoredMessage]) {
        if rows.count < limit {
            // All that was asked for is there.
            rest.removeLast(asked)
        } else if let last = rows.last {
            while let current = rest.last, current.chat != last.chat { rest.removeLast() }
            if !rest.isEmpty { rest[rest.count - 1].after = (last.ts, last.seq) }
        }
        asked = 0
    }
}
