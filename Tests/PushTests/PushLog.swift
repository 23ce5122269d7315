import Foundation
import KafkaClient
import Push
import Runtime
import Synchronization
import System
import TestSupport
import Testing
import Wire

/// A log with Fanout's topics under a prefix of the test's own, and records put into it.
final class PushLog {
    static let chat = ChatID(UUID(high: 5, low: 5))
    static let sender = UserID(UUID(high: 9, low: 9))

    let kafka: TestKafka
    let prefix = TestKafka.unique("push") + "."
    let names: Names
    private let producer: Producer
    /// Asks for the group's place, without being of the group.
    private let groupReader: Consumer

    init() throws {
        kafka = try TestKafka.shared()
        names = Names(prefix: prefix)
        let (status, text) = try FanoutProcess.run(
            [
                "topics", "create", "--kafka", kafka.address, "--topic-prefix", prefix, "--partitions", "2",
                "--replication", "1",
            ])
        try #require(status == 0, "\(text)")
        let configuration = KafkaConfiguration(bootstrapServers: kafka.address)
        producer = try Producer(configuration)
        groupReader = try Consumer(configuration, ConsumerOptions(groupID: names.group("push")))
    }

    var nowMs: Int64 { SystemClock().wallMs }

    func write(_ topic: Topic, partition: Int32, key: String = "-", _ values: String...) throws {
        try write(topic, partition: partition, key: key, values)
    }

    func write(_ topic: Topic, partition: Int32, key: String = "-", _ values: [String]) throws {
        let handle = try producer.topic(names[topic])
        for value in values {
            let (key, value) = (Array(key.utf8), Array(value.utf8))
            while try producer.produce(handle, partition: partition, key: key.span, value: value.span, tag: 0)
                == .queueFull
            {
                _ = producer.poll(timeoutMs: 10) { _ in }
            }
        }
        var failure: KafkaError?
        _ = producer.flush(deadlineMs: 20_000) { failure = $0.error ?? failure }
        if let failure { throw failure }
    }

    /// A record of `chat.push` as Delivery writes it.
    func record(
        _ user: UserID, seq: Int, chat: ChatID = PushLog.chat, text: String = "hello", at: Int64? = nil
    ) -> String {
        #"{"user":"\#(user)","chat":"\#(chat)","count":1,"at":\#(at ?? nowMs),"last":{"type":"message","chat":"\#(chat)","seq":\#(seq),"from":"\#(Self.sender)","text":"\#(text)"}}"#
    }

    func push(
        _ user: UserID, seq: Int, chat: ChatID = PushLog.chat, text: String = "hello", at: Int64? = nil,
        partition: Int32 = 0
    ) throws {
        try write(.push, partition: partition, record(user, seq: seq, chat: chat, text: text, at: at))
    }

    func presence(_ user: UserID, _ status: PresenceRecord.Status, lastSeen: Int64) throws {
        try write(
            .presence, partition: 0, key: "\(user)",
            #"{"user":"\#(user)","status":"\#(status.rawValue)","last_seen":\#(lastSeen)}"#)
    }

    func signal(_ kind: Wire.Signal.Kind, _ user: UserID, seq: Int) throws {
        var json = JSONWriter()
        Wire.Signal(chat: Self.chat, from: user, device: .random(), kind: kind, seq: Int64(seq), ts: nowMs).write(
            to: &json)
        try write(.signals, partition: 1, String(decoding: json.bytes, as: UTF8.self))
    }

    /// The real program.
    func start(_ url: String, _ more: [String] = []) throws -> FanoutProcess {
        try FanoutProcess(
            [
                "push", "--kafka", kafka.address, "--topic-prefix", prefix, "--webhook", url, "--webhook-secret",
                "s3cret", "--window", "200ms",
                "--kafka-property", "session.timeout.ms=6000",
            ]
                + more)
    }

    /// The stage in this process, which can be told what the program has no options for.
    func run(_ change: (inout PushConfiguration) -> Void) throws -> RunningStage {
        var configuration = PushConfiguration(kafka: KafkaConfiguration(bootstrapServers: kafka.address))
        try configuration.kafka.set("session.timeout.ms", to: "6000")
        configuration.names = names
        configuration.coalescing.windowMs = 100
        change(&configuration)
        return RunningStage(configuration)
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

    /// What the stage said of itself with its last commit.
    func note(partition: Int32) throws -> PushNote? {
        let committed = try groupReader.committed([TopicPartition(names[.push], partition)])[0]
        return committed.flatMap { try? PushNote(decoding: Array($0.metadata.utf8).span) }
    }

    func committed(partition: Int32) throws -> Int64? {
        try groupReader.committed([TopicPartition(names[.push], partition)], timeoutMs: 20_000).first.flatMap {
            $0?.offset
        }
    }
}

/// The stage on a thread of this process, until this object goes.
final class RunningStage: Sendable {
    let metrics = Metrics()
    private let stage: PushStage
    private let thread: System.Thread
    private let failure: Failure

    final class Failure: Sendable {
        let text = Mutex("")
    }

    init(_ configuration: PushConfiguration) {
        let stage = PushStage(configuration, log: .none, metrics: metrics, clock: SystemClock())
        self.stage = stage
        let failure = Failure()
        self.failure = failure
        thread = System.Thread.start(name: "push") {
            do { try stage.run() } catch { failure.text.withLock { $0 = "\(error)" } }
        }
    }

    deinit { stop() }

    /// Returns when it has ended, as often as it is called.
    func stop() {
        stage.stop()
        thread.join()
    }

    /// What ended it, if anything did.
    var failureText: String { failure.text.withLock { $0 } }

    /// A number of `/metrics`, found by its name and labels as they are written there.
    func metric(_ name: String) -> Double? {
        String(decoding: metrics.render(), as: UTF8.self).split(separator: "\n").first { $0.hasPrefix(name + " ") }
            .flatMap { Double($0.split(separator: " ").last ?? "") }
    }
}

/// A certificate that nobody has signed, for 127.0.0.1.
struct SelfSigned {
    let directory: String
    var certificate: String { directory + "/certificate.pem" }
    var key: String { directory + "/key.pem" }

    init() throws {
        directory = try Directory.createTemporary()
        let made = try ChildProcess.run(
            "openssl",
            [
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out",
                certificate,
            ])
        try #require(made.exit.isSuccess, "\(made.error)")
    }

    func remove() { try? Directory.removeAll(directory) }
}
