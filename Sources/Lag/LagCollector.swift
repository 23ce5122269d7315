public import KafkaClient
import PostgresClient
public import Runtime
public import Wire

/// What to look at.
public struct LagQuery: Sendable {
    public var kafka: KafkaConfiguration
    public var postgres: String?
    public var names = Names()
    /// Groups beside the stages' own, by a regular expression, or all.
    public var otherGroups: (@Sendable (String) -> Bool)?
    public var timeoutMs = 5000

    public init(kafka: KafkaConfiguration) { self.kafka = kafka }

    /// The stages that read the log, and what each reads.
    public static let stages: [(stage: String, topics: [Topic])] = [
        ("join", [.incoming, .signals]), ("delivery", [.deliveries]), ("history", [.messages, .signals]),
        ("push", [.push]),
    ]
}

/// Looks at the cluster and the database, within a deadline: what is not known by then is named as missing.
public final class LagCollector {
    private let query: LagQuery
    private let clock: any Clock
    private let admin: Admin
    private let reader: Consumer
    /// For the announcements of chat servers: hundreds of records, which the other one would fetch a few at a time with a
    /// pause of librdkafka's between.
    private let tailReader: Consumer

    public init(_ query: LagQuery, clock: any Clock) throws(KafkaError) {
        self.query = query
        self.clock = clock
        admin = try Admin(query.kafka)
        var options = ConsumerOptions()
        // One record a partition is wanted: a fetch returns at least one batch however small its limit.
        options.partitionFetchBytesMax = 1024
        options.queuedMessagesMin = 1
        options.fetchWaitMs = 50
        reader = try Consumer(query.kafka, options)
        var tailOptions = ConsumerOptions()
        tailOptions.fetchWaitMs = 50
        tailReader = try Consumer(query.kafka, tailOptions)
    }

    /// Ends the clients without waiting for a cluster that does not answer.
    public func close() {
        reader.close(deadlineMs: 200)
        tailReader.close(deadlineMs: 200)
        admin.close(deadlineMs: 200)
    }

    /// Throws only when the cluster does not answer at all.
    public func sample() throws(KafkaError) -> LagSample {
        let deadlineNs = clock.monotonicNs + UInt64(query.timeoutMs) * 1_000_000
        func leftMs() -> Int { max(1, Int((Int64(deadlineNs) - Int64(clock.monotonicNs)) / 1_000_000)) }
        let metadata = try admin.metadata(timeoutMs: query.timeoutMs)
        let counts = Dictionary(metadata.topics.filter { $0.error == nil }.map { ($0.name, $0.partitions.count) }) {
            $1
        }
        var sample = LagSample(takenMs: clock.wallMs)
        let groups = try wantedGroups(leftMs())
        collectMembers(groups, into: &sample, timeoutMs: leftMs() / 3)
        let commits = try collectCommits(groups, counts: counts, into: &sample, timeoutMs: leftMs() / 2)
        try collectPositions(commits, into: &sample, timeoutMs: leftMs() * 2 / 3)
        collectTimes(into: &sample, deadlineNs: deadlineNs - UInt64(min(leftMs() / 4, 300)) * 1_000_000)
        // After the ends and the times: "now" must not be before what it is compared with.
        sample.takenMs = clock.wallMs
        if counts[query.names[.instances]] != nil { collectInstances(into: &sample, deadlineNs: deadlineNs) }
        if let postgres = query.postgres { collectSlots(postgres, into: &sample) }
        return sample
    }

    // MARK: Groups

    private func wantedGroups(_ timeoutMs: Int) throws(KafkaError) -> [String] {
        let own = LagQuery.stages.map { query.names.group($0.stage) }
        guard let isWanted = query.otherGroups else { return own }
        return own + (try admin.groups(timeoutMs: timeoutMs)).map(\.id).filter { isWanted($0) && !own.contains($0) }
    }

