public import KafkaClient
public import Runtime
public import Wire

/// How long `fanout lag` takes on a large cluster: makes topics, groups and commits, then looks with the real collector.
///
/// Every partition has records, and every group has committed on every one: at the end, or on one partition in ten a
/// record before it, another tenth for each group. So all partitions have a first waiting record to be read.
public struct LagBenchmark {
    public struct Report: Sendable {
        public var partitions = 0
        public var groups = 0
        /// Pairs of a group and a partition.
        public var positions = 0
        public var waiting = 0
        public var looksMs: [Double] = []
        /// What each part of the last look took.
        public var partsMs: [(name: String, ms: Double)] = []
        public var missing: [String] = []

        public func write(to json: inout JSONWriter) {
            json.object {
                $0.field("partitions", partitions)
                $0.field("groups", groups)
                $0.field("positions", positions)
                $0.field("waiting", waiting)
                $0.name("look_ms")
                $0.array { json in for ms in looksMs { json.value(ms) } }
                $0.name("part_ms")
                $0.object { json in for (name, ms) in partsMs { json.field(name, ms) } }
                $0.name("missing")
                $0.array { json in for line in missing { json.value(line) } }
            }
        }
    }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    private static let topicCount = 10

    private let kafka: KafkaConfiguration
    private let clock: any Clock
    private let log: Log
    /// Keeps what is made apart from everything else on the cluster.
    private let prefix: String
    public var partitionCount = 10_000
    public var groupCount = 20
    public var lookCount = 3

    public init(_ kafka: KafkaConfiguration, prefix: String, clock: any Clock, log: Log) {
        self.kafka = kafka
        self.prefix = prefix
        self.clock = clock
        self.log = log
    }

    private var topics: [String] { (0..<Self.topicCount).map { "\(prefix)topic-\($0)" } }
    private var groups: [String] { (0..<groupCount).map { "\(prefix)group-\($0)" } }
    private var partitions: [TopicPartition] {
        let each = max(1, partitionCount / Self.topicCount)
        return topics.flatMap { topic in (0..<Int32(each)).map { TopicPartition(topic, $0) } }
    }

    public func run() throws -> Report {
        let admin = try Admin(kafka)
        defer { admin.close(deadlineMs: 2000) }
        try prepare(admin)
        defer {
            _ = try? admin.deleteGroups(groups, timeoutMs: 60_000)
            _ = try? admin.deleteTopics(topics, timeoutMs: 60_000)
        }
        var query = LagQuery(kafka: kafka)
        query.names = Names(prefix: prefix)
        let prefix = prefix
        query.otherGroups = { $0.hasPrefix(prefix) }
        let collector = try LagCollector(query, clock: clock)
        defer { collector.close() }
        var report = Report()
        for look in 1...lookCount {
            let startedNs = clock.monotonicNs
            var parts: [(name: String, startNs: UInt64)] = []
            let sample = collector.sample(withinMs: 60_000) { _, next in parts.append((next, clock.monotonicNs)) }
            let status = LagStatus(before: nil, now: sample)
            let endedNs = clock.monotonicNs
            report.looksMs.append(Double(endedNs - startedNs) / 1e6)
            report.partsMs = zip(parts, parts.dropFirst().map(\.startNs) + [endedNs]).map {
                ($0.name, Double($1 - $0.startNs) / 1e6)
            }
            report.partitions = Set(status.rows.map { TopicPartition($0.topic, $0.partition ?? 0) }).count
            report.groups = Set(status.rows.map(\.group)).count
            report.positions = status.rows.count
            report.waiting = status.rows.count { $0.messages > 0 && $0.seconds != nil }
            // The stages' own topics are not on this cluster.
            report.missing =
                sample.missing.filter { !$0.contains("does not exist") } + (sample.clusterError.map { [$0] } ?? [])
            log.info("looked", ["look": .init(look), "ms": .init(Int(report.looksMs.last ?? 0))])
        }
        return report
    }

    private func prepare(_ admin: Admin) throws {
        let partitions = partitions
        let each = partitions.count / Self.topicCount
        for outcome in try admin.createTopics(
            topics.map { NewTopic($0, partitions: each) }, timeoutMs: 120_000)
        {
            if let error = outcome.error { throw error }
        }
        log.info("topics made", ["partitions": .init(partitions.count)])
        let producer = try Producer(kafka)
        defer { _ = producer.close(deadlineMs: 2000) { _ in } }
        let value = Array("{}".utf8)
        var written = 0
        for partition in partitions {
            let topic = try producer.topic(partition.topic)
            for _ in 0..<2 {
                while try producer.produce(
                    topic, partition: partition.partition, key: nil, value: value.span, tag: 0) == .queueFull
                {
                    _ = producer.poll(timeoutMs: 100) { written += $0.succeeded ? 1 : 0 }
                }
            }
        }
        _ = producer.flush(deadlineMs: 600_000) { written += $0.succeeded ? 1 : 0 }
        guard written == 2 * partitions.count else {
            throw Failure(description: "only \(written) of \(2 * partitions.count) records were acknowledged")
        }
        log.info("records written", ["count": .init(2 * partitions.count)])
        for (number, group) in groups.enumerated() {
            let offsets = partitions.enumerated().map { index, partition in
                CommittedOffset(partition, offset: (index + number) % 10 == 0 ? 1 : 2)
            }
            try admin.setGroupOffsets(group, offsets, timeoutMs: 120_000)
        }
        log.info("commits made", ["count": .init(groups.count * partitions.count)])
    }
}
