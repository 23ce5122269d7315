import Foundation
import KafkaClient
import PostgresClient
import Push
import Runtime
import Store
import System
import TestSupport
import Testing
import Wire

@Suite struct WebPushMessageTests {
    private func base64url(_ text: String) -> [UInt8] { Base64.decode(text, .url) ?? [] }

    @Test func `the example of RFC 8291 is reproduced to the byte`() throws {
        let message = try WebPushMessage.encrypt(
            Array("When I grow up, I want to be a watermelon".utf8),
            receiver: base64url(
                "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"),
            secret: base64url("BTBZMqHH6r4Tts7J_aSIgg"),
            key: PrivateKey(p256Secret: base64url("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")),
            salt: base64url("DGv6ra1nlYgDCS1FRnbzlw"))
        #expect(
            Base64.encode(message, .url)
                == "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        )
    }

    @Test func `a message is as long as push services take, and no longer`() throws {
        let receiver = try #require(try PrivateKey.generate(.es256).publicKey.p256Point)
        let secret = Crypto.randomBytes(16)
        let text = [UInt8](repeating: 0x61, count: WebPushMessage.textBytesMax)
        let message = try WebPushMessage.encrypt(text, receiver: receiver, secret: secret)
        #expect(message.count == 4096)
        let other = try WebPushMessage.encrypt(text, receiver: receiver, secret: secret)
        #expect(message != other, "a key and a salt of its own for each")
        #expect(throws: SystemError.self) {
            try WebPushMessage.encrypt(text + [0x61], receiver: receiver, secret: secret)
        }
        var bent = receiver
        bent[64] ^= 1
        #expect(throws: SystemError.self, "not a point of the curve") {
            try WebPushMessage.encrypt([0x61], receiver: bent, secret: secret)
        }
    }

    @Test func `a token says who we are to one service, for half a day, and is made anew in time`() throws {
        let key = try PrivateKey.generate(.es256)
        let vapid = try VAPID(key: key, subject: "mailto:ops@example.org")
        let first = try vapid.authorization(origin: "https://push.example", nowMs: 1_700_000_000_000)
        let parts = first.dropFirst("vapid t=".count).split(separator: ",")[0].split(separator: ".").map(String.init)
        try #require(first.hasPrefix("vapid t=") && first.hasSuffix(", k=\(vapid.publicKey)") && parts.count == 3)
        #expect(base64url(parts[0]) == Array(#"{"typ":"JWT","alg":"ES256"}"#.utf8))
        #expect(
            base64url(parts[1])
                == Array(#"{"aud":"https://push.example","exp":1700043200,"sub":"mailto:ops@example.org"}"#.utf8))
        #expect(try key.publicKey.isValid(base64url(parts[2]), over: Array("\(parts[0]).\(parts[1])".utf8)))
        let hour: Int64 = 3_600_000
        #expect(try vapid.authorization(origin: "https://push.example", nowMs: 1_700_000_000_000 + 5 * hour) == first)
        #expect(try vapid.authorization(origin: "https://push.example", nowMs: 1_700_000_000_000 + 6 * hour) != first)
        #expect(try vapid.authorization(origin: "https://other.example", nowMs: 1_700_000_000_000) != first)
    }

    @Test func `endpoints are plain URLs, and their origin is what the standard signs`() {
        #expect(PushEndpoint("https://Push.Example/v2/abc?x=1")?.origin == "https://push.example")
        #expect(PushEndpoint("https://push.example:443/")?.origin == "https://push.example")
        #expect(PushEndpoint("https://push.example:8443/")?.origin == "https://push.example:8443")
        #expect(PushEndpoint("http://127.0.0.1:80")?.origin == "http://127.0.0.1")
        let six = PushEndpoint("https://[2001:DB8::1]:99/x")
        #expect(six?.origin == "https://[2001:db8::1]:99" && six?.host == "2001:db8::1" && six?.port == 99)
        for bad in [
            "", "push.example", "ftp://push.example/", "https://", "https:///x", "https://user@push.example/",
            "https://push.example:0/", "https://push.example:70000/", "https://push.example:/", "https://a:1:2/",
            "https://push.example/#here", "https://push.example/a b", "https://push.example\\@evil/", "https://[::1/",
            "https://[zz]/", "https://pu%73h.example/", "https://push.example/\u{e9}", "HTTPS://push.example/",
            "https://push.example/" + String(repeating: "x", count: 2048),
        ] {
            #expect(PushEndpoint(bad) == nil, "\(bad)")
        }
    }
}