    private func collectMembers(_ groups: [String], into sample: inout LagSample, timeoutMs: Int) {
        do throws(KafkaError) {
            for (id, description) in try admin.describeGroups(groups, timeoutMs: timeoutMs) {
                switch description {
                case .success(let group): sample.groups.append(LagSample.Group(id: id, members: group.members.count))
                case .failure(let error):
                    sample.groups.append(LagSample.Group(id: id, members: nil))
                    sample.missing.append("members of \(id): \(error.message)")
                }
            }
        } catch {
            sample.missing.append("members of the groups: \(error.message)")
        }
    }

    private typealias Commit = (group: String, partition: TopicPartition, offset: Int64?)

    /// What the groups have committed; for the stages, also the partitions on which they have not.
    private func collectCommits(
        _ groups: [String], counts: [String: Int], into sample: inout LagSample, timeoutMs: Int
    ) throws(KafkaError) -> [Commit] {
        var commits: [Commit] = []
        for (group, result) in try admin.groupOffsets(groups, timeoutMs: timeoutMs) {
            let offsets: [GroupOffset]
            switch result {
            case .success(let found): offsets = found
            case .failure(let error):
                sample.missing.append("commits of \(group): \(error.message)")
                continue
            }
            let known = Dictionary(offsets.map { ($0.partition, $0.offset) }) { first, _ in first }
            if let stage = LagQuery.stages.first(where: { query.names.group($0.stage) == group }) {
                for topic in stage.topics.map({ query.names[$0] }) {
                    guard let count = counts[topic] else {
                        sample.missing.append("topic \(topic) does not exist")
                        continue
                    }
                    for partition in 0..<Int32(count) {
                        let place = TopicPartition(topic, partition)
                        commits.append((group, place, known[place] ?? nil))
                    }
                }
            } else {
                // A commit on a topic that is gone says nothing about today.
                commits += offsets.filter { counts[$0.partition.topic] != nil }.sorted { $0.partition < $1.partition }
                    .map { (group, $0.partition, $0.offset) }
            }
        }
        return commits
    }

    private func collectPositions(_ commits: [Commit], into sample: inout LagSample, timeoutMs: Int) throws(KafkaError)
    {
        let partitions = Array(Set(commits.map(\.partition))).sorted()
        let found = try admin.watermarks(partitions, timeoutMs: timeoutMs)
        let watermarks = Dictionary(zip(partitions, found)) { first, _ in first }
        for commit in commits {
            switch watermarks[commit.partition] {
            case .success(let marks):
                sample.positions.append(
                    LagSample.Position(
                        group: commit.group, partition: commit.partition, committed: commit.offset, low: marks.low,
                        end: marks.high))
            case .failure(let error): sample.missing.append("end of \(commit.partition): \(error.message)")
            case nil: sample.missing.append("end of \(commit.partition)")
            }
        }
    }

    // MARK: Times

    /// Reads the first waiting record of each position that has one. A consumer has one place in a partition, so groups
    /// at different places of the same partition take turns.
    private func collectTimes(into sample: inout LagSample, deadlineNs: UInt64) {
        var times: [TopicPartition: [Int64: Int64]] = [:]
        var waiting: [TopicPartition: [Int64]] = [:]
        for position in sample.positions where position.messages > 0 {
            if !(waiting[position.partition] ?? []).contains(position.next) {
                waiting[position.partition, default: []].append(position.next)
            }
        }
        do throws(KafkaError) {
            while !waiting.isEmpty, clock.monotonicNs < deadlineNs {
                var turn: [TopicPartition: Int64] = [:]
                for (partition, offsets) in waiting { turn[partition] = offsets.last }
                try reader.assign(turn.map { PartitionStart($0.key, at: .offset($0.value)) })
                while !turn.isEmpty, clock.monotonicNs < deadlineNs {
                    let batch = reader.poll(maxMessages: 1000, timeoutMs: 20)
                    for index in 0..<batch.count {
                        let message = batch[index]
                        let place = TopicPartition(reader.name(of: message.topic), message.partition)
                        guard let wanted = turn[place], message.offset >= wanted else { continue }
                        times[place, default: [:]][wanted] = message.timestampMs
                        turn[place] = nil
                        waiting[place]?.removeLast()
                        if waiting[place]?.isEmpty == true { waiting[place] = nil }
                    }
                }
                if !turn.isEmpty { break }
            }
            try reader.unassign()
        } catch {
            sample.missing.append("times of waiting records: \(error.message)")
        }
        for index in sample.positions.indices where sample.positions[index].messages > 0 {
            let position = sample.positions[index]
            sample.positions[index].firstWaitingMs = times[position.partition]?[position.next]
        }
        let unread = waiting.values.reduce(0) { $0 + $1.count }
        if unread > 0 { sample.missing.append("the time of the first waiting record, on \(unread) partitions") }
    }

