import Foundation
import Ingest
import KafkaClient
import PushLink
import Runtime
import Synchronization
import System
import TestSupport
import Testing
import WebSocket
import Wire

/// A chat server on free ports with a log of its own, and a loop on which a test plays devices and Delivery workers.
final class Bench {
    static let secret = Array("a secret of the tests, long enough".utf8)
    static let pushSecret = Array("the link's secret".utf8)

    let loop: EventLoop
    let kafka: KafkaConfiguration
    let names: Names
    let postgres: String?
    let server: ChatServer
    let metrics = Metrics()
    private let thread: System.Thread
    private let failure: Failure

    final class Failure: Sendable {
        let text = Mutex<String?>(nil)
    }

    /// - Parameter database: makes a database for a server whose topics have these names.
    convenience init(database: (Names) throws -> String) throws {
        let names = Names(prefix: TestKafka.unique("ingest") + ".")
        try self.init(postgres: try database(names), names: names)
    }

    init(
        postgres: String? = nil, names: Names = Names(prefix: TestKafka.unique("ingest") + "."),
        kafka: KafkaConfiguration? = nil, _ change: (inout IngestConfiguration) throws -> Void = { _ in }
    ) throws {
        loop = try EventLoop()
        let kafka = try kafka ?? KafkaConfiguration(bootstrapServers: TestKafka.shared().address)
        self.kafka = kafka
        self.names = names
        self.postgres = postgres
        let admin = try Admin(kafka)
        var topics: [NewTopic] = []
        for topic in Topic.allCases {
            topics.append(
                NewTopic(
                    names[topic], partitions: topic == .instances ? 1 : 4,
                    configs: topic == .incoming ? ["message.timestamp.type": "LogAppendTime"] : [:]))
        }
        for outcome in try admin.createTopics(topics, timeoutMs: 60_000) {
            if let error = outcome.error { throw error }
        }
        _ = admin.close(deadlineMs: 1000)
        var configuration = IngestConfiguration(
            instance: "test", listen: Address(host: "127.0.0.1", port: 0),
            pushListen: Address(host: "127.0.0.1", port: 0), pushHost: "127.0.0.1", pushSecret: Self.pushSecret,
            kafka: kafka, tokens: TokenConfiguration(keys: .hs256(secret: Self.secret)))
        configuration.names = names
        configuration.postgres = postgres
        configuration.limits.drainMs = 200
        try change(&configuration)
        let failure = Failure()
        self.failure = failure
        let server = try ChatServer(configuration, log: .none, metrics: metrics)
        self.server = server
        thread = System.Thread.start(name: "server") {
            do { try server.run() } catch { failure.text.withLock { $0 = "\(error)" } }
        }
        try wait("the server serves") { failure.text.withLock { $0 } != nil || server.isReady }
        if let text = failure.text.withLock({ $0 }) { throw BenchError(description: text) }
    }

    deinit {
        server.stop()
        thread.join()
        loop.close()
    }

    struct BenchError: Error, CustomStringConvertible {
        let description: String
    }

    /// Runs the loop until the condition holds, and fails the test when it does not within a minute.
    func wait(_ what: String, seconds: Double = 60, _ condition: () -> Bool) throws {
        let end = ContinuousClock.now + .seconds(seconds)
        while !condition() {
            loop.runOnce(timeoutMs: 5)
            guard ContinuousClock.now < end else { throw BenchError(description: "it did not come true: \(what)") }
        }
    }

    func token(_ user: UserID, scopes: String = "", lifetimeMs: Int64 = 3_600_000) -> String {
        TokenMint.mint(
            user: user, secret: Self.secret, nowMs: SystemClock().wallMs, lifetimeMs: lifetimeMs, scopes: scopes)
    }

    /// A device that has said hello, unless told otherwise.
    func device(
        _ user: UserID, device: DeviceID = .random(), hello: String? = #"{"type":"hello"}"#, scopes: String = "",
        subprotocols: [String] = ["fanout.v1"], token: String?? = nil
    ) throws -> Device {
        let made = Device(user, device)
        made.connect(
            self, token: token ?? self.token(user, scopes: scopes), subprotocols: subprotocols)
        try wait("the handshake") { made.isOpen || made.isClosed || made.status != nil }
        if let hello, made.isOpen { made.send(hello) }
        return made
    }

    func worker(_ name: String = "worker", term: UInt64 = 1, loopIndex: Int = 0, partitions: Int32 = 4) throws -> Worker
    {
        let worker = Worker(name, term: term, partitionCount: partitions, loop)
        worker.connect(port: server.pushPorts[loopIndex])
        try wait("the link opens") { worker.isOpen }
        return worker
    }

