import KafkaClient
import TestSupport
import Testing
import Wire

/// Chats in a log of their own, messages written to them, and what readers of the joins' output see of these.
private final class Load {
    let kafka: KafkaConfiguration
    let names = Names(prefix: TestKafka.unique("load") + ".")
    let partitions: Int32
    private let producer: Producer
    private let consumer: Consumer
    private let chats: [ChatID]
    private let members: [ChatID: [UserID]]
    private var random: SeededGenerator
    private var sent = 0
    private(set) var repeats = 0
    private var recipients: [String: [UserID]] = [:]
    private var chatOf: [String: ChatID] = [:]
    private var highest: [Int32: [String: Int64]] = [:]
    private var accepted: [Int32: Int64] = [:]
    private var acceptedCount = 0

    init(_ generator: SeededGenerator, partitions: Int) throws {
        var random = generator
        kafka = KafkaConfiguration(bootstrapServers: try TestKafka.shared().address)
        self.partitions = Int32(partitions)
        let admin = try Admin(kafka)
        var plan = TopicPlan.standard
        (plan.partitions[.chat], plan.partitions[.user]) = (partitions, partitions)
        _ = try plan.create(admin, names: names)
        admin.close(deadlineMs: 2000)
        producer = try Producer(kafka)
        consumer = try Consumer(kafka, ConsumerOptions())
        chats = (0..<12).map { _ in ChatID.random(using: &random) }
        let users = (0..<40).map { _ in UserID.random(using: &random) }
        var members: [ChatID: [UserID]] = [:]
        for chat in chats {
            members[chat] = Array(users.shuffled(using: &random).prefix(Int.random(in: 2...10, using: &random)))
        }
        self.members = members
        self.random = random
        for chat in chats {
            for user in members[chat] ?? [] {
                let row = Rows.member(chat, user, "c", tx: 1)
                try write(.members, chat, row.key, row.value)
            }
            let row = Rows.chat(chat, "u", version: 1, tx: 1)
            try write(.members, chat, row.key, row.value)
        }
        _ = producer.flush(deadlineMs: 10_000) { _ in }
        try consumer.assign(
            [Topic.messages, .deliveries].flatMap { topic in
                (0..<self.partitions).map { PartitionStart(TopicPartition(names[topic], $0), at: .beginning) }
            })
    }

    deinit {
        producer.close(deadlineMs: 2000) { _ in }
        consumer.close(deadlineMs: 2000)
        if let admin = try? Admin(kafka) {
            _ = try? admin.deleteTopics(Topic.allCases.map { names[$0] })
            admin.close(deadlineMs: 2000)
        }
    }

    private func write(_ topic: Topic, _ chat: ChatID, _ key: [UInt8], _ value: [UInt8]) throws {
        let outcome = try producer.produce(
            producer.topic(names[topic]), partition: chat.partition(count: partitions), key: key.span,
            value: value.span, tag: 1)
        #expect(outcome == .queued)
    }

    func send(_ count: Int) throws {
        for _ in 0..<count {
            let chat = try #require(chats.randomElement(using: &random))
            let from = try #require(members[chat]?.randomElement(using: &random))
            let value = IncomingMessage.text(
                "m\(sent)", from: from, in: chat, id: .random(using: &random), metaVersion: 1)
            try write(.incoming, chat, [UInt8]("\(chat)".utf8), value)
            sent += 1
            if sent % 30 == 0 { _ = producer.flush(deadlineMs: 10_000) { _ in } }
        }
        _ = producer.flush(deadlineMs: 10_000) { _ in }
    }

    func start(_ arguments: [String]) throws -> FanoutProcess {
        try FanoutProcess(
            [
                "join", "--kafka", kafka.bootstrapServers, "--topic-prefix", names.prefix, "--session-timeout", "6s",
            ] + arguments)
    }

