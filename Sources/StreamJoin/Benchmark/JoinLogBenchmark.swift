public import KafkaClient
public import Runtime
import System
import Wire

/// The whole stage against a broker, with topics of its own.
extension JoinBenchmark {
    /// The table at full size as a join restores it from the log: from the group's assignment until the join is ready.
    public func restore(_ kafka: KafkaConfiguration, memberships: Int, log: Log) throws -> [Row] {
        let load = try LoggedLoad(kafka)
        defer { load.delete() }
        var random = SystemRandomNumberGenerator()
        let chats = (0..<max(1, memberships / 10)).map { _ in ChatID.random(using: &random) }
        let users = (0..<max(1, memberships / 10)).map { _ in UserID.random(using: &random) }
        for index in 0..<memberships {
            let chat = chats[Int.random(in: 0..<chats.count, using: &random)]
            let user = users[Int.random(in: 0..<users.count, using: &random)]
            try load.write(.members, chat, user) { Self.writeMember(chat, user, index, to: &$0) }
        }
        for (index, chat) in chats.enumerated() {
            try load.write(.members, chat) { Self.writeChat(chat, index, to: &$0) }
        }
        try load.finish()

        return try joining(load, log) { runner, wait in
            let metrics = runner.metrics
            while metrics.restoring.value == 0, !runner.isReady { wait.aMoment() }
            let (_, seconds, cpuSeconds) = measure { while !runner.isReady { wait.aMoment() } }
            return [
                Row(
                    name: "changes restored, through the log", count: Int(metrics.restoredChanges.value),
                    seconds: seconds, cpuSeconds: cpuSeconds,
                    note: "\(memberships) memberships, \(CurrentProcess.residentBytes >> 20) MiB resident")
            ]
        }
    }

    /// Messages that wait in the log are joined as fast as it goes. The table is restored from the log first.
    public func throughLog(_ kafka: KafkaConfiguration, members: Int, messages: Int, log: Log) throws -> [Row] {
        let load = try LoggedLoad(kafka)
        defer { load.delete() }
        let chats = (0..<max(64, 100_000 / members)).map { _ in ChatID.random() }
        var senders: [UserID] = []
        for chat in chats {
            let users = (0..<members).map { _ in UserID.random() }
            senders.append(users[0])
            for user in users { try load.write(.members, chat, user) { Self.writeMember(chat, user, 1, to: &$0) } }
            try load.write(.members, chat) { Self.writeChat(chat, 1, to: &$0) }
        }
        for index in 0..<messages {
            try load.writeText(to: chats[index % chats.count], from: senders[index % chats.count])
        }
        try load.finish()

        return try joining(load, log) { runner, wait in
            // From the first joined message to the last: the group's beginnings are not what is measured.
            let metrics = runner.metrics
            while metrics.accepted.value == 0 { wait.aMoment() }
            let first = Int(metrics.accepted.value)
            let firstRecipients = Int(metrics.recipients.value)
            let (_, seconds, cpuSeconds) = measure {
                while Int(metrics.accepted.value) < messages { wait.aMoment() }
            }
            return [
                Row(
                    name: "messages in, chats of \(members), through the log", count: messages - first,
                    seconds: seconds, cpuSeconds: cpuSeconds),
                Row(
                    name: "recipients out, chats of \(members), through the log",
                    count: Int(metrics.recipients.value) - firstRecipients, seconds: seconds, cpuSeconds: cpuSeconds),
            ]
        }
    }

    /// Runs a join over the load on a thread of its own until the body has measured it.
    func joining(_ load: LoggedLoad, _ log: Log, _ body: (JoinRunner, Waiter) throws -> [Row]) throws -> [Row] {
        let configuration = JoinConfiguration(kafka: load.kafka, names: load.names)
        let runner = JoinRunner(configuration, log: log, metrics: Metrics(), clock: clock)
        let failure = Handover<String?>()
        let thread = Thread.start(name: "join") {
            do {
                try runner.run()
                failure.put(nil)
            } catch {
                failure.put("\(error)")
            }
        }
        let rows = try body(runner, Waiter())
        runner.stop()
        thread.join()
        if let failure = failure.take() { throw JoinError(.output, failure) }
        return rows
    }
}

/// What waits in a log for the join, in topics that are deleted afterwards.
final class LoggedLoad {
    let kafka: KafkaConfiguration
    let names = Names(prefix: "bench-\(UInt32.random(in: 0 ... .max)).")
    private let admin: Admin
    private let producer: Producer
    private let topics: [Topic: ProducerTopic]
    let chatPartitions: Int32
    let deliveryPartitions: Int32
    private var failed = 0

    init(_ kafka: KafkaConfiguration, lingerMs: Double = 5) throws {
        self.kafka = kafka
        admin = try Admin(kafka)
        let plan = TopicPlan.standard
        _ = try plan.create(admin, names: names)
        chatPartitions = Int32(plan.count(of: .chat))
        deliveryPartitions = Int32(plan.count(of: .user))
        var options = ProducerOptions()
        options.lingerMs = lingerMs
        // What is made faster than the log takes it waits for the log, and not in memory that is measured.
        options.queueBytesMax = 8 << 20
        producer = try Producer(kafka, options)
        topics = [.members: try producer.topic(names[.members]), .incoming: try producer.topic(names[.incoming])]
    }

    /// A record of the chat's partition: about one of its members, or about the chat.
    func write(_ topic: Topic, _ chat: ChatID, _ user: UserID? = nil, _ body: (inout JSONWriter) -> Void) throws {
        var key = JSONWriter()
        JoinBenchmark.writeKey(chat, user, to: &key)
        var value = JSONWriter()
        body(&value)
        guard let topic = topics[topic] else { preconditionFailure("the join does not read \(topic)") }
        while try producer.produce(
            topic, partition: chat.partition(count: chatPartitions), key: key.bytes.span, value: value.bytes.span,
            tag: 1) == .queueFull
        {
            producer.poll(timeoutMs: 100) { count($0) }
        }
    }

    private static let text = [UInt8](("\"" + String(repeating: "x", count: 200) + "\"").utf8)

    /// A message of 200 bytes.
    func writeText(to chat: ChatID, from user: UserID) throws {
        var message = IncomingMessage(
            id: .random(), chat: chat, from: user, device: .random(), kind: .text, metaVersion: 1)
        var reader = JSONReader(Self.text.span)
        message.text = try reader.readString()
        try write(.incoming, chat) { message.write(to: &$0, source: Self.text.span) }
    }

    func poll() { producer.poll(timeoutMs: 0) { count($0) } }

    func flush() throws {
        _ = producer.flush(deadlineMs: 120_000) { count($0) }
        guard failed == 0 else { throw JoinError(.output, "\(failed) records of the load were not written") }
    }

    func finish() throws {
        try flush()
        producer.close(deadlineMs: 2000) { _ in }
    }

    private func count(_ report: DeliveryReport) { failed += report.succeeded ? 0 : 1 }

    func delete() {
        _ = try? admin.deleteTopics(Topic.allCases.map { names[$0] })
        _ = admin.close(deadlineMs: 2000)
    }
}

/// Lets this thread rest for a tick of a loop of its own.
struct Waiter {
    private let loop = try? EventLoop()

    func aMoment() { loop?.runOnce(timeoutMs: 5) }
    func aTick() { loop?.runOnce(timeoutMs: 1) }
}