    /// The values of one topic so far.
    func records(_ topic: Topic, atLeast count: Int) throws -> [String] {
        var options = ConsumerOptions()
        options.startWithoutCommit = .earliest
        let consumer = try Consumer(kafka, options)
        defer { consumer.close(deadlineMs: 1000) }
        let partitions: Int32 = topic == .instances ? 1 : 4
        try consumer.assign((0..<partitions).map { PartitionStart(TopicPartition(names[topic], $0), at: .beginning) })
        var values: [String] = []
        try wait("\(count) records in \(topic)") {
            let batch = consumer.poll(maxMessages: 100, timeoutMs: 20)
            for index in 0..<batch.count {
                let message = batch[index]
                if let value = message.value { values.append(String(showing: value)) }
            }
            return values.count >= count
        }
        return values
    }

    /// What the server's metrics say; -1 when there is no such series.
    func metric(_ series: String) -> Int {
        let lines = String(decoding: metrics.render(), as: UTF8.self).split(separator: "\n")
        return lines.first { $0.hasPrefix(series + " ") }.flatMap { Int($0.dropFirst(series.utf8.count + 1)) } ?? -1
    }

    /// One HTTP request on a connection of its own.
    func http(
        _ method: String, _ target: String, token: String? = nil, body: String? = nil, fields: [String: String] = [:]
    ) throws -> HTTPReply {
        var text = "\(method) \(target) HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
        if let token { text += "Authorization: Bearer \(token)\r\n" }
        for (name, value) in fields { text += "\(name): \(value)\r\n" }
        if let body { text += "Content-Length: \(body.utf8.count)\r\n" }
        let raw = Raw(method: method)
        raw.connect(self, Array((text + "\r\n" + (body ?? "")).utf8))
        try wait("an answer to \(method) \(target)") { raw.reply != nil || raw.isClosed }
        return try #require(raw.reply)
    }
}

/// A connection that sends bytes and reads replies.
final class Raw: System.StreamDelegate {
    private(set) var reply: HTTPReply?
    private(set) var replies: [HTTPReply] = []
    private(set) var bytes: [UInt8] = []
    private(set) var isClosed = false
    private(set) var stream: System.Stream?
    private var parser = HTTPReplyParser(limits: Raw.limits)
    private let method: String

    /// No answer is too long for a test.
    private static let limits: HTTPLimits = {
        var limits = HTTPLimits()
        limits.bodyBytesMax = 64 << 20
        return limits
    }()

    init(method: String = "GET") { self.method = method }

    func connect(_ bench: Bench, _ bytes: [UInt8], tls: TLSContext? = nil) {
        stream = System.Stream.connect(
            host: "127.0.0.1", port: bench.server.port, on: bench.loop, delegate: self, tls: tls)
        stream?.write(bytes)
    }

    func stream(_ stream: System.Stream, received bytes: Span<UInt8>) {
        self.bytes.append(bytes)
        var offset = 0
        while let next = try? parser.next(bytes, &offset, toHead: method == "HEAD") {
            reply = reply ?? next
            replies.append(next)
        }
    }

    func streamClosed(_ stream: System.Stream, reason: CloseReason) { isClosed = true }
}

/// One device as a client sees it.
final class Device: System.StreamDelegate {
    let user: UserID
    let device: DeviceID
    private(set) var frames: [String] = []
    private(set) var status: Int?
    private(set) var subprotocol: String?
    private(set) var closeCode: CloseCode?
    private(set) var closeReason = ""
    private(set) var isClosed = false
    private(set) var isOpen = false
    private(set) var pings = 0
    private(set) var stream: System.Stream?
    private var handshake: ClientHandshake?
    private var parser = HTTPReplyParser()
    private var connection = Connection(role: .client)

    init(_ user: UserID, _ device: DeviceID) {
        self.user = user
        self.device = device
    }

    func connect(_ bench: Bench, token: String?, subprotocols: [String]) {
        var generator = SeededGenerator(.random(in: 0 ... .max))
        let handshake = ClientHandshake(
            host: "test", target: "/v1/ws?device=\(device)", subprotocols: subprotocols,
            fields: token.map { [.init("Authorization", "Bearer \($0)")] } ?? [], using: &generator)
        self.handshake = handshake
        stream = System.Stream.connect(host: "127.0.0.1", port: bench.server.port, on: bench.loop, delegate: self)
        stream?.write(handshake.request)
    }

    func send(_ json: String) {
        var frame: [UInt8] = []
        Frame.append(to: &frame, .text, Array(json.utf8).span, mask: .random(in: .min ... .max))
        stream?.write(frame)
    }

    func send(bytes: [UInt8]) { stream?.write(bytes) }

    func close() { stream?.close() }

    /// The frames of one type.
    func frames(_ type: String) -> [String] { frames.filter { $0.contains("\"type\":\"\(type)\"") } }

