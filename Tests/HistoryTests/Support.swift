import Foundation
import History
import KafkaClient
import PostgresClient
import Runtime
import Store
import System
import TestSupport
import Wire

/// Topics, a database and the members of some chats, of one test's own.
final class Scene {
    static let partitions: Int32 = 3

    let names = Names(prefix: TestKafka.unique("h") + ".")
    let kafka: KafkaConfiguration
    let postgres: String
    let users = (0..<4).map { _ in UserID.random() }
    private(set) var chats: [ChatID] = []
    let producer: ResendingProducer
    private var tag: UInt64 = 0
    /// Per partition, the next seq of `chat.incoming`, and its time.
    var seqs = [Int64](repeating: 0, count: Int(Scene.partitions))
    private var ts = Int64(Date().timeIntervalSince1970 * 1000) - 60_000

    /// - Parameter rejectedBytesMax: too few, and nothing can be written to chat.rejected.
    init(chatCount: Int = 8, cluster: PostgresCluster? = nil, rejectedBytesMax: Int? = nil) throws {
        kafka = KafkaConfiguration(bootstrapServers: try TestKafka.shared().address)
        postgres = try (cluster ?? PostgresCluster.shared()).freshDatabase()
        var store = try StoreConnection(postgres)
        try Migrations.apply(to: &store.postgres)
        let admin = try Admin(kafka)
        let topics = ([.messages, .signals, .rejected] as [Topic]).map { [names] in names[$0] }
        // Some tests write records of long ago.
        var made = topics.map {
            NewTopic($0, partitions: Int(Self.partitions), replicationFactor: 1, configs: ["retention.ms": "-1"])
        }
        if let rejectedBytesMax { made[2].configs["max.message.bytes"] = "\(rejectedBytesMax)" }
        for outcome in try admin.createTopics(made) { if let error = outcome.error { throw error } }
        admin.close(deadlineMs: 2000)
        producer = try ResendingProducer(kafka)
        try producer.warmUp(topics: topics)
        for _ in 0..<chatCount {
            let chat = ChatID.random()
            _ = try store.first(Accounts.createGroup(chat, title: nil, creator: users[0], members: users))
            chats.append(chat)
        }
        try store.postgres.execute("UPDATE members SET joined_at = to_timestamp(0)")
    }

    var configuration: HistoryConfiguration { HistoryConfiguration(kafka: kafka, postgres: postgres, names: names) }

    struct Sent {
        var chat: ChatID
        var seq: Int64
        var ts: Int64
        var id: MessageID
        var from: UserID
        var kind: IncomingMessage.Kind
        var text: String
        var target: Int64?
        var value: [UInt8]
    }

    /// A record of `chat.messages` as the join writes it, and its place.
    func message(
        _ text: String, in chat: ChatID, by user: Int = 0, kind: IncomingMessage.Kind = .text, target: Int64? = nil,
        ts given: Int64? = nil
    ) -> Sent {
        let partition = Int(chat.partition(count: Self.partitions))
        // The log holds other records between, such as rejected ones.
        seqs[partition] += Int64.random(in: 1...3)
        ts += Int64.random(in: 0...20)
        let ts = given ?? ts
        var message = IncomingMessage(id: .random(), chat: chat, from: users[user], device: .random(), kind: kind)
        message.target = target
        var json = JSONWriter()
        json.value(text)
        let source = Array("{\"text\":".utf8) + json.bytes + Array("}".utf8)
        var reader = JSONReader(source.span)
        try? reader.beginObject()
        _ = try? reader.nextField()
        if kind != .delete { message.text = try? reader.readString() }
        var value = JSONWriter()
        message.writeAccepted(seq: seqs[partition], ts: ts, to: &value, source: source.span)
        return Sent(
            chat: chat, seq: seqs[partition], ts: ts, id: message.id, from: users[user], kind: kind, text: text,
            target: target, value: value.bytes)
    }

    func write(_ message: Sent, recordMs: Int64? = nil) throws {
        try write(
            message.value, to: .messages, partition: message.chat.partition(count: Self.partitions), recordMs: recordMs)
    }

    func write(_ value: [UInt8]?, to topic: Topic, partition: Int32, recordMs: Int64? = nil) throws {
        tag += 1
        let handle = try producer.topic(names[topic])
        while try producer.produce(
            handle, partition: partition, key: nil, value: value?.span, headers: RecordHeaders(), timestampMs: recordMs,
            tag: tag) == .queueFull
        { try producer.poll(timeoutMs: 100) { _ in } }
    }

    func signal(_ kind: Wire.Signal.Kind, by user: Int, in chat: ChatID, seq: Int64) throws {
        var json = JSONWriter()
        Wire.Signal(chat: chat, from: users[user], device: .random(), kind: kind, seq: seq, ts: ts).write(to: &json)
        try write(json.bytes, to: .signals, partition: chat.partition(count: Self.partitions))
    }

    /// The first records of a topic, once there are so many.
    func records(_ topic: Topic, count: Int) throws -> [(key: String?, value: String)] {
        let consumer = try Consumer(kafka, ConsumerOptions())
        defer { consumer.close(deadlineMs: 1000) }
        try consumer.assign(
            (0..<Self.partitions).map { PartitionStart(TopicPartition(names[topic], $0), at: .beginning) })
        var records: [(key: String?, value: String)] = []
        let isThere = eventually {
            let batch = consumer.poll(timeoutMs: 100)
            for index in 0..<batch.count {
                let message = batch[index]
                var key: String?
                if let bytes = message.key { key = String(showing: bytes) }
                if let value = message.value { records.append((key, String(showing: value))) }
            }
            return records.count >= count
        }
        guard isThere else { throw Late() }
        return records
    }

    func flush() throws {
        guard try producer.flush(deadlineMs: 20_000, { _ in }) else { throw Late() }
    }

    struct Late: Error {}

    func store() throws -> StoreConnection { try StoreConnection(postgres) }

    func count(_ sql: String) throws -> Int64 {
        var store = try store()
        return try store.postgres.query(sql).int(0, 0) ?? -1
    }
}

/// The stage on a thread of this process.
final class RunningHistory {
    let history: History
    let thread: System.Thread
    let metrics = Metrics()

    init(_ configuration: HistoryConfiguration, log: Log = .none) {
        let history = History(configuration, log: log, metrics: metrics, clock: SystemClock())
        self.history = history
        thread = .start(name: "history") { do { try history.run() } catch { print("history: \(error)") } }
    }

    func stop() {
        history.stop()
        thread.join()
    }

    deinit { history.stop() }
}

/// What a stage has logged.
final class Lines: Sendable {
    private let bytes = Guarded<[UInt8]>([])
    var text: String { bytes.withLock { String(decoding: $0, as: UTF8.self) } }
    var log: Log { Log(component: "history", clock: SystemClock()) { line in self.bytes.withLock { $0 += line } } }
}
