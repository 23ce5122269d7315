import Ingest
import KafkaClient
import PushLink
import System
import TestSupport
import Testing
import WebSocket
import Wire

/// Who is let in, and what too much of anything gets.
@Suite(.serialized) struct AdmissionTests {
    @Test func `without a good token nobody comes in, and a browser is told by a close code`() throws {
        let bench = try Bench()
        let user = UserID.random()
        #expect(try bench.device(user, token: .some(nil)).status == 401)
        #expect(try bench.device(user, token: "nonsense").status == 401)
        #expect(try bench.device(user, token: bench.token(user, lifetimeMs: -60_000)).status == 401)
        let page = try bench.device(
            user, hello: nil, subprotocols: ["fanout.v1", "bearer.nonsense"], token: .some(nil))
        try bench.wait("closed") { page.closeCode != nil }
        #expect(page.closeCode == CloseCode(rawValue: 4001))
        let good = try bench.device(
            user, subprotocols: ["fanout.v1", "bearer." + bench.token(user)], token: .some(nil))
        try bench.wait("hello") { good.frames("hello").count == 1 }
        #expect(good.subprotocol == "fanout.v1")
    }

    @Test func `a revoked user's sessions end, and no new one begins`() throws {
        let bench = try Bench()
        let (bad, other) = (UserID.random(), UserID.random())
        let device = try bench.device(bad)
        let bystander = try bench.device(other)
        try bench.wait("both are in") { device.frames.count == 1 && bystander.frames.count == 1 }
        let producer = try Producer(bench.kafka)
        defer { producer.close(deadlineMs: 1000) { _ in } }
        let change =
            #"{"op":"u","before":null,"after":{"user_id":"\#(bad)","disabled":true},"source":{"table":"users"}}"#
        _ = try producer.produce(
            try producer.topic(bench.names[.users]), key: Array(#"{"user_id":"\#(bad)"}"#.utf8).span,
            value: Array(change.utf8).span, tag: 1)
        try bench.wait("closed") { device.isClosed }
        #expect(device.closeCode == CloseCode(rawValue: 4001))
        #expect(try bench.device(bad).status == 401)
        #expect(bystander.isOpen)
        #expect(try bench.http("GET", "/v1/endpoint", token: bench.token(bad)).status == 401)
    }

    @Test func `a user who was deleted stays out when compaction has left only the tombstone`() throws {
        let bench = try Bench()
        let gone = UserID.random()
        let device = try bench.device(gone)
        try bench.wait("in") { device.frames.count == 1 }
        try write([(#"{"user_id":"\#(gone)"}"#, nil)], to: .users, of: bench.kafka, bench.names)
        try bench.wait("closed") { device.isClosed }
        #expect(device.closeCode == CloseCode(rawValue: 4001))
        #expect(try bench.device(gone).status == 401)
    }

    @Test func `records that cannot be read neither keep the server from being ready nor hide those behind them`()
        throws
    {
        let names = Names(prefix: TestKafka.unique("ingest") + ".")
        let gone = UserID.random()
        let bench = try Bench(names: names) { configuration in
            for topic in [Topic.users, .instances] {
                let garbage = ["", "{", "no JSON", #"{"op":"u"}"#, #"{"user_id":"x"}"#]
                try write(
                    garbage.map { ($0, $0) } + garbage.map { ($0, nil) }, to: topic, of: configuration.kafka, names)
            }
            try write([(#"{"user_id":"\#(gone)"}"#, nil)], to: .users, of: configuration.kafka, names)
        }
        #expect(try bench.http("GET", "/readyz").status == 200)
        #expect(try bench.device(gone).status == 401)
        #expect(try bench.device(.random()).status == 101)
    }

    @Test func `one address has so many connections and no more, and may come again when one is gone`() throws {
        let bench = try Bench { $0.limits.connectionsPerAddress = 2 }
        let first = try bench.device(UserID.random())
        let second = try bench.device(UserID.random())
        let third = try bench.device(UserID.random())
        #expect(first.isOpen && second.isOpen && third.isClosed && third.status == nil)
        first.close()
        try bench.wait("there is room again") { (try? bench.device(UserID.random()).status) == 101 }
    }

    @Test func `a token that runs out ends its session, and not before it would keep a new one out`() throws {
        let bench = try Bench { $0.tokens.skewMs = 3_000 }
        // What let a session in half a second after its end does not end it at once.
        let lateUser = UserID.random()
        let lateEndMs = SystemClock().wallMs - 500 + 3_000
        let late = try bench.device(lateUser, token: bench.token(lateUser, lifetimeMs: -500))
        try bench.wait("closed") { late.isClosed }
        #expect(late.closeCode == CloseCode(rawValue: 4001))
        // Tokens tell seconds.
        #expect(SystemClock().wallMs >= lateEndMs - 1_000)
        let device = try bench.device(UserID.random(), token: nil)
        try bench.wait("in") { device.frames.count == 1 }
        let user = UserID.random()
        let short = try bench.device(user, token: bench.token(user, lifetimeMs: 1500))
        try bench.wait("closed") { short.isClosed }
        #expect(short.closeCode == CloseCode(rawValue: 4001))
        #expect(device.isOpen)
    }

    @Test func `who sends too fast is told to wait, and a bot is not`() throws {
        let bench = try Bench { $0.limits.messages = 3 }
        let user = UserID.random()
        let device = try bench.device(user)
        let bot = try bench.device(UserID.random(), scopes: "bot")
        for _ in 0..<5 {
            for sender in [device, bot] {
                sender.send(#"{"type":"send","id":"\#(MessageID.random())","chat":"\#(ChatID.random())","text":"x"}"#)
            }
        }
        try bench.wait("answers") {
            device.frames("sent").count + device.frames("error").count == 5 && bot.frames("sent").count == 5
        }
        #expect(device.frames("sent").count == 3)
        #expect(
            device.frames("error").allSatisfy {
                $0.contains(#""code":"rate_limited""#) && $0.contains("retry_after_ms")
            })
    }

    @Test func `typing and receipts above their rate are dropped, and messages are not`() throws {
        let bench = try Bench { $0.limits.signals = 3 }
        let device = try bench.device(UserID.random())
        let chat = ChatID.random()
        for seq in 0..<10 { device.send(#"{"type":"read","chat":"\#(chat)","seq":\#(seq)}"#) }
        device.send(#"{"type":"typing","chat":"\#(chat)"}"#)
        device.send(#"{"type":"send","id":"\#(MessageID.random())","chat":"\#(chat)","text":"x"}"#)
        try bench.wait("sent") { device.frames("sent").count == 1 }
        #expect(bench.metric("fanout_ingest_signals_total") == 3)
        #expect(try bench.records(.signals, atLeast: 3).map { $0.contains(#""kind":"read""#) } == [true, true, true])
        #expect(device.frames("error").isEmpty)
    }

    @Test func `a device watches so many people and no more, and hears when it is too much`() throws {
        let bench = try Bench { $0.limits.watchesMax = 2 }
        let device = try bench.device(UserID.random())
        for _ in 0..<3 { device.send(#"{"type":"watch","user":"\#(UserID.random())"}"#) }
        device.send(#"{"type":"ping"}"#)
        try bench.wait("all are answered") { device.frames("pong").count == 1 }
        #expect(device.frames("error").count == 1 && device.frames("error")[0].contains(#""code":"too_many""#))
    }

    @Test func `all whom a device may watch may be watched at once, and changing them is slowed down and says so`()
        throws
    {
        let bench = try Bench {
            $0.limits.signals = 3
            $0.limits.signalsPerMs = 3_600_000
            $0.limits.watchesMax = 100
        }
        let worker = try bench.worker()
        let device = try bench.device(UserID.random())
        let people = (0..<101).map { _ in UserID.random() }
        for person in people.prefix(100) { device.send(#"{"type":"watch","user":"\#(person)"}"#) }
        try bench.wait("the owner is asked for all") {
            people.prefix(100).allSatisfy { worker.messages.contains(.watch([$0])) }
        }
        #expect(device.frames("error").isEmpty)
        device.send(#"{"type":"unwatch","user":"\#(people[0])"}"#)
        device.send(#"{"type":"watch","user":"\#(people[100])"}"#)
        try bench.wait("it is answered") { device.frames("error").count == 1 }
        #expect(
            device.frames("error").allSatisfy {
                $0.contains(#""code":"rate_limited""#) && $0.contains("retry_after_ms")
            })
    }

    @Test func `a user has so many devices and no more, and may come again when one is gone`() throws {
        let bench = try Bench { $0.limits.connectionsPerUser = 2 }
        let user = UserID.random()
        let first = try bench.device(user)
        _ = try bench.device(user)
        #expect(try bench.device(user).status == 429)
        // A page's script sees no status: a close code tells it, with a delay as its reason.
        let page = try browser(user, bench)
        try bench.wait("closed") { page.closeCode != nil }
        #expect(page.closeCode == .tryAgainLater && Int(page.closeReason) ?? 0 >= 1000)
        first.close()
        try bench.wait("the count went down") { (try? bench.device(user).status) == 101 }
    }

    @Test func `too many at once are told when to come again`() throws {
        let bench = try Bench { $0.limits.connectsPerSecond = 3 }
        let devices = try (0..<6).map { _ in try bench.device(UserID.random(), hello: nil) }
        #expect(devices.filter { $0.status == 101 }.count >= 3)
        #expect(devices.contains { $0.status == 503 })
        let pages = try (0..<8).map { _ in try browser(UserID.random(), bench) }
        try bench.wait("some are sent away") { pages.count { $0.closeCode != nil } >= 2 }
        let refused = pages.filter { $0.closeCode != nil }
        #expect(refused.allSatisfy { $0.closeCode == .tryAgainLater && Int($0.closeReason) ?? 0 >= 500 })
        #expect(Set(refused.map(\.closeReason)).count > 1, "spread, or they all come again at once")
    }

    /// A device whose token comes as a subprotocol.
    private func browser(_ user: UserID, _ bench: Bench) throws -> Device {
        try bench.device(
            user, hello: nil, subprotocols: ["fanout.v1", "bearer." + bench.token(user)], token: .some(nil))
    }

    /// Writes records as CDC would, and returns when the log has them.
    private func write(
        _ records: [(key: String, value: String?)], to topic: Topic, of kafka: KafkaConfiguration, _ names: Names
    ) throws {
        let producer = try Producer(kafka)
        let handle = try producer.topic(names[topic])
        for (tag, record) in zip((1 as UInt64)..., records) {
            let value = record.value.map { Array($0.utf8) }
            _ = try producer.produce(
                handle, partition: 0, key: Array(record.key.utf8).span, value: value?.span, tag: tag)
        }
        let isWritten = producer.close(deadlineMs: 10_000) { report in #expect(report.succeeded) }
        #expect(isWritten)
    }

    @Test func `a page of another site may not connect when sites are named`() throws {
        let bench = try Bench { $0.origins = ["https://chat.example"] }
        let user = UserID.random()
        let fields = [
            "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": "https://evil.example",
        ]
        var text = "GET /v1/ws?device=\(DeviceID.random()) HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"
        text += "Authorization: Bearer \(bench.token(user))\r\n"
        for (name, value) in fields { text += "\(name): \(value)\r\n" }
        let bad = Raw()
        bad.connect(bench, Array((text + "\r\n").utf8))
        try bench.wait("an answer") { bad.reply != nil }
        #expect(bad.reply?.status == 403)
        let good = Raw()
        good.connect(bench, Array((text.replacing("evil", with: "chat") + "\r\n").utf8))
        try bench.wait("an answer") { good.reply != nil }
        #expect(good.reply?.status == 101)
    }

    @Test func `what comes in the wrong order or form closes with 4002`() throws {
        let bench = try Bench()
        let early = try bench.device(UserID.random(), hello: #"{"type":"ping"}"#)
        let garbage = try bench.device(UserID.random(), hello: "not json")
        let twice = try bench.device(UserID.random())
        twice.send(#"{"type":"hello"}"#)
        let binary = try bench.device(UserID.random())
        var frame: [UInt8] = []
        Frame.append(to: &frame, .binary, [1, 2, 3].span, mask: 7)
        binary.send(bytes: frame)
        try bench.wait("all are closed") { [early, garbage, twice, binary].allSatisfy(\.isClosed) }
        #expect([early, garbage, twice, binary].allSatisfy { $0.closeCode == CloseCode(rawValue: 4002) })
        let unmasked = try bench.device(UserID.random())
        unmasked.send(bytes: Frame.encode(.text, Array("{}".utf8)))
        let large = try bench.device(UserID.random())
        frame = []
        Frame.append(to: &frame, .text, [UInt8](repeating: 0x20, count: 70_000).span, mask: 7)
        large.send(bytes: frame)
        try bench.wait("both are closed") { unmasked.isClosed && large.isClosed }
        #expect(unmasked.closeCode == .protocolError)
        #expect(large.closeCode == .tooBig)
    }

    @Test func `a bad frame in a session is answered, and the session lives`() throws {
        let bench = try Bench()
        let device = try bench.device(UserID.random())
        device.send("{")
        device.send(#"{"type":"send","id":"\#(MessageID.random())","text":"no chat"}"#)
        device.send(#"{"type":"ping","n":1}"#)
        try bench.wait("answers") { device.frames("pong").count == 1 }
        #expect(device.frames("error").count == 2)
        #expect(device.frames("error")[0].contains("bad_frame"))
    }

    @Test func `whoever says nothing is closed: no request, no hello, half a request`() throws {
        let bench = try Bench { $0.limits.handshakeMs = 1000 }
        let mute = Raw()
        mute.connect(bench, [])
        let half = Raw()
        half.connect(bench, Array("GET / HTTP/1.1\r\nHos".utf8))
        let shy = try bench.device(UserID.random(), hello: nil)
        var drips = 0
        try bench.wait("all are closed") {
            drips += 1
            if drips % 20 == 0 { half.stream?.write([0x78]) }
            return mute.isClosed && half.isClosed && shy.isClosed
        }
        #expect(half.reply?.status == 408)
        #expect(shy.closeCode == CloseCode(rawValue: 4002))
    }

    @Test func `a silent device is pinged, and given up when it does not answer`() throws {
        let bench = try Bench { $0.limits.silenceMs = 3000 }
        let device = try bench.device(UserID.random())
        let dead = Raw()
        let user = UserID.random()
        var generator = SeededGenerator(.random(in: 0 ... .max))
        let handshake = ClientHandshake(
            host: "h", target: "/v1/ws?device=\(DeviceID.random())",
            fields: [.init("Authorization", "Bearer \(bench.token(user))")], using: &generator)
        var hello: [UInt8] = []
        Frame.append(to: &hello, .text, Array(#"{"type":"hello"}"#.utf8).span, mask: 5)
        dead.connect(bench, handshake.request + hello)
        try bench.wait("the silent one is closed") { dead.isClosed }
        try bench.wait("the other one was pinged") { device.pings > 0 }
        #expect(device.isOpen)
        let farewell = Frame.encode(close: CloseCode(rawValue: 4009), reason: "nothing heard")
        #expect(Array(dead.bytes.suffix(farewell.count)) == farewell)
    }

    @Test func `a device that does not read is closed as too slow`() throws {
        let bench = try Bench {
            $0.limits.sessionQueueBytes = 64 << 10
            $0.limits.silenceMs = 60_000
        }
        let worker = try bench.worker()
        let user = UserID.random()
        let device = try bench.device(user)
        try bench.wait("live") { device.frames("caught_up").count == 1 }
        device.stream?.pauseReading()
        let event = #"{"type":"message","text":"\#(String(repeating: "x", count: 20_000))"}"#
        var offset: Int64 = 200
        try bench.wait("the session ends") {
            for _ in 0..<20 {
                offset += 1
                worker.push(event, offset: offset, to: [user])
            }
            return worker.session(of: user) == nil
        }
        device.stream?.resumeReading()
        try bench.wait("the device hears why") { device.closeCode != nil || device.isClosed }
        #expect(device.closeCode == CloseCode(rawValue: 4008))
    }

    @Test func `a link without the secret gets nothing`() throws {
        let bench = try Bench()
        let impostor = Worker("impostor", term: 9, partitionCount: 4, bench.loop, secret: Array("wrong".utf8))
        impostor.connect(port: bench.server.pushPorts[0])
        try bench.wait("the link ends") { impostor.isClosed }
        #expect(impostor.sessions.isEmpty && !impostor.isOpen)
    }
}
