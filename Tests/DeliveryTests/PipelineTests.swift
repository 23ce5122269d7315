import Delivery
import Foundation
import KafkaClient
import PushLink
import Runtime
import Synchronization
import System
import TestSupport
import Testing
import Wire

/// Real workers, a real log, real sockets; the chat servers are models behind listeners.
private final class Pipeline {
    static let partitionCount: Int32 = 4
    static let secretText = "a secret for tests"
    let address: String
    private let own: TestKafka?
    let configuration: KafkaConfiguration
    let names: Names
    let producer: Producer
    let deliveries: ProducerTopic
    private var tag: UInt64 = 0
    private var source: Int64 = 0

    /// At a broker of its own, or at one that somebody else kills.
    init(at address: String? = nil) throws {
        own = address == nil ? try TestKafka.start() : nil
        self.address = address ?? own?.address ?? ""
        configuration = KafkaConfiguration(bootstrapServers: self.address, clientID: "test")
        let names = Names(prefix: TestKafka.unique("delivery") + ".")
        self.names = names
        producer = try Producer(configuration)
        let admin = try Admin(configuration)
        _ = try admin.createTopics(
            [Topic.deliveries, .presence, .push, .rejected].map {
                NewTopic(names[$0], partitions: Int(Self.partitionCount))
            } + [NewTopic(names[.instances], partitions: 1)])
        deliveries = try producer.topic(names[.deliveries])
        try producer.warmUp(topics: [names[.deliveries]])
    }

    func stop() {
        producer.close(deadlineMs: 1_000) { _ in }
        own?.stop()
    }

    static var secret: LinkSecret { LinkSecret(Array(secretText.utf8)) }

    func delivery(_ name: String, sessionTimeoutMs: Int = 6_000) -> DeliveryConfiguration {
        var configuration = DeliveryConfiguration(
            kafka: configuration, name: name, epoch: UInt64(Date().timeIntervalSince1970 * 1_000), secret: Self.secret)
        configuration.names = names
        configuration.sessionTimeoutMs = sessionTimeoutMs
        configuration.presenceGraceMs = 1_000
        configuration.pushWindowMs = 50
        configuration.hearingMs = 1_000
        return configuration
    }

    func chatServer(_ name: String, epoch: UInt64 = 1, clockMs: Int64 = 0) throws -> SocketChatServer {
        try SocketChatServer(
            name: name, epoch: epoch, secret: Self.secret, kafka: configuration, names: names, clockMs: clockMs)
    }

    /// Writes one message to the partitions of its recipients, as the join does.
    func send(to users: [UserID]) throws {
        source += 1
        for (partition, users) in Dictionary(grouping: users, by: { $0.partition(count: Self.partitionCount) }) {
            let list = users.map { "\"\($0)\"" }.joined(separator: ",")
            let value =
                #"{"to":[\#(list)],"event":{"type":"message","chat":"\#(chat(1))","from":"\#(user(0))","seq":\#(source),"kind":"text"}}"#
            tag += 1
            let headers = RecordHeaders("src", Array("chat.incoming/0/\(source)".utf8).span)
            while try producer.produce(
                deliveries, partition: partition, key: nil, value: Array(value.utf8).span, headers: headers, tag: tag)
                == .queueFull
            { producer.poll(timeoutMs: 10) { _ in } }
        }
        producer.poll { _ in }
    }

    /// What the log holds for each user, in order.
    func events() throws -> [UserID: [Int64]] {
        var events: [UserID: [Int64]] = [:]
        try read(.deliveries) { message in
            guard let value = message.value, let record = try? DeliveryRecord(decoding: value),
                case .users(let list) = record.recipients
            else { return }
            try? DeliveryRecord.forEachUser(in: list, of: value) { events[$0, default: []].append(message.offset) }
        }
        return events
    }

    /// Reads a topic of the users' side from the beginning to its end.
    private func read(_ topic: Topic, _ body: (borrowing Message) -> Void) throws {
        var options = ConsumerOptions()
        options.reportsEndOfPartition = true
        let consumer = try Consumer(configuration, options)
        defer { consumer.close(deadlineMs: 2_000) }
        try consumer.assign(
            (0..<Self.partitionCount).map { PartitionStart(TopicPartition(names[topic], $0), at: .beginning) })
        var ended: Set<Int32> = []
        let isRead = eventually {
            let batch = consumer.poll(timeoutMs: 100)
            for index in 0..<batch.count { body(batch[index]) }
            if case .endOfPartition(let place, _) = batch.event { ended.insert(place.partition) }
            return ended.count == Int(Self.partitionCount)
        }
        #expect(isRead)
    }