    func stream(_ stream: System.Stream, received bytes: Span<UInt8>) {
        var offset = 0
        if let handshake {
            guard let reply = try? parser.next(bytes, &offset) else { return }
            status = reply.status
            guard let chosen = try? handshake.verify(reply) else { return stream.close() }
            subprotocol = chosen
            isOpen = true
            self.handshake = nil
        }
        var message: [UInt8] = []
        let limits = Connection.Limits(messageBytesMax: 1 << 20)
        while let event = try? connection.next(bytes, &offset, into: &message, limits: limits) {
            switch event {
            case .message: frames.append(String(decoding: message, as: UTF8.self))
            case .ping: pings += 1
            case .pong: break
            case .closed(let code):
                closeCode = code
                closeReason = String(decoding: message.dropFirst(2), as: UTF8.self)
            }
        }
        stream.write(connection.takeOutput())
    }

    func streamClosed(_ stream: System.Stream, reason: CloseReason) {
        isClosed = true
        isOpen = false
    }
}

/// A Delivery worker, played: it claims partitions, answers registrations, and pushes what the test says.
final class Worker: System.StreamDelegate {
    private var link: WorkerLink
    private var stream: System.Stream?
    private let loop: EventLoop
    private let term: UInt64
    private let partitionCount: Int32
    private(set) var isOpen = false
    private(set) var isClosed = false
    private(set) var failure: LinkError?
    private(set) var messages: [InstanceMessage] = []
    private(set) var sessions: [SessionNumber: SessionRegistration] = [:]
    private(set) var acknowledged: UInt64 = 0
    /// What registrations are answered with.
    var liveAfter = Cursor(offset: 100, timestamp: 1_000)
    var claimsOnOpen = true
    var answersRegistrations = true

    init(_ name: String, term: UInt64, partitionCount: Int32, _ loop: EventLoop, secret: [UInt8] = Bench.pushSecret) {
        self.loop = loop
        self.term = term
        self.partitionCount = partitionCount
        link = WorkerLink(
            identity: LinkIdentity(name: name, epoch: 1),
            secret: LinkSecret { Crypto.hmacSHA256(key: secret, $0) }, nonce: Crypto.randomBytes(32),
            nowMs: loop.nowMs)
    }

    func connect(port: Int) {
        stream = System.Stream.connect(host: "127.0.0.1", port: port, on: loop, delegate: self)
        flush()
    }

    func stream(_ stream: System.Stream, received bytes: Span<UInt8>) {
        link.receive(bytes, nowMs: loop.nowMs)
        do {
            while let event = try link.next() {
                switch event {
                case .opened:
                    isOpen = true
                    if claimsOnOpen { claim(Array(0..<partitionCount)) }
                case .message(let message): take(message)
                }
            }
        } catch {
            failure = error
        }
        flush()
    }

    private func take(_ message: InstanceMessage) {
        messages.append(message)
        switch message {
        case .register(let request, let partition, _, let registrations):
            for registration in registrations { sessions[registration.number] = registration }
            if answersRegistrations {
                link.send(.registered(request: request, partition: partition, liveAfter: liveAfter))
            }
        case .unregister(_, let numbers): for number in numbers { sessions[number] = nil }
        case .acknowledge(let batches): acknowledged = batches
        default: break
        }
    }

    func claim(_ partitions: [Int32]) {
        link.send(
            .claim(partitionCount: partitionCount, partitions.map { PartitionClaim(partition: $0, term: term) }))
        flush()
    }

    func send(_ message: WorkerMessage) {
        link.send(message)
        flush()
    }

    func session(of user: UserID) -> SessionRegistration? { sessions.values.first { $0.user == user } }

    func push(_ event: String, offset: Int64, kind: EventKind = .message, to users: [UserID]) {
        for user in users {
            let numbers = sessions.values.filter { $0.user == user }.map(\.number)
            link.sendBatch(
                partition: user.partition(count: partitionCount),
                cursor: Cursor(offset: offset, timestamp: offset * 10),
                kind: kind, sessions: numbers.span, payload: Array(event.utf8).span)
        }
        flush()
    }

    func page(_ request: FillRequest, _ events: [(offset: Int64, text: String)], upTo: Cursor, isLast: Bool) {
        link.sendPage(request: request.request, session: request.session) { append in
            for event in events { append(event.offset, .message, Array(event.text.utf8).span) }
            return (upTo, isLast)
        }
        flush()
    }

    var fills: [FillRequest] {
        messages.compactMap { if case .fill(let request) = $0 { request } else { nil } }
    }

    func flush() { stream?.write(link.takeOutput(nowMs: loop.nowMs)) }

    func close() { stream?.close() }

    func streamClosed(_ stream: System.Stream, reason: CloseReason) {
        isClosed = true
        isOpen = false
    }
}