    /// Whether everything sent so far has reached all of its chat's members; reads what has come meanwhile.
    private var isComplete: Bool {
        acceptedCount >= sent && chatOf.count >= sent
            && chatOf.allSatisfy { recipients[$0.key]?.count == members[$0.value]?.count }
    }

    /// Reads as Delivery would, until everything has reached everyone once.
    func expectAll(_ joins: [FanoutProcess]) throws {
        let end = ContinuousClock.now + .seconds(90)
        while !isComplete {
            try #require(
                ContinuousClock.now < end,
                "\(acceptedCount) of \(sent) accepted, \(chatOf.count) delivered: \(joins.map(\.text))")
            let batch = consumer.poll(timeoutMs: 200)
            for index in 0..<batch.count { try read(batch[index]) }
        }
        for (source, chat) in chatOf {
            #expect(Set(recipients[source] ?? []) == Set(members[chat] ?? []), "\(source)")
        }
    }

    private func read(_ message: borrowing Message) throws {
        guard let value = message.value else { return }
        if names.topic(named: consumer.name(of: message.topic)) == .messages {
            let seq = try AcceptedMessage(decoding: value).seq
            if seq <= accepted[message.partition] ?? -1 {
                repeats += 1
                return
            }
            accepted[message.partition] = seq
            acceptedCount += 1
            return
        }
        guard let header = message.header("src"), let source = SourcePosition(text: header) else { return }
        let key = "\(source.topic)/\(source.partition)"
        if source.offset <= highest[message.partition]?[key] ?? -1 {
            repeats += 1
            return
        }
        highest[message.partition, default: [:]][key] = source.offset
        guard names.topic(named: source.topic) == .incoming else { return }
        let delivery = try Delivered(partition: message.partition, source: "\(source)", value: value)
        recipients["\(source)", default: []] += delivery.to
        for (chat, _) in members where delivery.record.contains("\(chat)") { chatOf["\(source)"] = chat }
    }
}

/// The real program against a real log.
@Suite(.serialized) struct JoinProcessTests {
    @Test func `joins that are killed and replaced lose, repeat and reorder nothing`() throws {
        var random = SeededGenerator.announced("killed joins")
        let load = try Load(random, partitions: 4)
        // Two with names of their own: a restart gets its partitions back; and while one is down the other goes on.
        var joins = [try load.start(["--name", "join-0"]), try load.start(["--name", "join-1"])]
        defer { joins.forEach { $0.kill() } }
        for round in 0..<6 {
            try load.send(150)
            let victim = Int.random(in: 0..<2, using: &random)
            if round % 3 == 2 { joins[victim].terminate() } else { joins[victim].kill() }
            joins[victim] = try load.start(["--name", "join-\(victim)"])
        }
        try load.expectAll(joins)
        print("killed joins: \(load.repeats) repeats dropped by their readers")
    }

    @Test func `joins that come and go under load lose and repeat nothing`() throws {
        let load = try Load(SeededGenerator.announced("scaling joins"), partitions: 6)
        var joins = [try load.start([])]
        defer { joins.forEach { $0.kill() } }
        func hasPartitions(_ join: FanoutProcess) -> Bool {
            eventually(seconds: 60) { join.text.contains("partitions assigned") }
        }
        try load.send(200)
        #expect(hasPartitions(joins[0]), "\(joins[0].text)")
        // Out: from one to three, while messages come.
        for standby in [["--standby"], []] {
            joins.append(try load.start(standby))
            try load.send(200)
            #expect(hasPartitions(joins[joins.count - 1]), "\(joins.map(\.text))")
        }
        try load.expectAll(joins)
        // And in again: the first goes in order, the last without a word.
        try load.send(200)
        #expect(joins[0].terminate() == 0)
        try load.send(200)
        joins[2].kill()
        try load.send(200)
        try load.expectAll(joins)
        print("scaling joins: \(load.repeats) repeats dropped by their readers")
    }
}