    /// Each user's last record in `chat.presence`.
    func presence() throws -> [UserID: PresenceRecord] {
        var last: [UserID: PresenceRecord] = [:]
        try read(.presence) { message in
            if let value = message.value, let record = try? PresenceRecord(decoding: value) {
                last[record.user] = record
            }
        }
        return last
    }

    func pushCount() throws -> Int {
        var count = 0
        try read(.push) { _ in count += 1 }
        return count
    }

    /// Returns when the group has committed all that the log holds.
    func awaitCommits() throws {
        let admin = try Admin(configuration)
        defer { admin.close(deadlineMs: 500) }
        let places = (0..<Self.partitionCount).map { TopicPartition(names[.deliveries], $0) }
        let ends = try admin.watermarks(places).map { try $0.get().high }
        let reader = try Consumer(configuration, ConsumerOptions(groupID: names.group("delivery")))
        defer { reader.close(deadlineMs: 1_000) }
        let isCommitted = try eventually { try reader.committed(places).map { $0?.offset ?? 0 } == ends }
        #expect(isCommitted)
    }

    func flush() {
        let isDone = producer.flush(deadlineMs: 10_000) { _ in }
        #expect(isDone)
    }
}

/// A worker on a thread of its own.
private final class RunningStage: Sendable {
    let stage: DeliveryStage
    private let thread: System.Thread

    init(_ configuration: DeliveryConfiguration) {
        let stage = DeliveryStage(configuration)
        self.stage = stage
        thread = System.Thread.start(name: "delivery") {
            do { try stage.run() } catch { Issue.record("the worker stopped: \(error)") }
        }
    }

    func stop() {
        stage.stop()
        thread.join()
    }
}

/// Devices that live on their chat server's thread; tests ask for them there.
private struct Devices: @unchecked Sendable {
    let list: [ModelDevice]

    init(_ count: Int, users: Int) {
        list = (0..<count).map { ModelDevice(user: user($0 % users), device: device($0)) }
    }
}

@Suite(.serialized) struct PipelineTests {
    private static let users = (0..<10).map { user($0) }

    /// Every device has been shown every event of its user since it began, once, in order.
    ///
    /// Waits by counting and compares once: what looks through all that was seen, on the server's own thread and again
    /// and again, is a load under which the server falls behind.
    private func check(_ devices: Devices, on server: SocketChatServer, _ pipeline: Pipeline, seconds: Double = 60)
        throws
    {
        let events = try pipeline.events()
        let isComplete = eventually(seconds: seconds) {
            server.with { _ in
                devices.list.allSatisfy { $0.seen.last?.offset ?? -1 >= events[$0.user]?.last ?? -1 }
            }
        }
        #expect(isComplete)
        let shown = server.with { _ in devices.list.map { ($0.start?.offset ?? -1, $0.seen.map(\.offset)) } }
        for (device, (start, seen)) in zip(devices.list, shown) {
            let expected = (events[device.user] ?? []).filter { $0 > start }
            guard seen != expected else { continue }
            let lost = Set(expected).subtracting(seen).sorted()
            let isOrdered = zip(seen, seen.dropFirst()).allSatisfy { $0 < $1 }
            Issue.record(
                "\(device.device): \(seen.count) of \(expected.count), lost \(lost.prefix(5)), ordered: \(isOrdered)")
        }
    }

    @Test func `a message in the log reaches every session of its recipients, and the offset is committed behind it`()
        throws
    {
        let pipeline = try Pipeline()
        defer { pipeline.stop() }
        let server = try pipeline.chatServer("chat-1")
        defer { server.kill() }
        let worker = RunningStage(pipeline.delivery("worker-1"))
        defer { worker.stop() }
        let devices = Devices(20, users: 10)
        server.with { model in for device in devices.list { model.open(device) } }
        #expect(eventually { server.with { $0.isLive && !$0.sessions.isEmpty } }, "sessions are live")
        for _ in 0..<50 { try pipeline.send(to: Self.users) }
        pipeline.flush()
        try check(devices, on: server, pipeline)
        #expect(eventually { worker.stage.isReady })
        try pipeline.awaitCommits()
    }