/// Browsers, their push service (in Python, with libraries that nobody here wrote), and the stage between a real log and a
/// real Postgres.
@Suite(.serialized, .enabled(if: PushService.hasPython, "scripts/setup makes the Python environment"))
struct WebPushTests {
    private let log: PushLog
    private let service: PushService
    private let database: String
    private let key: PrivateKey

    init() throws {
        log = try PushLog()
        service = try PushService()
        database = try PostgresCluster.shared().freshDatabase(migrated: true)
        key = try PrivateKey.generate(.es256)
    }

    /// A member of the chat with browsers whose push service answers with these statuses.
    private func member(_ statuses: Int..., origin: String? = nil) throws -> UserID {
        let user = UserID.random()
        var store = try StoreConnection(database)
        try store.postgres.query(
            "INSERT INTO chats (chat_id, kind) VALUES ($1, 'group') ON CONFLICT DO NOTHING", [.id(PushLog.chat)])
        try store.postgres.query("INSERT INTO users (user_id, name) VALUES ($1, 'A')", [.id(user)])
        try store.postgres.query(
            "INSERT INTO members (chat_id, user_id) VALUES ($1, $2)", [.id(PushLog.chat), .id(user)])
        for (index, status) in statuses.enumerated() {
            let subscription = PushDevices.Subscription(
                device: DeviceID(UUID(high: 3, low: UInt64(index))),
                endpoint: "\(origin ?? service.origin)/\(status)/\(user)",
                publicKey: Base64.decode(service.p256dh, .url) ?? [], secret: Base64.decode(service.auth, .url) ?? [])
            for change in PushDevices.put(subscription, of: user) { try store.run(change) }
        }
        return user
    }

    private func subscriptions(of user: UserID) throws -> Int64? {
        var store = try StoreConnection(database)
        return try store.first(PushDevices.count(of: user))
    }

    private func run(_ change: (inout PushConfiguration) -> Void = { _ in }) throws -> RunningStage {
        try log.run {
            $0.postgres = database
            $0.webPush = WebPushOptions(key: key, subject: "mailto:ops@example.org")
            $0.webPush?.allowsPrivateAddresses = true
            $0.retry.attemptsMax = 2
            $0.retry.firstDelayMs = 20
            change(&$0)
        }
    }

    @Test func `a browser can read what it gets, and its push service knows who sent it`() throws {
        let user = try member(201)
        try log.push(user, seq: 5, text: "see you at eight")
        let stage = try run()
        #expect(eventually { service.messages.count == 1 }, "\(stage.failureText)")
        let message = try #require(service.messages.first)
        #expect(message.error == nil && message.signed == true && message.encoding == "aes128gcm")
        #expect(message.claims?.aud == service.origin && message.claims?.sub == "mailto:ops@example.org")
        #expect(message.ttl == "86400" && message.urgency == "normal" && message.topic?.count == 32)
        #expect(message.object["user"] as? String == user.description)
        #expect((message.object["chats"] as? [[String: Any]])?.first?["preview"] as? String == "see you at eight")
        #expect(try eventually { try log.committed(partition: 0) == 1 })
        stage.stop()
    }

    @Test func `a mention is urgent, and a notice of too many chats is told with less of each`() throws {
        let user = try member(201)
        try log.push(user, seq: 5, text: "@\(user) look")
        let stage = try run()
        #expect(eventually { service.messages.count == 1 }, "\(stage.failureText)")
        #expect(service.messages.first?.urgency == "high")
        let chats = (0..<60).map { ChatID(UUID(high: 77, low: UInt64($0))) }
        var store = try StoreConnection(database)
        try store.postgres.query(
            "INSERT INTO chats (chat_id, kind) SELECT c, 'group' FROM unnest($1::uuid[]) c", [.ids(chats)])
        try store.postgres.query(
            "INSERT INTO members (chat_id, user_id) SELECT c, $2 FROM unnest($1::uuid[]) c", [.ids(chats), .id(user)])
        stage.stop()
        let text = String(repeating: "x", count: 150)
        try log.write(.push, partition: 0, chats.map { log.record(user, seq: 6, chat: $0, text: text) })
        let again = try run { $0.coalescing.windowMs = 1000 }
        #expect(eventually { service.messages.count == 2 }, "\(again.failureText)")
        let message = service.messages[1]
        #expect(message.error == nil && message.bytes <= 4096 && message.topic == nil)
        #expect(message.object["count"] as? Int == 60, "\(message)")
        #expect((1..<60).contains((message.object["chats"] as? [Any])?.count ?? 0))
        again.stop()
    }

