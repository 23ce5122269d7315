import Foundation
import KafkaClient
import Push
import TestSupport
import Testing
import Wire

/// The real `fanout push` between a real log and a real web server.
@Suite(.serialized) struct PushStageTests {
    /// A log with Fanout's topics under a prefix of the test's own, and records put into it.
    final class Log {
        let kafka: TestKafka
        let prefix = TestKafka.unique("push") + "."
        let names: Names
        private let producer: Producer

        init() throws {
            kafka = try TestKafka.shared()
            names = Names(prefix: prefix)
            let (status, text) = try FanoutProcess.run(
                [
                    "topics", "create", "--kafka", kafka.address, "--topic-prefix", prefix, "--partitions", "2",
                    "--replication", "1",
                ])
            try #require(status == 0, "\(text)")
            producer = try Producer(KafkaConfiguration(bootstrapServers: kafka.address))
        }

        func write(_ topic: Topic, partition: Int32, key: String = "-", _ value: String) throws {
            let (key, value) = (Array(key.utf8), Array(value.utf8))
            let handle = try producer.topic(names[topic])
            _ = try producer.produce(handle, partition: partition, key: key.span, value: value.span, tag: 0)
            var failure: KafkaError?
            _ = producer.flush(deadlineMs: 10_000) { failure = $0.error }
            if let failure { throw failure }
        }

        func push(_ user: UserID, seq: Int, text: String = "hello", partition: Int32 = 0) throws {
            let chat = ChatID(UUID(high: 5, low: 5))
            try write(
                .push, partition: partition,
                #"{"user":"\#(user)","chat":"\#(chat)","count":1,"last":{"type":"message","chat":"\#(chat)","seq":\#(seq),"from":"\#(UserID(UUID(high: 9, low: 9)))","text":"\#(text)"}}"#
            )
        }

        func start(_ url: String, _ more: [String] = []) throws -> FanoutProcess {
            try FanoutProcess(
                [
                    "push", "--kafka", kafka.address, "--topic-prefix", prefix, "--webhook", url, "--webhook-secret",
                    "s3cret", "--window", "200ms",
                    "--kafka-property", "session.timeout.ms=6000",
                ]
                    + more)
        }

        /// The values of a topic from its beginning, as many as there are once `count` have come.
        func read(_ topic: Topic, count: Int) throws -> [String] {
            let consumer = try Consumer(KafkaConfiguration(bootstrapServers: kafka.address), ConsumerOptions())
            try consumer.assign((0..<2).map { PartitionStart(TopicPartition(names[topic], $0), at: .beginning) })
            var values: [String] = []
            _ = eventually {
                let batch = consumer.poll(timeoutMs: 50)
                for index in 0..<batch.count {
                    if let value = batch[index].value { values.append(String(showing: value)) }
                }
                return values.count >= count
            }
            return values
        }

        func committed(partition: Int32) throws -> Int64? {
            let consumer = try Consumer(
                KafkaConfiguration(bootstrapServers: kafka.address), ConsumerOptions(groupID: names.group("push")))
            return try consumer.committed([TopicPartition(names[.push], partition)]).first.flatMap { $0?.offset }
        }
    }

