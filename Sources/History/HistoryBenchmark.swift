// How long reads take and how fast the sink stores, on an empty database of one's own and the given log.
//
// Reads are measured first, over a month of messages that are put straight into the partitions, and each as the chat
// server does it: the same statements in the same order. The sink then stores into those same tables.
public import KafkaClient
internal import PostgresClient
public import Runtime
internal import Store
internal import System
internal import Wire

public struct HistoryBenchmark {
    /// In the tables when reads are measured.
    public var messageCount = 10_000_000
    public var chatCount = 100_000
    /// Through the log and the sink.
    public var storedCount = 1_000_000
    /// How often each read is timed.
    public var readCount = 1_000

    private let kafka: KafkaConfiguration
    private let postgres: String
    private let log: Log
    private let clock: any Clock

    public init(kafka: KafkaConfiguration, postgres: String, log: Log, clock: any Clock) {
        self.kafka = kafka
        self.postgres = postgres
        self.log = log
        self.clock = clock
    }

    public func run() throws -> HistoryBenchmarkReport {
        let names = Names(prefix: "bench" + String(UInt64.random(in: 0 ... .max), radix: 36) + ".")
        let scene = BenchmarkScene(
            messageCount: messageCount, chatCount: chatCount, nowMs: clock.wallMs, topic: names[.messages])
        var report = HistoryBenchmarkReport(messages: messageCount, chats: chatCount)
        var store = try StoreConnection(postgres)
        let begin = clock.monotonicNs
        try scene.fill(&store, log)
        report.fillSeconds = Double(clock.monotonicNs - begin) / 1e9
        report.databaseBytes = Int(
            try store.postgres.query("SELECT pg_database_size(current_database())").int(0, 0) ?? 0)
        log.info("reading")
        try read(scene, &store, &report)
        try storeMessages(scene, names, &report)
        return report
    }

    // MARK: Reads

    private func read(
        _ scene: BenchmarkScene, _ store: inout StoreConnection, _ report: inout HistoryBenchmarkReport
    ) throws {
        var random = SystemRandomNumberGenerator()
        report.reads.append(
            try measure("page of 50, newest", targetMs: 2, &store) { store in
                try page(scene, before: nil, &store, &random)
            })
        report.reads.append(
            try measure("page of 50, before", targetMs: 2, &store) { store in
                try page(scene, before: scene.anySeq(&random), &store, &random)
            })
        report.reads.append(
            try measure("page of 50, after", targetMs: 2, &store) { store in
                let place = scene.anyPlace(&random)
                guard let standing = try store.first(Membership.standing(of: place.user, in: place.chat)) else {
                    return
                }
                _ = try store.rows(
                    MessagePages.after(
                        scene.anySeq(&random), in: place.chat, partition: place.chat.partition(count: scene.partitions),
                        readableFromMs: standing.readableFromMs, limit: 51))
            })
        report.reads.append(
            try measure("conversation list of 50", targetMs: 5, &store) { store in
                _ = try store.rows(Conversations.of(scene.anyPlace(&random).user, limit: 50))
            })
        report.reads.append(
            try measure("one conversation", targetMs: nil, &store) { store in
                let place = scene.anyPlace(&random)
                _ = try store.first(Membership.standing(of: place.user, in: place.chat))
                _ = try store.rows(Conversations.one(place.chat, of: place.user))
                _ = try store.rows(ChatMembers.of(place.chat))
            })
        report.reads.append(
            try measure("large chats of a session", targetMs: nil, &store) { store in
                _ = try store.rows(Membership.largeChats(of: [scene.anyPlace(&random).user], membersMin: 257))
            })
        var synced = 0
        var syncs = 0
        report.reads.append(
            try measure("sync of 1,000 missed", targetMs: 50, &store) { store in
                synced += try sync(scene, scene.anyPlace(&random).user, &store)
                syncs += 1
            })
        report.messagesPerSync = Double(synced) / Double(syncs)
    }

    private func page(
        _ scene: BenchmarkScene, before seq: Int64?, _ store: inout StoreConnection,
        _ random: inout SystemRandomNumberGenerator
    ) throws {
        let place = scene.anyPlace(&random)
        guard let standing = try store.first(Membership.standing(of: place.user, in: place.chat)) else { return }
        _ = try store.rows(
            MessagePages.before(
                seq, in: place.chat, partition: place.chat.partition(count: scene.partitions),
                readableFromMs: standing.readableFromMs, limit: 51))
    }

    /// For a device that was away for as long as it takes for 1,000 messages to be said in its chats.
    private func sync(_ scene: BenchmarkScene, _ user: UserID, _ store: inout StoreConnection) throws -> Int {
        guard let coverage = try store.first(Sync.coverage(topic: scene.topic)) else { return 0 }
        let bounds = try store.rows(Sync.bounds(afterMs: scene.cursorMs(missed: 1_000), topic: scene.topic))
        var plan = SyncPlan(
            try store.rows(Sync.chats(of: user, since: bounds)), bounds: bounds,
            partitionCount: Int32(coverage.partitionCount))
        var count = 0
        while !plan.isFinished {
            let rows = try store.rows(plan.nextPage())
            count += rows.count
            plan.received(rows)
        }
        return count
    }

    private func measure(
        _ name: String, targetMs: Double?, _ store: inout StoreConnection,
        _ body: (inout StoreConnection) throws -> Void
    ) throws -> HistoryBenchmarkReport.Read {
        // Statements are planned, and what every read touches is in memory.
        for _ in 0..<readCount / 10 { try body(&store) }
        var times: [Double] = []
        for _ in 0..<readCount {
            let start = clock.monotonicNs
            try body(&store)
            times.append(Double(clock.monotonicNs - start) / 1e6)
        }
        times.sort()
        return HistoryBenchmarkReport.Read(
            name: name, p50Ms: times[times.count / 2], p99Ms: times[times.count * 99 / 100], targetMs: targetMs)
    }

    // MARK: Storing

    private func storeMessages(
        _ scene: BenchmarkScene, _ names: Names, _ report: inout HistoryBenchmarkReport
    ) throws {
        let admin = try Admin(kafka)
        let topics = [names[.messages], names[.signals], names[.rejected]]
        for outcome in try admin.createTopics(topics.map { NewTopic($0, partitions: Int(scene.partitions)) }) {
            if let error = outcome.error { throw error }
        }
        log.info("writing messages to the log", ["messages": .int(Int64(storedCount))])
        try scene.write(storedCount, to: names[.messages], kafka)
        var configuration = HistoryConfiguration(kafka: kafka, postgres: postgres, names: names)
        configuration.stopsAtEnd = true
        let metered = BatchClock(clock)
        let cpuNs = CurrentProcess.cpuNs
        try History(configuration, log: log, metrics: Metrics(), clock: metered).run()
        report.sinkCPUMicroseconds = Double(CurrentProcess.cpuNs - cpuNs) / 1000 / Double(storedCount)
        _ = try admin.deleteTopics(topics)
        report.storedPerSecond = Double(storedCount) / metered.seconds
    }
}
