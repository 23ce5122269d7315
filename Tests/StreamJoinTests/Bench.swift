import KafkaClient
import Runtime
import StreamJoin
import System
import TestSupport
import Testing
import Wire

/// A join beside a log, with a consumer of what it writes.
final class Bench {
    let kafka: KafkaConfiguration
    let producer: Producer
    let consumer: Consumer
    let names = Names(prefix: TestKafka.unique("join") + ".")
    let partitions: Int32
    var deliveries: [Delivered] = []
    var messages: [String] = []
    var rejected: [String] = []

    init(partitions: Int = 4, kafka address: String? = nil) throws {
        self.partitions = Int32(partitions)
        kafka = KafkaConfiguration(bootstrapServers: try address ?? TestKafka.shared().address)
        let admin = try Admin(kafka)
        var plan = TopicPlan.standard
        (plan.partitions[.chat], plan.partitions[.user]) = (partitions, partitions)
        _ = try plan.create(admin, names: names)
        admin.close(deadlineMs: 1000)
        producer = try Producer(kafka)
        consumer = try Consumer(kafka, ConsumerOptions())
        try consumer.assign(
            [Topic.messages, .rejected, .deliveries].flatMap { topic in
                (0..<Int32(partitions)).map { PartitionStart(TopicPartition(names[topic], $0), at: .beginning) }
            })
    }

    func write(_ topic: Topic, _ chat: ChatID, key: [UInt8]? = nil, _ value: [UInt8]) throws {
        let key = key ?? [UInt8]("\(chat)".utf8)
        let outcome = try producer.produce(
            producer.topic(names[topic]), partition: chat.partition(count: partitions),
            key: key.span, value: value.span, tag: 1)
        #expect(outcome == .queued)
        var failures = 0
        let isFlushed = producer.flush(deadlineMs: 10_000) { failures += $0.succeeded ? 0 : 1 }
        #expect(isFlushed && failures == 0)
    }

    func create(_ chat: ChatID, _ users: [UserID], version: Int64 = 1, tx: Int64 = 1) throws {
        for user in users {
            let row = Rows.member(chat, user, "c", tx: tx)
            try write(.members, chat, key: row.key, row.value)
        }
        let row = Rows.chat(chat, "u", version: version, tx: tx)
        try write(.members, chat, key: row.key, row.value)
    }

    /// Reads what the join has written until the condition holds.
    func until(seconds: Double = 30, _ isDone: (Bench) -> Bool) throws {
        let end = ContinuousClock.now + .seconds(seconds)
        while !isDone(self) {
            let batch = consumer.poll(timeoutMs: 100)
            for index in 0..<batch.count {
                let message = batch[index]
                guard let value = message.value else { continue }
                switch names.topic(named: consumer.name(of: message.topic)) {
                case .messages: messages.append(string(value))
                case .rejected: rejected.append(string(value))
                default:
                    var source = ""
                    if let header = message.header("src") { source = string(header) }
                    deliveries.append(try Delivered(partition: message.partition, source: source, value: value))
                }
            }
            try #require(
                ContinuousClock.now < end,
                "no progress: \(deliveries.suffix(20)) \(messages.suffix(20)) \(rejected.suffix(20))")
        }
    }

    func configuration() -> JoinConfiguration { JoinConfiguration(kafka: kafka, names: names) }
}

/// What something in this process has logged.
private final class LogLines: Sendable {
    let all = Guarded<[String]>([])
}

/// A join on a thread of its own, with its log and its metrics at hand.
final class RunningJoin {
    let runner: JoinRunner
    private let metrics: Metrics
    private let lines = LogLines()
    private let failure = Handover<String?>()
    private let thread: Thread
    private var hasEnded = false

    init(_ configuration: JoinConfiguration, clock: any Clock = SystemClock()) {
        let lines = lines
        let log = Log(component: "join", clock: SystemClock()) { line in
            lines.all.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
        }
        let metrics = Metrics()
        let runner = JoinRunner(configuration, log: log, metrics: metrics, clock: clock)
        let failure = failure
        (self.runner, self.metrics) = (runner, metrics)
        thread = Thread.start(name: "join") {
            do {
                try runner.run()
                failure.put(nil)
            } catch {
                failure.put("\(error)")
            }
        }
    }

    deinit { stop() }

    var text: String { lines.all.withLock { $0.joined() } }

    func waitUntilReady(seconds: Double = 30) -> Bool { eventually(seconds: seconds) { self.runner.isReady } }

    /// What a metric says now.
    func value(_ metric: String) -> Int {
        let text = String(decoding: metrics.render(), as: UTF8.self)
        let line = text.split(separator: "\n").first { $0.hasPrefix(metric + " ") }
        return line?.split(separator: " ").last.flatMap { Double($0) }.map { Int($0) } ?? -1
    }

    /// Ends it; answers why it had ended by itself, if it had.
    @discardableResult
    func stop() -> String? {
        guard !hasEnded else { return nil }
        hasEnded = true
        runner.stop()
        thread.join()
        return failure.take()
    }
}

func running(_ configuration: JoinConfiguration, _ body: (RunningJoin) throws -> Void) throws {
    let join = RunningJoin(configuration)
    defer {
        let message = join.stop()
        #expect(message == nil)
    }
    try body(join)
}
