import KafkaClient
import TestSupport
import Testing
import Wire

/// The real program against a real log, killed at random.
@Suite(.serialized) struct JoinProcessTests {
    @Test func `joins that are killed and replaced lose, repeat and reorder nothing`() throws {
        var random = SeededGenerator.announced("killed joins")
        let kafka = KafkaConfiguration(bootstrapServers: try TestKafka.shared().address)
        let names = Names(prefix: TestKafka.unique("kill") + ".")
        let partitions: Int32 = 4
        let admin = try Admin(kafka)
        var plan = TopicPlan.standard
        (plan.partitions[.chat], plan.partitions[.user]) = (Int(partitions), Int(partitions))
        _ = try plan.create(admin, names: names)
        defer {
            _ = try? admin.deleteTopics(Topic.allCases.map { names[$0] })
            admin.close(deadlineMs: 2000)
        }
        let producer = try Producer(kafka)
        func write(_ topic: Topic, _ chat: ChatID, _ key: [UInt8], _ value: [UInt8]) throws {
            let outcome = try producer.produce(
                producer.topic(names[topic]), partition: chat.partition(count: partitions), key: key.span,
                value: value.span, tag: 1)
            #expect(outcome == .queued)
        }
        let chats = (0..<12).map { _ in ChatID.random(using: &random) }
        let users = (0..<40).map { _ in UserID.random(using: &random) }
        var members: [ChatID: [UserID]] = [:]
        for chat in chats {
            members[chat] = Array(users.shuffled(using: &random).prefix(Int.random(in: 2...10, using: &random)))
            for user in members[chat] ?? [] {
                let row = Rows.member(chat, user, "c", tx: 1)
                try write(.members, chat, row.key, row.value)
            }
            let row = Rows.chat(chat, "u", version: 1, tx: 1)
            try write(.members, chat, row.key, row.value)
        }
        _ = producer.flush(deadlineMs: 10_000) { _ in }

        let arguments = [
            "join", "--kafka", kafka.bootstrapServers, "--topic-prefix", names.prefix, "--session-timeout", "6s",
        ]
        // Two with names of their own: a restart gets its partitions back; and while one is down the other goes on.
        func start(_ index: Int) throws -> FanoutProcess {
            try FanoutProcess(arguments + ["--name", "join-\(index)"])
        }
        var joins = [try start(0), try start(1)]
        var sent = 0
        for round in 0..<6 {
            for _ in 0..<150 {
                let chat = try #require(chats.randomElement(using: &random))
                let from = try #require(members[chat]?.randomElement(using: &random))
                let value = IncomingMessage.text(
                    "m\(sent)", from: from, in: chat, id: .random(using: &random), metaVersion: 1)
                try write(.incoming, chat, [UInt8]("\(chat)".utf8), value)
                sent += 1
                if sent % 30 == 0 { _ = producer.flush(deadlineMs: 10_000) { _ in } }
            }
            let victim = Int.random(in: 0..<2, using: &random)
            if round % 3 == 2 { joins[victim].terminate() } else { joins[victim].kill() }
            joins[victim] = try start(victim)
        }
        _ = producer.flush(deadlineMs: 10_000) { _ in }
        producer.close(deadlineMs: 2000) { _ in }
        defer { joins.forEach { $0.kill() } }

        // What Delivery would see.
        let consumer = try Consumer(kafka, ConsumerOptions())
        try consumer.assign(
            [Topic.messages, .deliveries].flatMap { topic in
                (0..<partitions).map { PartitionStart(TopicPartition(names[topic], $0), at: .beginning) }
            })
        var recipients: [String: [UserID]] = [:]
        var chatOf: [String: ChatID] = [:]
        var highest: [Int32: [String: Int64]] = [:]
        var accepted: [Int32: Int64] = [:]
        var acceptedCount = 0
        var repeats = 0
        let end = ContinuousClock.now + .seconds(90)
        while acceptedCount < sent || chatOf.contains(where: { recipients[$0.key]?.count != members[$0.value]?.count })
            || chatOf.count < sent
        {
            try #require(
                ContinuousClock.now < end,
                "\(acceptedCount) of \(sent) accepted, \(chatOf.count) delivered: \(joins.map(\.text))")
            let batch = consumer.poll(timeoutMs: 200)
            for index in 0..<batch.count {
                let message = batch[index]
                guard let value = message.value else { continue }
                if names.topic(named: consumer.name(of: message.topic)) == .messages {
                    let seq = try AcceptedMessage(decoding: value).seq
                    if seq <= accepted[message.partition] ?? -1 {
                        repeats += 1
                        continue
                    }
                    accepted[message.partition] = seq
                    acceptedCount += 1
                    continue
                }
                guard let header = message.header("src"), let source = SourcePosition(text: header) else { continue }
                let key = "\(source.topic)/\(source.partition)"
                if source.offset <= highest[message.partition]?[key] ?? -1 {
                    repeats += 1
                    continue
                }
                highest[message.partition, default: [:]][key] = source.offset
                guard names.topic(named: source.topic) == .incoming else { continue }
                let delivery = try Delivered(partition: message.partition, source: "\(source)", value: value)
                recipients["\(source)", default: []] += delivery.to
                for (chat, _) in members where delivery.record.contains("\(chat)") { chatOf["\(source)"] = chat }
            }
        }
        for (source, chat) in chatOf {
            #expect(Set(recipients[source] ?? []) == Set(members[chat] ?? []), "\(source)")
        }
        print("killed joins: \(sent) messages, \(repeats) repeats dropped by their readers")
    }
}
