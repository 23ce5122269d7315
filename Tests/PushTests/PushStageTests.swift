import Foundation
import KafkaClient
import Push
import TestSupport
import Testing
import Wire

/// The real `fanout push` between a real log and a real web server.
@Suite(.serialized) struct PushStageTests {
    @Test func `messages gather into one signed notice, and are committed behind it`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
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

    @Test func `while notices wait on purpose the stage says that nothing is late, and fanout lag believes it`() throws
    {
        let (log, webhook) = (try PushLog(), try Webhook())
        try log.push(.random(), seq: 1, at: log.nowMs - 600_000)
        let push = try log.start(webhook.url("/ok"), ["--window", "1h"])
        let isSaid = try eventually(seconds: 40) { try log.note(partition: 0).map { $0.dueMs == nil } == true }
        #expect(isSaid, "\(push.text)")
        let (_, text) = try FanoutProcess.run([
            "lag", "--json", "--kafka", log.kafka.address, "--topic-prefix", log.prefix, "--group-max", "push=1s",
        ])
        let json = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
        let totals = try #require(json?["totals"] as? [[String: Any]], "\(text)")
        let row = try #require(totals.first { ($0["topic"] as? String)?.hasSuffix("chat.push") == true })
        #expect(row["messages"] as? Int == 1 && row["seconds"] as? Double == 0, "\(row)")
        #expect(row["state"] as? String == "OK", "\(row)")
    }

    @Test func `a webhook that is unwell is tried again, with the same key`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        try log.push(.random(), seq: 1)
        let push = try log.start(webhook.url("/flaky"))
        #expect(eventually { webhook.calls.count == 3 }, "\(push.text)")
        #expect(Set(webhook.calls.map(\.key)).count == 1)
        #expect(try eventually { try log.committed(partition: 0) == 1 })
    }

    @Test func `Retry-After is honoured`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        try log.push(.random(), seq: 1)
        let push = try log.start(webhook.url("/later"))
        #expect(eventually { webhook.calls.count == 2 }, "\(push.text)")
        let calls = webhook.calls
        #expect(calls.count == 2 && calls[1].at - calls[0].at >= 1)
    }

    @Test(arguments: [
        ("/refuses", "HTTP 400"), ("/redirects", "HTTP 302"), ("/garbage", "2 attempts"), ("/hangs", "2 attempts"),
        ("/large", "2 attempts"),
    ])
    func `what cannot be told goes to the dead letters, as the record it was and with its reason`(
        path: String, reason: String
    ) throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        let user = UserID.random()
        try log.push(user, seq: 1)
        let push = try log.start(webhook.url(path), ["--attempts-max", "2", "--webhook-timeout", "300ms"])
        let letters = try log.read(.pushDead, count: 1)
        try #require(letters.count == 1, "\(push.text)")
        // Whoever writes it to chat.push again has it told again.
        let record = try PushRecord(decoding: [UInt8](letters[0].utf8).span)
        #expect(record.user == user && record.chat == PushLog.chat && record.count == 1)
        let letter = try #require(
            try JSONSerialization.jsonObject(with: Data(letters[0].utf8)) as? [String: Any])
        #expect((letter["error"] as? String)?.contains(reason) == true, "\(letters[0])")
        #expect((letter["attempts"] as? Int ?? 0) >= 1)
        #expect(letter["notice"] as? String == webhook.calls.first?.key)
        #expect(try eventually { try log.committed(partition: 0) == 1 })
        // A redirect is not followed: nobody but the webhook has seen the notice.
        #expect(webhook.calls.allSatisfy { $0.path == path })
    }

    @Test func `a webhook with a certificate that nobody vouches for gets nothing`() throws {
        let certificate = try SelfSigned()
        defer { certificate.remove() }
        let log = try PushLog()
        let webhook = try Webhook(certificate: certificate.certificate, key: certificate.key)
        let (first, second) = (UserID.random(), UserID.random())
        try log.push(first, seq: 1)
        let push = try log.start(webhook.url("/ok"), ["--attempts-max", "1"])
        let letters = try log.read(.pushDead, count: 1)
        #expect(letters.count == 1 && letters[0].lowercased().contains("certificate"), "\(letters) \(push.text)")
        #expect(webhook.calls.isEmpty)
        push.terminate()
        // Trusted by name, it is told.
        try log.push(second, seq: 2)
        let trusting = try log.start(webhook.url("/ok"), ["--webhook-ca", certificate.certificate])
        #expect(eventually { webhook.calls.map(\.user) == [second.description] }, "\(trusting.text)")
    }

    @Test func `a record that is none is rejected, and the next one is told`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        try log.write(.push, partition: 0, "{\"user\":5}")
        try log.push(.random(), seq: 1)
        let push = try log.start(webhook.url("/ok"))
        #expect(eventually { webhook.calls.count == 1 }, "\(push.text)")
        let rejected = try log.read(.rejected, count: 1)
        #expect(rejected.first?.contains(#""record":{"user":5}"#) == true)
        #expect(try eventually { try log.committed(partition: 0) == 2 })
    }

    @Test func `killed and started again, everybody is told, repeats under the same key`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
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
        // One key a person, since nothing new came: whoever was told twice can tell that it is the same notice.
        #expect(Set(calls.map(\.key)).count == users.count)
    }

    @Test func `a dry run prints, and leaves everything to the one who sends`() throws {
        let (log, webhook) = (try PushLog(), try Webhook())
        let user = UserID.random()
        try log.push(user, seq: 1)
        try log.write(.push, partition: 1, "no JSON")
        let dry = try log.start(webhook.url("/ok"), ["--dry-run"])
        #expect(dry.waitForOutput(#""user":"\#(user)""#), "\(dry.text)")
        #expect(dry.waitForOutput("would be rejected"), "\(dry.text)")
        #expect(dry.terminate() == 0)
        #expect(webhook.calls.isEmpty)
        #expect(try log.committed(partition: 0) == nil)
        // Nor has it joined the group: the one who sends has its partitions at once, and tells.
        let watching = try log.start(webhook.url("/ok"), ["--dry-run"])
        #expect(watching.waitForOutput(#""user":"\#(user)""#), "\(watching.text)")
        let push = try log.start(webhook.url("/ok"))
        #expect(eventually { webhook.calls.map(\.user) == [user.description] }, "\(push.text)")
        #expect(try log.read(.rejected, count: 1).count == 1)
        #expect(try eventually { try log.committed(partition: 0) == 1 })
        #expect(watching.isRunning)
    }
}