    @Test(arguments: [-15_000, 15_000] as [Int64])
    func `a chat server whose clock differs is served like any other, and the difference is told`(clockMs: Int64) throws
    {
        let pipeline = try Pipeline()
        defer { pipeline.stop() }
        let server = try pipeline.chatServer("chat-1", clockMs: clockMs)
        defer { server.kill() }
        let configuration = pipeline.delivery("worker-1")
        let worker = RunningStage(configuration)
        defer { worker.stop() }
        let devices = Devices(10, users: 10)
        server.with { model in for device in devices.list { model.open(device) } }
        #expect(eventually { server.with { $0.isLive && !$0.sessions.isEmpty } })
        for _ in 0..<20 { try pipeline.send(to: Self.users) }
        pipeline.flush()
        try check(devices, on: server, pipeline)
        let ahead = "fanout_clock_skew_seconds \(clockMs < 0 ? "1" : "-1")"
        #expect(eventually { String(decoding: configuration.metrics.render(), as: UTF8.self).contains(ahead) })
    }

    @Test func `a worker with a wrong secret takes no partitions and says why; nobody is told that others are away`()
        throws
    {
        let pipeline = try Pipeline()
        defer { pipeline.stop() }
        let server = try pipeline.chatServer("chat-1")
        defer { server.kill() }
        let worker = RunningStage(pipeline.delivery("worker-1"))
        defer { worker.stop() }
        let devices = Devices(10, users: 10)
        server.with { model in for device in devices.list { model.open(device) } }
        #expect(eventually { server.with { $0.isLive && !$0.sessions.isEmpty } && worker.stage.isReady })
        var wrong = pipeline.delivery("worker-2")
        wrong.secret = LinkSecret(Array("another secret".utf8))
        let stranger = RunningStage(wrong)
        defer { stranger.stop() }
        #expect(
            eventually {
                let why = stranger.stage.health.look().text
                return why.contains("partitions: cannot reach chat server chat-1 at 127.0.0.1:")
                    && why.contains("secret")
            })
        for _ in 0..<50 { try pipeline.send(to: Self.users) }
        pipeline.flush()
        try check(devices, on: server, pipeline)
        try pipeline.awaitCommits()
        #expect(!stranger.stage.isReady && worker.stage.isReady)
        let admin = try Admin(pipeline.configuration)
        defer { admin.close(deadlineMs: 500) }
        let group = try admin.describeGroups([pipeline.names.group("delivery")])[0].1.get()
        #expect(group.members.count == 1)
        #expect(try pipeline.pushCount() == 0)
    }

    @Test func `two workers hand partitions over under load, and no device notices`() throws {
        let pipeline = try Pipeline()
        defer { pipeline.stop() }
        let server = try pipeline.chatServer("chat-1")
        defer { server.kill() }
        var workers = [RunningStage(pipeline.delivery("worker-1"))]
        defer { for worker in workers { worker.stop() } }
        let devices = Devices(40, users: 10)
        server.with { model in for device in devices.list { model.open(device) } }
        #expect(eventually { server.with { $0.isLive && !$0.sessions.isEmpty } })
        func load(_ count: Int) throws {
            for _ in 0..<count {
                try pipeline.send(to: Self.users)
                pace(microseconds: 1000)
            }
        }
        try load(200)
        workers.append(RunningStage(pipeline.delivery("worker-2")))
        try load(1_000)
        #expect(eventually { workers[1].stage.isReady })
        workers.removeFirst().stop()
        try load(500)
        workers.append(RunningStage(pipeline.delivery("worker-3")))
        try load(500)
        pipeline.flush()
        try check(devices, on: server, pipeline)
    }

    @Test func `a chat server that dies takes nothing with it: its devices go on elsewhere`() throws {
        let pipeline = try Pipeline()
        defer { pipeline.stop() }
        let first = try pipeline.chatServer("chat-1")
        let second = try pipeline.chatServer("chat-2")
        defer { second.kill() }
        let worker = RunningStage(pipeline.delivery("worker-1"))
        defer { worker.stop() }
        let devices = Devices(20, users: 10)
        first.with { model in for device in devices.list { model.open(device) } }
        #expect(eventually { first.with { $0.isLive && !$0.sessions.isEmpty } })
        for _ in 0..<100 { try pipeline.send(to: Self.users) }
        first.kill()
        for _ in 0..<100 { try pipeline.send(to: Self.users) }
        second.with { model in for device in devices.list { model.open(device) } }
        for _ in 0..<100 { try pipeline.send(to: Self.users) }
        pipeline.flush()
        try check(devices, on: second, pipeline)
    }

    @Test func `devices that go to another chat server end their sessions on the first`() throws {
        let pipeline = try Pipeline()
        defer { pipeline.stop() }
        let first = try pipeline.chatServer("chat-1")
        defer { first.kill() }
        let second = try pipeline.chatServer("chat-2")
        defer { second.kill() }
        let worker = RunningStage(pipeline.delivery("worker-1"))
        defer { worker.stop() }
        let devices = Devices(20, users: 10)
        first.with { model in for device in devices.list { model.open(device) } }
        #expect(eventually { first.with { $0.isLive && !$0.sessions.isEmpty } })
        second.with { model in for device in devices.list { model.open(device) } }
        #expect(eventually { first.with { $0.sessions.isEmpty } })
        #expect(first.with { Set($0.takenOver) } == Set(devices.list.map(\.device)))
        for _ in 0..<100 { try pipeline.send(to: Self.users) }
        pipeline.flush()
        try check(devices, on: second, pipeline)
        #expect(second.with { $0.takenOver.isEmpty })
    }

    @Test func `presence reaches watchers and the log, and outlives its owner`() throws {
        let pipeline = try Pipeline()
        defer { pipeline.stop() }
        let server = try pipeline.chatServer("chat-1")
        defer { server.kill() }
        var worker = RunningStage(pipeline.delivery("worker-1"))
        defer { worker.stop() }
        func status(_ number: Int) -> PresenceStatus? { server.with { $0.presence[user(number)]?.status } }
        #expect(eventually { worker.stage.isReady })
        server.with { model in for number in 0..<3 { model.watch(user(number)) } }
        #expect(eventually { status(0) == .offline && status(1) == .offline })
        let devices = Devices(3, users: 3)
        let numbers = server.with { model in devices.list.map { model.open($0) } }
        #expect(eventually { status(0) == .online && status(1) == .online && status(2) == .online })
        server.with { $0.close(numbers[0]) }
        #expect(eventually { status(0) == .offline })
        // The owner changes; one user leaves while there is none.
        worker.stop()
        server.with { $0.close(numbers[1]) }
        worker = RunningStage(pipeline.delivery("worker-2"))
        #expect(eventually { status(1) == .offline })
        #expect(status(2) == .online)
        let lastSeen = server.with { $0.presence[user(1)]?.lastSeen ?? 0 }
        #expect(lastSeen > 1_700_000_000_000)
    }

    @Test func `messages for somebody without a session are told to chat.push, those of the sender are not`() throws {
        let pipeline = try Pipeline()
        defer { pipeline.stop() }
        let worker = RunningStage(pipeline.delivery("worker-1"))
        defer { worker.stop() }
        #expect(eventually { worker.stage.isReady })
        for _ in 0..<3 { try pipeline.send(to: [user(0), user(1)]) }
        pipeline.flush()
        let consumer = try Consumer(pipeline.configuration, ConsumerOptions())
        defer { consumer.close(deadlineMs: 1_000) }
        try consumer.assign(
            (0..<Pipeline.partitionCount).map {
                PartitionStart(TopicPartition(pipeline.names[.push], $0), at: .beginning)
            })
        var counts: [UserID: Int64] = [:]
        let isTold = eventually {
            let batch = consumer.poll(timeoutMs: 50)
            for index in 0..<batch.count {
                if let value = batch[index].value, let push = try? PushRecord(decoding: value) {
                    counts[push.user, default: 0] += push.count
                }
            }
            return counts[user(1)] == 3
        }
        #expect(isTold && counts[user(0)] == nil, "\(counts)")
    }

    @Test func `a device's acknowledged cursor is found again after the worker has gone`() throws {
        let pipeline = try Pipeline()
        defer { pipeline.stop() }
        let database = try PostgresCluster.shared().freshDatabase(migrated: true)
        let server = try pipeline.chatServer("chat-1")
        defer { server.kill() }
        var configuration = pipeline.delivery("worker-1")
        configuration.postgres = database
        var worker = RunningStage(configuration)
        defer { worker.stop() }
        #expect(eventually { worker.stage.isReady })
        let cursor = Cursor(offset: 77, timestamp: 1_763_000_000_000)
        server.with {
            $0.send(.storeCursors([DeviceCursor(user: user(1), device: device(1), cursor: cursor)]), forUser: user(1))
        }
        func look(_ request: UInt32, _ number: Int) -> StoredCursor? {
            server.with {
                $0.send(
                    .lookUpCursor(request: request, user: user(number), device: device(number)), forUser: user(number))
            }
            var answer: StoredCursor?
            _ = eventually(seconds: 2) {
                answer = server.with { $0.storedCursors[request] }
                return answer != nil
            }
            return answer
        }
        #expect(look(1, 1) == .found(cursor))
        #expect(look(2, 2) == StoredCursor.none)
        // Many at once are asked for together.
        let lookUps = (100..<400).map { (request: UInt32($0), number: $0 % 3) }
        server.with { model in
            for (request, number) in lookUps {
                model.send(
                    .lookUpCursor(request: request, user: user(number), device: device(number)), forUser: user(number))
            }
        }
        let isAnswered = eventually {
            server.with { model in
                lookUps.allSatisfy {
                    model.storedCursors[$0.request] == ($0.number == 1 ? .found(cursor) : StoredCursor.none)
                }
            }
        }
        #expect(isAnswered)
        worker.stop()
        var second = pipeline.delivery("worker-2")
        second.postgres = database
        worker = RunningStage(second)
        #expect(eventually { worker.stage.isReady })
        #expect(look(3, 1) == .found(cursor))
    }

    @Test
    func `kills of the worker, the chat servers and the broker lose and repeat nothing, and presence becomes true`()
        throws
    {
        var random = SeededGenerator.announced("delivery kills")
        let broker = try BrokerProcess()
        let pipeline = try Pipeline(at: broker.address)
        defer { pipeline.stop() }
        func startWorker() throws -> FanoutProcess {
            try FanoutProcess(
                [
                    "delivery", "--kafka", pipeline.address, "--topic-prefix", pipeline.names.prefix, "--name",
                    "worker",
                    "--presence-grace", "1s",
                ], environment: ["FANOUT_LINK_SECRET": Pipeline.secretText])
        }
        var worker = try startWorker()
        defer { worker.kill() }
        var epoch: UInt64 = 1
        var server = try pipeline.chatServer("chat", epoch: epoch)
        defer { server.kill() }
        let devices = Devices(200, users: 10)
        // Who is away now: users leave and come back with all of their devices, and are watched all the time.
        var away: Set<UserID> = []
        func open(_ isIn: @escaping @Sendable (UserID) -> Bool) {
            server.with { model in for device in devices.list where isIn(device.user) { model.open(device) } }
        }
        func move(_ user: UserID) {
            if away.insert(user).inserted {
                server.with { model in
                    for (number, session) in model.sessions where session.device.user == user { model.close(number) }
                }
            } else {
                away.remove(user)
                open { $0 == user }
            }
        }
        let startMs = SystemClock().wallMs
        /// What the watcher was last told of everybody, and the last records of chat.presence, become true.
        func awaitPresence() throws {
            func isTrue(_ user: UserID, isOnline: Bool?, _ lastSeen: Int64?) -> Bool {
                isOnline == !away.contains(user)
                    && (startMs - 1_000...SystemClock().wallMs + 1_000).contains(lastSeen ?? 0)
            }
            let isTold = eventually(seconds: 60) {
                let told = server.with { $0.presence }
                return Self.users.allSatisfy {
                    isTrue($0, isOnline: told[$0].map { $0.status == .online }, told[$0]?.lastSeen)
                }
            }
            #expect(isTold, "\(away): \(server.with { $0.presence })")
            var last: [UserID: PresenceRecord] = [:]
            let isWritten = try eventually(seconds: 60) {
                last = try pipeline.presence()
                return Self.users.allSatisfy {
                    isTrue($0, isOnline: last[$0].map { $0.status == .online }, last[$0]?.lastSeen)
                }
            }
            #expect(isWritten, "\(away): \(last)")
        }
        server.with { model in for user in Self.users { model.watch(user) } }
        open { _ in true }
        #expect(eventually { server.with { $0.isLive && !$0.sessions.isEmpty } }, "\(worker.text)")
        // Who has gone before the log has heard of them was never there, if the worker dies then.
        try awaitPresence()
        for round in 0..<6 {
            for user in Self.users where Bool.random(using: &random) { move(user) }
            for _ in 0..<Int.random(in: 50...150, using: &random) {
                try pipeline.send(to: Self.users)
                pace(microseconds: 500)
            }
            switch round % 3 {
            case 0:
                worker.kill()
                worker = try startWorker()
            case 1:
                server.kill()
                epoch += 1
                server = try pipeline.chatServer("chat", epoch: epoch)
                server.with { model in for user in Self.users { model.watch(user) } }
                open { [away] in !away.contains($0) }
            default:
                broker.kill()
                try broker.restart()
            }
        }
        for _ in 0..<50 { try pipeline.send(to: Self.users) }
        pipeline.flush()
        try awaitPresence()
        // A commit that a dying broker has not answered is made again, though nothing more comes.
        try pipeline.awaitCommits()
        for user in away { move(user) }
        try check(devices, on: server, pipeline)
        #expect(worker.isRunning, "\(worker.text)")
    }
}
