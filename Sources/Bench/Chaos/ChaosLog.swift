import KafkaClient
import Wire

/// What the log holds of the storm's chats once it is over.
struct ChaosLog {
    struct Accepted: Equatable {
        let id: MessageID
        let seq: Int64
        let from: UserID
        /// What the join was told that the sender had seen.
        var seenVersion: Int64 = 0
    }

    /// Rising by seq.
    var accepted: [ChatID: [Accepted]] = [:]
    var rejected: Set<MessageID> = []
    var memberships: [ChatID: MembershipHistory] = [:]

    /// Whether everything that was acknowledged has been accepted or refused by the join, and CDC has told every version of a
    /// membership that a sender had seen: the join may have had it from Postgres long before.
    func settles(_ record: ChaosRecord) -> Bool {
        let versions = memberships.mapValues { $0.states.last?.version ?? 0 }
        guard record.sent.values.allSatisfy({ $0.seenVersion <= versions[$0.chat] ?? 0 }) else { return false }
        var known = rejected
        for messages in accepted.values { known.formUnion(messages.map(\.id)) }
        return record.sent.allSatisfy { !$0.value.isAcknowledged || known.contains($0.key) }
    }
}

/// Reads the storm's part of the log: from where it ended before, to where it ends now.
struct ChaosLogReader {
    private static let topics: [Topic] = [.incoming, .messages, .rejected, .members, .presence]

    private let kafka: KafkaConfiguration
    private let names: Names
    private var starts: [TopicPartition: Int64] = [:]

    /// Before the storm.
    init(_ kafka: KafkaConfiguration, names: Names) throws(KafkaError) {
        self.kafka = kafka
        self.names = names
        starts = try ends()
    }

    private func ends() throws(KafkaError) -> [TopicPartition: Int64] {
        let admin = try Admin(kafka)
        defer { admin.close(deadlineMs: 500) }
        let topics = Self.topics.map { names[$0] }
        var partitions: [TopicPartition] = []
        for (topic, count) in zip(topics, try admin.partitionCounts(of: topics)) {
            partitions += (0..<count).map { TopicPartition(topic, $0) }
        }
        var ends: [TopicPartition: Int64] = [:]
        for (partition, marks) in zip(partitions, try admin.watermarks(partitions)) {
            ends[partition] = try marks.get().high
        }
        return ends
    }

    /// - Parameter chats: those of the storm; what else is in the log is somebody else's.
    func read(_ chats: Set<ChatID>) throws -> ChaosLog {
        var collected = Collected(chats: chats)
        try scan { topic, message, value throws(JSONError) in
            try collected.take(topic, value, message.partition, message.offset)
        }
        return collected.log
    }

    /// Each user's last record.
    func readPresence() throws -> [UserID: PresenceRecord] {
        var last: [UserID: PresenceRecord] = [:]
        try scan { topic, message, value throws(JSONError) in
            guard topic == .presence else { return }
            let record = try PresenceRecord(decoding: value)
            last[record.user] = record
        }
        return last
    }

    private func scan(
        _ body: (Topic, borrowing Message, Span<UInt8>) throws(JSONError) -> Void
    ) throws {
        var left: [TopicPartition: Int64] = [:]
        for (partition, end) in try ends() where end > starts[partition] ?? 0 { left[partition] = end }
        var options = ConsumerOptions()
        // The last record of a partition may have been compacted away.
        options.reportsEndOfPartition = true
        let consumer = try Consumer(kafka, options)
        defer { consumer.close(deadlineMs: 500) }
        try consumer.assign(left.keys.map { PartitionStart($0, at: .offset(starts[$0] ?? 0)) })
        while !left.isEmpty {
            let batch = consumer.poll(maxMessages: 2000, timeoutMs: 1000)
            for index in 0..<batch.count {
                let message = batch[index]
                let partition = TopicPartition(consumer.name(of: message.topic), message.partition)
                guard let end = left[partition] else { continue }
                if message.offset < end, let topic = Self.topics.first(where: { names[$0] == partition.topic }),
                    let value = message.value
                {
                    do {
                        try body(topic, message, value)
                    } catch {
                        throw BenchError("\(partition) at \(message.offset): \(error)")
                    }
                }
                if message.offset >= end - 1 { left[partition] = nil }
            }
            switch batch.event {
            case .endOfPartition(let partition, _): left[partition] = nil
            case .lostPlace(let place): throw BenchError("\(place)")
            case .passedOver(let partition, let offsets, let reason):
                throw BenchError("\(partition) at \(offsets): \(reason)")
            case .error(let error, _) where !error.isRetriable: throw error
            default: break
            }
        }
    }

    /// The records as they come: those of a partition in order, the partitions in any.
    struct Collected {
        let chats: Set<ChatID>
        private var memberships: [ChatID: MembershipHistory] = [:]
        private var accepted: [ChatID: [ChaosLog.Accepted]] = [:]
        private var incoming: [ChatID: [Int64: Int64]] = [:]
        private var rejected: Set<MessageID> = []

        init(chats: Set<ChatID>) { self.chats = chats }

        mutating func take(
            _ topic: Topic, _ value: Span<UInt8>, _ partition: Int32, _ offset: Int64
        ) throws(JSONError) {
            switch topic {
            case .incoming:
                let message = try IncomingMessage(decoding: value)
                if chats.contains(message.chat) { incoming[message.chat, default: [:]][offset] = message.metaVersion }
            case .messages:
                let message = try AcceptedMessage(decoding: value)
                // After a crash of the join the last ones may stand here twice.
                guard chats.contains(message.chat), message.seq > accepted[message.chat]?.last?.seq ?? -1 else {
                    return
                }
                accepted[message.chat, default: []].append(.init(id: message.id, seq: message.seq, from: message.from))
            case .rejected:
                if let id = try Self.rejected(value) { rejected.insert(id) }
            case .members: try change(value)
            default: break
            }
        }

        private mutating func change(_ value: Span<UInt8>) throws(JSONError) {
            let envelope = try ChangeEnvelope(decoding: value)
            let row = value.extracting(envelope.row)
            let isMembers = envelope.table.equals("members", in: value)
            guard isMembers || envelope.table.equals("chats", in: value) else { return }
            let chat = isMembers ? try MemberRow(decoding: row).chat : try ChatRow(decoding: row).chat
            guard chats.contains(chat) else { return }
            if envelope.operation == .read { memberships[chat]?.noteSnapshot() }
            if isMembers {
                let user = try MemberRow(decoding: row).user
                memberships[chat, default: MembershipHistory()].change(user, isMember: envelope.operation != .delete)
            } else {
                memberships[chat, default: MembershipHistory()].reach(try ChatRow(decoding: row).metaVersion)
            }
        }

        /// The message that a rejection is about, when it is about one.
        private static func rejected(_ value: Span<UInt8>) throws(JSONError) -> MessageID? {
            var id: MessageID?
            var reader = JSONReader(value)
            try reader.beginObject()
            while let name = try reader.nextField() {
                if name.equals("record", in: value), try reader.peek() == .object {
                    let record = value.extracting(try reader.skipValue())
                    id = try? IncomingMessage(decoding: record).id
                } else {
                    try reader.skipValue()
                }
            }
            return id
        }

        var log: ChaosLog {
            var log = ChaosLog(rejected: rejected, memberships: memberships)
            for (chat, messages) in accepted {
                log.accepted[chat] = messages.map { message in
                    var message = message
                    message.seenVersion = incoming[chat]?[message.seq] ?? 0
                    return message
                }
            }
            return log
        }
    }
}