    @Test(arguments: [404, 410])
    func `a subscription that is gone is removed, and the person's other browser is told`(status: Int) throws {
        let user = try member(status, 201)
        try log.push(user, seq: 1)
        let stage = try run()
        #expect(try eventually { try log.committed(partition: 0) == 1 }, "\(stage.failureText)")
        #expect(try eventually { try subscriptions(of: user) == 1 })
        #expect(service.messages.filter { $0.path.hasPrefix("/201/") }.count == 1)
        #expect(stage.metric("fanout_push_gone_total") == 1)
        #expect(stage.metric(#"fanout_push_notices_total{outcome="told"}"#) == 1)
        stage.stop()
    }

    @Test(arguments: [(413, 1), (400, 1), (503, 2)])
    func `what a push service refuses is a dead letter that names the device`(status: Int, tries: Int) throws {
        let user = try member(status)
        try log.push(user, seq: 1)
        let stage = try run()
        let letters = try log.read(.pushDead, count: 1)
        #expect(letters.first?.contains(#""device":"\#(DeviceID(UUID(high: 3, low: 0)))""#) == true, "\(letters)")
        #expect(letters.first?.contains("HTTP \(status)") == true && service.messages.count == tries)
        #expect(try eventually { try log.committed(partition: 0) == 1 })
        #expect(try subscriptions(of: user) == 1)
        stage.stop()
    }

    @Test func `an endpoint on our own network is not called, whatever the name says`() throws {
        let port = service.origin.split(separator: ":").last ?? ""
        for origin in [service.origin, "http://localhost:\(port)", "http://[::1]:\(port)", "http://2130706433:\(port)"]
        {
            try log.push(member(201, origin: origin), seq: 1)
        }
        let stage = try run { $0.webPush?.allowsPrivateAddresses = false }
        let letters = try log.read(.pushDead, count: 4)
        #expect(letters.count == 4 && letters.allSatisfy { $0.contains("the address is not public") }, "\(letters)")
        #expect(service.messages.isEmpty)
        stage.stop()
    }

    @Test func `a push service that is down holds up its own browsers and nobody else's`() throws {
        // Nobody listens on the discard port.
        let stuck = try member(201, origin: "http://127.0.0.1:9")
        let users = try (0..<5).map { _ in try member(201) }
        for seq in 0..<3 { try log.push(stuck, seq: seq) }
        for user in users { try log.push(user, seq: 1) }
        let stage = try run {
            $0.breaker.failuresMax = 1
            $0.webPush?.giveUpMs = 3000
        }
        #expect(
            eventually { Set(service.messages.map(\.path)) == Set(users.map { "/201/\($0)" }) }, "\(stage.failureText)")
        #expect(try log.read(.pushDead, count: 1).first?.contains("not delivered in time") == true)
        #expect(try eventually { try log.committed(partition: 0) == 8 })
        stage.stop()
    }

    @Test func `the program makes a key that browsers and push services understand, and tells with it`() throws {
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        let path = directory + "/vapid.pem"
        let (status, text) = try FanoutProcess.run(["push", "vapid-key", "--vapid-key", path])
        #expect(status == 0 && Base64.decode(text.trimmingCharacters(in: .whitespacesAndNewlines), .url)?.count == 65)
        #expect(
            try FanoutProcess.run(["push", "vapid-key", "--vapid-key", path]).status == 1, "no key is written over")
        let user = try member(201)
        try log.push(user, seq: 1)
        let push = try FanoutProcess([
            "push", "--kafka", log.kafka.address, "--topic-prefix", log.prefix, "--postgres", database, "--vapid-key",
            path, "--vapid-subject", "mailto:ops@example.org", "--allow-private-endpoints", "--window", "100ms",
        ])
        #expect(eventually { service.messages.first?.signed == true }, "\(push.text)")
        #expect(push.terminate() == 0)
    }
}
