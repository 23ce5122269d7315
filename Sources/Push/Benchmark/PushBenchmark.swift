public import KafkaClient
public import Runtime
import System
import Wire

/// How many people one process tells a second: from a log that is full already to a webhook on this machine that takes
/// everything at once. Several messages each are gathered first; what is counted are notices.
public struct PushBenchmark {
    public struct Figures: Sendable {
        public let batch: Int
        public let notices: Int
        public let seconds: Double
        /// CPU time of this process meanwhile, the webhook's thread included.
        public let cpuSeconds: Double

        public var perSecond: Double { Double(notices) / seconds }
        public var perCPUSecond: Double { Double(notices) / max(cpuSeconds, 1e-9) }
    }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    private static let messagesEach = 3
    private static let partitions: Int32 = 4

    private let kafka: KafkaConfiguration
    private let people: Int
    private let log: Log
    private let clock: any Clock

    public init(_ kafka: KafkaConfiguration, people: Int, log: Log, clock: any Clock) {
        self.kafka = kafka
        self.people = people
        self.log = log
        self.clock = clock
    }

    /// One figure for each number of notices a request.
    public func run(batches: [Int]) throws -> [Figures] {
        let names = Names(prefix: "bench.push." + String(UInt64.random(in: 0 ... .max), radix: 36) + ".")
        let admin = try Admin(kafka)
        let topics = [Topic.push, .pushDead, .rejected, .presence, .signals].map { names[$0] }
        defer {
            _ = try? admin.deleteTopics(topics)
            admin.close(deadlineMs: 2000)
        }
        for outcome in try admin.createTopics(topics.map { NewTopic($0, partitions: Int(Self.partitions)) }) {
            if let error = outcome.error { throw error }
        }
        return try batches.map { batch in
            try fill(names[.push])
            return try measure(batch, names)
        }
    }

    private func fill(_ topic: String) throws {
        let producer = try Producer(kafka)
        defer { producer.close(deadlineMs: 1000) { _ in } }
        let handle = try producer.topic(topic)
        let chat = ChatID.random()
        let text = String(repeating: "x", count: 200)
        var failure: KafkaError?
        var json = JSONWriter()
        var event = JSONWriter()
        let users = (0..<people).map { _ in UserID.random() }
        for seq in 0..<Self.messagesEach {
            event.removeAll()
            event.object {
                $0.field("type", "message")
                $0.field("chat", chat)
                $0.field("seq", seq)
                $0.field("from", UserID(UUID(high: 1, low: 1)))
                $0.field("text", text)
            }
            for user in users {
                json.removeAll()
                PushRecord.write(user: user, chat: chat, count: 1, at: clock.wallMs, last: event.bytes.span, to: &json)
                let partition = user.partition(count: Self.partitions)
                while try producer.produce(handle, partition: partition, key: nil, value: json.bytes.span, tag: 0)
                    == .queueFull
                {
                    producer.poll(timeoutMs: 10) { failure = $0.error ?? failure }
                }
            }
        }
        _ = producer.flush(deadlineMs: 60_000) { failure = $0.error ?? failure }
        if let failure { throw failure }
    }

    private func measure(_ batch: Int, _ names: Names) throws -> Figures {
        let sink = try Sink()
        defer { sink.stop() }
        var configuration = PushConfiguration(kafka: kafka)
        configuration.names = names
        configuration.webhook = "http://127.0.0.1:\(sink.port)/"
        configuration.secret = "a secret of the benchmark"
        configuration.batchMax = batch
        configuration.memory.people = 2 * people
        // All are read and gathered before the first is told.
        configuration.coalescing.windowMs = 3000
        let stage = PushStage(configuration, log: log, metrics: Metrics(), clock: clock)
        let log = log
        let thread = Thread.start(name: "push") {
            do { try stage.run() } catch { log.error("stopped", ["error": "\(error)"]) }
        }
        defer {
            stage.stop()
            thread.join()
        }
        let told = stage.metrics.told
        let deadlineNs = clock.monotonicNs + 120_000_000_000
        let pause = try EventLoop()
        defer { pause.close() }
        var cpuNs: UInt64 = 0
        while told.value < people {
            if cpuNs == 0, sink.requests > 0 { cpuNs = CurrentProcess.cpuNs }
            guard clock.monotonicNs < deadlineNs else { throw Failure(description: "told \(told.value) of \(people)") }
            pause.runOnce(timeoutMs: 2)
        }
        return Figures(
            batch: batch, notices: people, seconds: sink.seconds,
            cpuSeconds: Double(CurrentProcess.cpuNs - cpuNs) / 1e9)
    }
}