    // MARK: Instances and slots

    /// The newest announcement of each chat server.
    private func collectInstances(into sample: inout LagSample, deadlineNs: UInt64) {
        let place = TopicPartition(query.names[.instances], 0)
        var newest: [String: InstanceRecord] = [:]
        do throws(KafkaError) {
            let end = try admin.watermarks([place], timeoutMs: 1000)[0].get()
            guard end.high > end.low else { return }
            // Announced each second and compacted now and then: the last part holds every live one.
            try tailReader.assign([PartitionStart(place, at: .offset(max(end.low, end.high - 2000)))])
            var next = end.low
            while next < end.high, clock.monotonicNs < deadlineNs {
                let batch = tailReader.poll(maxMessages: 1000, timeoutMs: 20)
                for index in 0..<batch.count {
                    let message = batch[index]
                    next = message.offset + 1
                    guard let key = message.key else { continue }
                    if let value = message.value, let record = try? InstanceRecord(decoding: value) {
                        newest[record.instance] = record
                    } else {
                        newest[String(showing: key)] = nil
                    }
                }
                if case .endOfPartition = batch.event { break }
            }
            try tailReader.unassign()
        } catch {
            sample.missing.append("instances: \(error.message)")
        }
        sample.instances = newest.values.sorted { $0.instance < $1.instance }.map {
            LagSample.Instance(
                name: $0.instance, connections: $0.connections, isDraining: $0.isDraining,
                heartbeatAgeMs: max(0, clock.wallMs - $0.ts))
        }.filter { $0.heartbeatAgeMs < 60_000 }
    }

    private func collectSlots(_ url: String, into sample: inout LagSample) {
        do throws(PostgresError) {
            var connection = try PostgresConnection(url)
            let rows = try connection.query(
                """
                SELECT s.slot_name, s.active, coalesce(s.confirmed_flush_lsn::text, ''),
                       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint, s.safe_wal_size,
                       coalesce(s.wal_status, 'lost'), extract(epoch FROM r.flush_lag)::float8
                FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
                WHERE s.slot_type = 'logical' AND s.database = current_database() ORDER BY 1
                """)
            for row in 0..<rows.rowCount {
                sample.slots.append(
                    LagSample.Slot(
                        name: rows.text(row, 0) ?? "", isActive: rows.bool(row, 1) ?? false,
                        confirmed: rows.text(row, 2) ?? "", retainedBytes: rows.int(row, 3) ?? 0,
                        safeBytes: rows.int(row, 4), walStatus: rows.text(row, 5) ?? "",
                        // Nothing is under way: nothing is late.
                        behindSeconds: rows.bool(row, 1) == true ? rows.double(row, 6) ?? 0 : nil))
            }
            if rows.isEmpty {
                sample.missing.append("the database has no logical replication slot: fanout cdc makes it")
            }
        } catch {
            sample.missing.append("Postgres: \(error.message)")
        }
    }
}
