import KafkaClient
import Runtime
import StreamJoin
import System
import TestSupport
import Testing
import Wire

/// A join beside a log, with a consumer of what it writes.
private final class Bench {
    let kafka: KafkaConfiguration
    let producer: Producer
    let consumer: Consumer
    let names = Names(prefix: TestKafka.unique("join") + ".")
    let partitions: Int32
    var deliveries: [Delivered] = []
    var messages: [String] = []
    var rejected: [String] = []

    init(partitions: Int = 4) throws {
        self.partitions = Int32(partitions)
        kafka = KafkaConfiguration(bootstrapServers: try TestKafka.shared().address)
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
    func until(_ isDone: (Bench) -> Bool) throws {
        let end = ContinuousClock.now + .seconds(30)
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
            try #require(ContinuousClock.now < end, "no progress: \(deliveries) \(messages) \(rejected)")
        }
    }

    func configuration() -> JoinConfiguration { JoinConfiguration(kafka: kafka, names: names) }
}

private func running(_ configuration: JoinConfiguration, _ body: (JoinRunner) throws -> Void) throws {
    let runner = JoinRunner(configuration, log: .none, metrics: Metrics(), clock: SystemClock())
    let failure = Handover<String?>()
    let thread = Thread.start(name: "join") {
        do {
            try runner.run()
            failure.put(nil)
        } catch {
            failure.put("\(error)")
        }
    }
    defer {
        runner.stop()
        thread.join()
        let message = failure.take()
        #expect(message == nil)
    }
    try body(runner)
}

@Suite(.serialized) struct JoinRunnerTests {
    @Test func `a message reaches each member once, and restarts change nothing`() throws {
        let bench = try Bench()
        let chat = ChatID.random()
        let users = (0..<9).map { _ in UserID.random() }
        try bench.create(chat, users)
        try bench.write(.incoming, chat, IncomingMessage.text("one", from: users[0], in: chat))
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        // With and without checkpoints; the second start of each finds what the first has left.
        for round in 0..<2 {
            var configuration = bench.configuration()
            configuration.stateDirectory = directory
            try running(configuration) { _ in
                try bench.write(.incoming, chat, IncomingMessage.text("two", from: users[1], in: chat, metaVersion: 1))
                try bench.until { $0.messages.count == 2 + round }
            }
        }
        #expect(try Directory.list(directory) == ["members-join.checkpoint"])
        try running(bench.configuration()) { _ in
            let late = UserID.random()
            try bench.write(
                .incoming, chat, IncomingMessage.text("held", from: late, in: chat, metaVersion: 2))
            try bench.write(.incoming, chat, IncomingMessage.text("nobody", from: .random(), in: chat))
            try bench.create(chat, [late], version: 2, tx: 2)
            try bench.until { $0.messages.count == 4 && $0.rejected.count == 1 }
            try bench.until { bench in
                bench.deliveries.filter { $0.record.contains(#""text":"held""#) }.flatMap(\.to).count == 10
            }
            #expect(bench.deliveries.contains { $0.to.contains(late) && $0.record.contains(#""change":"added""#) })
        }
        var perSource: [String: [UserID]] = [:]
        for delivery in bench.deliveries where delivery.record.contains(#""type":"message""#) {
            for user in delivery.to {
                #expect(user.partition(count: 4) == delivery.partition)
                perSource[delivery.source, default: []].append(user)
            }
        }
        let partition = chat.partition(count: 4)
        for offset in 0..<3 {
            let to = perSource["\(bench.names[.incoming])/\(partition)/\(offset)"] ?? []
            #expect(to.count == 9 && Set(to) == Set(users))
        }
        #expect(perSource["\(bench.names[.incoming])/\(partition)/3"]?.count == 10)
        #expect(perSource.count == 4)
    }
}
