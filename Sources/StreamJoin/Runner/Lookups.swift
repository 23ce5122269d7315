import KafkaClient
import PostgresClient
import Runtime
import Synchronization
import System
import Wire

struct LookupAnswer: Sendable {
    enum Content: Sendable {
        case members(ChatMembership)
        case original(Original)
    }

    let question: JoinQuestion
    let partition: Int32
    let life: UInt32
    /// `nil` when there was no answer.
    let content: Content?
}

/// Answers what tasks cannot know from the log so far: a chat's members as Postgres has them, and who wrote an old
/// message. Both are rare, and both block, so they have a thread of their own.
final class Lookups: Sendable {
    private struct Handles: ~Copyable {
        var postgres: PostgresConnection?
        var reader: Consumer?
        var admin: Admin?
    }

    private let configuration: JoinConfiguration
    private let sink: KafkaLogSink
    private let answers: Mailbox<LookupAnswer>
    private let commits: Mailbox<[Int32: Int64]>
    private let thread: LoopThread
    private let postgres: Health.Condition
    private let handles = Mutex(Handles())

    /// A question that takes longer has failed and is asked again.
    private static let timeoutMs = 2000

    init(
        _ configuration: JoinConfiguration, answers: Mailbox<LookupAnswer>, commits: Mailbox<[Int32: Int64]>,
        postgres: Health.Condition, _ sink: @escaping KafkaLogSink
    ) throws {
        self.answers = answers
        self.commits = commits
        self.postgres = postgres
        self.configuration = configuration
        self.sink = sink
        thread = try LoopThread.start(name: "join-lookups") { (_: EventLoop) throws(SystemError) in }
    }

    /// The answers come to the mailbox that was given.
    func ask(_ question: JoinQuestion, partition: Int32, life: UInt32) {
        thread.remote.execute { [self] _ in
            let content: LookupAnswer.Content?
            switch question {
            case .members(let chat):
                content = try? members(of: chat)
                if configuration.postgres == nil || content != nil {
                    postgres.met()
                } else {
                    postgres.impaired("members of a chat cannot be read: its messages wait for the log to tell them")
                }
            case .original(let seq): content = try? original(seq, partition: partition)
            }
            // A partition has one question at a time, so the box has room for all.
            _ = answers.post(LookupAnswer(question: question, partition: partition, life: life, content: content))
        }
    }

    /// Asks how far the group has committed `chat.members`; what could not be learnt is asked again by whoever asks.
    func askCommits(_ partitions: [Int32]) {
        thread.remote.execute { [self] _ in
            if let positions = try? committed(partitions) { _ = commits.post(positions) }
        }
    }

    func close() {
        thread.stop()
        thread.join()
        handles.withLock { handles in
            handles.reader?.close(deadlineMs: 1000)
            handles.admin?.close(deadlineMs: 1000)
            handles = Handles()
        }
    }

    // MARK: Postgres

    /// The chat's version and its members at one moment, from the primary: a replica may be behind the sender.
    private static let query = """
        SELECT c.meta_version, m.user_id, m.role FROM chats c LEFT JOIN members m USING (chat_id) WHERE c.chat_id = $1
        """

    private func members(of chat: ChatID) throws -> LookupAnswer.Content? {
        guard let postgres = configuration.postgres else { return nil }
        return try handles.withLock { handles throws -> LookupAnswer.Content? in
            if handles.postgres == nil {
                var connection = try PostgresConnection(postgres, overriding: [("application_name", "fanout join")])
                connection.answerTimeoutMs = Self.timeoutMs
                handles.postgres = consume connection
            }
            guard var connection = handles.postgres.take() else { return nil }
            let rows = try connection.query(Self.query, [.id(chat)])
            var membership = ChatMembership(chat: chat, metaVersion: 0, members: [])
            for row in 0..<rows.rowCount {
                membership.metaVersion = rows.int(row, 0) ?? 0
                guard let user: UserID = rows.id(row, 1) else { continue }
                membership.members.append(.init(user, rows.text(row, 2) == "admin" ? .admin : .member))
            }
            // After an error it is dropped instead, and the next question makes another.
            handles.postgres = consume connection
            return .members(membership)
        }
    }

    // MARK: The log

    private func committed(_ partitions: [Int32]) throws -> [Int32: Int64] {
        let names = configuration.names
        return try handles.withLock { handles in
            if handles.admin == nil { handles.admin = try Admin(configuration.kafka, log: sink) }
            let offsets = try handles.admin?.groupOffsets(
                names.group("join"), partitions.map { TopicPartition(names[.members], $0) },
                timeoutMs: Self.timeoutMs)
            var positions: [Int32: Int64] = [:]
            for entry in offsets ?? [] { positions[entry.partition.partition] = entry.offset }
            return positions
        }
    }

    private func original(_ seq: Int64, partition: Int32) throws -> LookupAnswer.Content? {
        let place = TopicPartition(configuration.names[.incoming], partition)
        let offset = LogRun.offset(ofSeq: seq)
        return try handles.withLock { handles throws -> LookupAnswer.Content? in
            if handles.reader == nil {
                var options = ConsumerOptions()
                options.startWithoutCommit = .error
                options.fetchWaitMs = 10
                handles.reader = try Consumer(configuration.kafka, options, log: sink)
            }
            guard let reader = handles.reader else { return nil }
            let marks = try reader.watermarks(place, timeoutMs: Self.timeoutMs)
            guard offset >= marks.low, offset < marks.high else { return .original(.none) }
            try reader.assign([PartitionStart(place, at: .offset(offset))])
            defer { try? reader.unassign() }
            let clock = SystemClock()
            let deadline = clock.monotonicNs + UInt64(Self.timeoutMs) * 1_000_000
            while clock.monotonicNs < deadline {
                let batch = reader.poll(maxMessages: 1, timeoutMs: 50)
                // The message is gone, or nobody can read it: as if there had been none.
                if case .lostPlace = batch.event { return .original(.none) }
                guard batch.count > 0 else { continue }
                let message = batch[0]
                guard message.offset == offset, let value = message.value,
                    let original = try? IncomingMessage(decoding: value), original.kind == .text
                else { return .original(.none) }
                return .original(.message(chat: original.chat, from: original.from))
            }
            return nil
        }
    }
}
