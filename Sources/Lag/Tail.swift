public import KafkaClient
import Runtime
public import Wire

/// What `fanout tail` shows: which topic, from where, and of whom.
public struct TailQuery: Sendable {
    public enum From: Sendable, Equatable {
        case now
        case beginning
        case time(Int64)
        case offset(Int64)

        /// `now`, `beginning`, an offset, or a time: `5m` ago, or milliseconds since the epoch.
        public init?(_ text: String) {
            switch text {
            case "now": self = .now
            case "beginning": self = .beginning
            default:
                if let number = Int64(text) {
                    // No offset is so large, no time so small.
                    self = number > 100_000_000_000 ? .time(number) : .offset(number)
                } else {
                    return nil
                }
            }
        }
    }

    public var topic: Topic
    public var from = From.now
    public var chat: ChatID?
    public var user: UserID?
    /// Shows a delivery once for each recipient.
    public var isPerRecipient = false
    /// The bare values, one a line.
    public var isJSON = false

    public init(topic: Topic) { self.topic = topic }
}

/// How one record is shown, and whether it is. Pure.
public struct TailFilter: Sendable {
    private let query: TailQuery

    public init(_ query: TailQuery) { self.query = query }

    /// The lines that a record makes: none when it is of somebody else, several when it is shown per recipient.
    public func lines(
        partition: Int32, offset: Int64, timestampMs: Int64, key: Span<UInt8>?, value: Span<UInt8>?
    ) -> [String] {
        let place = "\(partition)/\(offset) \(CalendarTime(wallMs: timestampMs).iso8601)"
        guard let value else {
            let name = if let key { String(showing: key) } else { "" }
            guard mentions(name) else { return [] }
            return query.isJSON ? [] : ["\(place) \(name) (deleted)"]
        }
        let text = String(showing: value)
        if query.topic == .deliveries { return deliveries(place, value, text) }
        guard mentions(text) else { return [] }
        return [query.isJSON ? text : "\(place) \(text)"]
    }

    private func deliveries(_ place: String, _ value: Span<UInt8>, _ text: String) -> [String] {
        guard let record = try? DeliveryRecord(decoding: value), case .users(let list) = record.recipients else {
            return mentions(text) ? [query.isJSON ? text : "\(place) \(text)"] : []
        }
        let event = String(showing: value.extracting(record.event))
        if let chat = query.chat, !event.contains(chat.description) { return [] }
        var users: [UserID] = []
        _ = try? DeliveryRecord.forEachUser(in: list, of: value) { users.append($0) }
        if let user = query.user { users = users.filter { $0 == user } }
        guard !users.isEmpty else { return [] }
        guard query.isPerRecipient else { return [query.isJSON ? text : "\(place) \(text)"] }
        return users.map { user in
            query.isJSON ? #"{"user":"\#(user)","event":\#(event)}"# : "\(place) \(user) \(event)"
        }
    }

    /// Ids are unique text, so that a record names somebody exactly when it contains their id.
    private func mentions(_ text: String) -> Bool {
        if let chat = query.chat, !text.contains(chat.description) { return false }
        if let user = query.user, !text.contains(user.description) { return false }
        return true
    }
}

/// Follows a topic and prints what the filter lets through.
public final class Tail {
    private let query: TailQuery
    private let consumer: Consumer
    private let filter: TailFilter

    public init(_ query: TailQuery, kafka: KafkaConfiguration, names: Names) throws(KafkaError) {
        self.query = query
        filter = TailFilter(query)
        consumer = try Consumer(kafka, ConsumerOptions())
        let admin = try Admin(kafka)
        defer { admin.close(deadlineMs: 500) }
        let topic = names[query.topic]
        let count = try admin.partitionCounts(of: [topic])[0]
        var partitions = (0..<count).map { TopicPartition(topic, $0) }
        // All records of a chat, or of a recipient, are in one partition.
        if let chat = query.chat, query.topic.isByChat {
            partitions = [TopicPartition(topic, chat.partition(count: count))]
        } else if let user = query.user, query.topic.isByUser {
            partitions = [TopicPartition(topic, user.partition(count: count))]
        }
        try consumer.assign(try Self.starts(partitions, query.from, admin))
    }

    private static func starts(
        _ partitions: [TopicPartition], _ from: TailQuery.From, _ admin: Admin
    ) throws(KafkaError) -> [PartitionStart] {
        switch from {
        case .now: return partitions.map { PartitionStart($0, at: .end) }
        case .beginning: return partitions.map { PartitionStart($0, at: .beginning) }
        case .offset(let offset): return partitions.map { PartitionStart($0, at: .offset(offset)) }
        case .time(let ms):
            let found = try admin.offsets(at: partitions.map { ($0, timestampMs: ms) })
            var starts: [PartitionStart] = []
            for (partition, result) in zip(partitions, found) {
                let offset = try result.get()
                starts.append(PartitionStart(partition, at: offset.map { .offset($0) } ?? .end))
            }
            return starts
        }
    }

    /// Gives what has come to `output`, a line at a time; waits a moment when nothing has.
    public func poll(
        _ output: (String) -> Void, complain: (String) -> Void = { _ in }
    ) throws(KafkaError) {
        let batch = consumer.poll(maxMessages: 1000, timeoutMs: 100)
        for index in 0..<batch.count {
            let message = batch[index]
            for line in filter.lines(
                partition: message.partition, offset: message.offset, timestampMs: message.timestampMs,
                key: message.key, value: message.value)
            { output(line) }
        }
        switch batch.event {
        case .lostPlace(let place):
            complain("\(place)")
            try consumer.seek([PartitionStart(place.partition, at: .beginning)])
        case .passedOver(let partition, let offsets, let reason):
            complain("\(partition): \(offsets.lowerBound)...\(offsets.upperBound - 1) cannot be read: \(reason)")
        case .error(let error, _) where !error.isRetriable: throw error
        default: break
        }
    }

    public func close() { consumer.close(deadlineMs: 500) }
}

extension Topic {
    /// Whether the key is the chat, so that a chat is a partition.
    public var isByChat: Bool { [.incoming, .signals, .members, .messages, .rejected].contains(self) }
    /// Whether the partition is the recipient's.
    public var isByUser: Bool { [.deliveries, .presence, .push, .pushDead].contains(self) }
}
