public import KafkaClient
public import Runtime
import System
import Wire

/// How many people one process tells a second: from a log that is full already to a webhook on this machine that takes
/// everything at once. Several messages each are gathered first; what is counted are notices. And what the process keeps
/// in memory while the webhook refuses everything and the log goes on.
public struct PushBenchmark {
    public struct Figures: Sendable {
        public let batch: Int
        public let notices: Int
        public let seconds: Double
        /// CPU time of the stage from its start, reading and gathering included, and of the webhook.
        public let cpuSeconds: Double
        public let webhookCPUSeconds: Double

        public var perSecond: Double { Double(notices) / seconds }
        public var perCPUSecond: Double { Double(notices) / max(cpuSeconds, 1e-9) }
    }

    /// While the webhook is away.
    public struct Backlog: Sendable {
        /// Records in the log, and those of them that the process has taken before it stopped to read.
        public let records: Int
        public let held: Int
        public let people: Int
        /// Resident memory before the stage began and at the end.
        public let residentBefore: Int
        public let residentAfter: Int
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
        try withTopics { names in
            try batches.map { batch in
                try fill(names[.push], people: people)
                return try measure(batch, names)
            }
        }
    }

    /// Takes a log of so many records while the webhook answers 503.
    public func runBacklog(records: Int, awaySeconds: UInt64 = 10) throws -> Backlog {
        try withTopics { names in
            try fill(names[.push], people: records / Self.messagesEach)
            return try measureBacklog(records / Self.messagesEach * Self.messagesEach, awaySeconds, names)
        }
    }

    private func withTopics<Result>(_ body: (Names) throws -> Result) throws -> Result {
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
        return try body(names)
    }

    private func fill(_ topic: String, people: Int) throws {
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
        var configuration = configuration(names, sink)
        configuration.batchMax = batch
        configuration.memory.people = 2 * people
        // All are read and gathered before the first is told.
        configuration.coalescing.windowMs = 3000
        let cpuNs = CurrentProcess.cpuNs
        return try running(configuration) { stage in
            let told = stage.metrics.told
            guard try wait(seconds: 120, until: { told.value >= people }) else {
                throw Failure(description: "told \(told.value) of \(people)")
            }
            let webhookNs = sink.cpuNs
            return Figures(
                batch: batch, notices: people, seconds: sink.seconds,
                cpuSeconds: Double(CurrentProcess.cpuNs - cpuNs - webhookNs) / 1e9,
                webhookCPUSeconds: Double(webhookNs) / 1e9)
        }
    }

    private func measureBacklog(_ records: Int, _ awaySeconds: UInt64, _ names: Names) throws -> Backlog {
        let sink = try Sink(status: 503)
        defer { sink.stop() }
        let before = CurrentProcess.residentBytes
        return try running(configuration(names, sink)) { stage in
            let metrics = stage.metrics
            // Until it stops to read, or has everything, and then for long enough to open the breaker and to probe.
            guard try wait(seconds: 120, until: { metrics.paused.value == 1 || metrics.unsettled.value >= records })
            else { throw Failure(description: "read \(metrics.records.value) of \(records)") }
            _ = try wait(seconds: awaySeconds, until: { false })
            return Backlog(
                records: records, held: Int(metrics.unsettled.value), people: Int(metrics.waiting.value),
                residentBefore: Int(before), residentAfter: Int(CurrentProcess.residentBytes))
        }
    }

    private func configuration(_ names: Names, _ sink: Sink) -> PushConfiguration {
        var configuration = PushConfiguration(kafka: kafka)
        configuration.names = names
        configuration.webhook = "http://127.0.0.1:\(sink.port)/"
        configuration.secret = "a secret of the benchmark"
        return configuration
    }

    private func running<Result>(
        _ configuration: PushConfiguration, _ body: (PushStage) throws -> Result
    ) throws -> Result {
        let stage = PushStage(configuration, log: log, metrics: Metrics(), clock: clock)
        let log = log
        let thread = Thread.start(name: "push") {
            do { try stage.run() } catch { log.error("stopped", ["error": "\(error)"]) }
        }
        defer {
            stage.stop()
            thread.join()
        }
        return try body(stage)
    }

    private func wait(seconds: UInt64, until isDone: () -> Bool) throws -> Bool {
        let deadlineNs = clock.monotonicNs + seconds * 1_000_000_000
        let pause = try EventLoop()
        defer { pause.close() }
        while !isDone() {
            guard clock.monotonicNs < deadlineNs else { return false }
            pause.runOnce(timeoutMs: 5)
        }
        return true
    }
}