    @Test func `messages gather into one signed notice, and are committed behind it`() throws {
        let (log, webhook) = (try Log(), try Webhook())
        let user = UserID.random()
        for seq in 1...5 { try log.push(user, seq: seq, text: "text \(seq)") }
        let push = try log.start(webhook.url("/ok"))
        #expect(eventually { webhook.calls.count == 1 }, "\(push.text)")
        let call = try #require(webhook.calls.first)
        #expect(call.object["user"] as? String == user.description)
        #expect(call.object["count"] as? Int == 5)
        let chats = try #require(call.object["chats"] as? [[String: Any]])
        #expect(chats[0]["preview"] as? String == "text 5")
        let seconds = try #require(call.signature?.split(separator: ",").first?.dropFirst(2)).description
        #expect(
            call.signature
                == Signature.header(secret: "s3cret", body: Array(call.body.utf8), nowMs: (Int64(seconds) ?? 0) * 1000))
        #expect(try eventually { try log.committed(partition: 0) == 5 })
        #expect(push.terminate() == 0)
    }

    @Test func `a webhook that is unwell is tried again, with the same key`() throws {
        let (log, webhook) = (try Log(), try Webhook())
        try log.push(.random(), seq: 1)
        let push = try log.start(webhook.url("/flaky"))
        #expect(eventually { webhook.calls.count == 3 }, "\(push.text)")
        #expect(Set(webhook.calls.map(\.key)).count == 1)
        #expect(try eventually { try log.committed(partition: 0) == 1 })
    }

    @Test func `Retry-After is honoured`() throws {
        let (log, webhook) = (try Log(), try Webhook())
        try log.push(.random(), seq: 1)
        let push = try log.start(webhook.url("/later"))
        #expect(eventually { webhook.calls.count == 2 }, "\(push.text)")
        let calls = webhook.calls
        #expect(calls.count == 2 && calls[1].at - calls[0].at >= 1)
    }

    @Test(arguments: ["/refuses", "/redirects", "/garbage", "/hangs"])
    func `what cannot be told goes to the dead letters with its reason`(path: String) throws {
        let (log, webhook) = (try Log(), try Webhook())
        let user = UserID.random()
        try log.push(user, seq: 1)
        let push = try log.start(webhook.url(path), ["--attempts-max", "2", "--webhook-timeout", "300ms"])
        let letters = try log.read(.pushDead, count: 1)
        #expect(letters.count == 1 && letters[0].contains(user.description), "\(push.text)")
        #expect(letters.first?.hasPrefix(#"{"reason":""#) == true)
        #expect(try eventually { try log.committed(partition: 0) == 1 })
    }

    @Test func `a record that is none is rejected, and the next one is told`() throws {
        let (log, webhook) = (try Log(), try Webhook())
        try log.write(.push, partition: 0, "{\"user\":5}")
        try log.push(.random(), seq: 1)
        let push = try log.start(webhook.url("/ok"))
        #expect(eventually { webhook.calls.count == 1 }, "\(push.text)")
        let rejected = try log.read(.rejected, count: 1)
        #expect(rejected.first?.contains(#""record":{"user":5}"#) == true)
        #expect(try eventually { try log.committed(partition: 0) == 2 })
    }

    @Test func `whoever comes online before the window ends is not told`() throws {
        let (log, webhook) = (try Log(), try Webhook())
        let (came, stayed) = (UserID.random(), UserID.random())
        try log.push(came, seq: 1)
        try log.push(stayed, seq: 1)
        try log.write(
            .presence, partition: 0,
            #"{"user":"\#(came)","status":"online","last_seen":\#(Int(Date().timeIntervalSince1970 * 1000))}"#)
        let push = try log.start(webhook.url("/ok"), ["--window", "2s"])
        #expect(eventually { webhook.calls.count >= 1 }, "\(push.text)")
        #expect(try eventually { try log.committed(partition: 0) == 2 })
        #expect(webhook.calls.compactMap { $0.object["user"] as? String } == [stayed.description])
    }

    @Test func `killed and started again, everybody is told, repeats under the same key`() throws {
        let (log, webhook) = (try Log(), try Webhook())
        var generator = SeededGenerator.announced("push kills")
        let users = (0..<60).map { _ in UserID.random() }
        for (index, user) in users.enumerated() { try log.push(user, seq: index, partition: Int32(index % 2)) }
        for _ in 0..<3 {
            let push = try log.start(webhook.url("/ok"), ["--concurrency", "2", "--window", "50ms"])
            let before = webhook.calls.count
            let wanted = before + Int.random(in: 1...20, using: &generator)
            _ = eventually(seconds: 5) { webhook.calls.count >= min(wanted, users.count) }
            push.kill()
        }
        let push = try log.start(webhook.url("/ok"), ["--window", "50ms"])
        #expect(
            try eventually { try log.committed(partition: 0) == 30 && log.committed(partition: 1) == 30 },
            "\(push.text)")
        let calls = webhook.calls
        #expect(Set(calls.compactMap { $0.object["user"] as? String }) == Set(users.map(\.description)))
        // One key a person: whoever was told twice can tell that it is the same notice.
        #expect(Set(calls.map(\.key)).count == users.count)
    }

    @Test func `a dry run prints and sends nothing`() throws {
        let (log, webhook) = (try Log(), try Webhook())
        let user = UserID.random()
        try log.push(user, seq: 1)
        let push = try log.start(webhook.url("/ok"), ["--dry-run"])
        #expect(push.waitForOutput(#""user":"\#(user)""#), "\(push.text)")
        #expect(webhook.calls.isEmpty)
    }
}
