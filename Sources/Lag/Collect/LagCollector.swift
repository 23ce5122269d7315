public import KafkaClient
public import Runtime
import Synchronization
import Wire

/// Looks at the cluster, within a time: what is not known by then is named as missing.
///
/// Blocks its thread, and a call of librdkafka's may outlive its timeout, so `LagObserver` runs it on a thread of its own.
public final class LagCollector {
    private let query: LagQuery
    private let clock: any Clock
    private let admin: Admin
    private let times: RecordTimes
    private let commitTimes: CommitTimes
    private let instances: TopicFollower
    private var newestInstances: [String: InstanceRecord] = [:]
    /// What librdkafka last complained about: why a cluster does not answer stands in no answer.
    private let complaint = LastComplaint()
    /// ACLs may keep us from the cluster's log of commits. Then we do without, and do not ask again.
    private var readsCommitTimes = true

    /// Records of `chat.instances` that the first look reads. Each chat server writes one a second, and compaction leaves
    /// each one's last: this many hold every live one.
    private static let instancesTail: Int64 = 2000
    /// Partitions asked for in one request; librdkafka matches the answers in quadratic time.
    private static let sliceCount = 1000

    public init(_ query: LagQuery, clock: any Clock) throws(KafkaError) {
        self.query = query
        self.clock = clock
        let complaint = complaint
        admin = try Admin(query.kafka, log: { line in complaint.note(line) })
        times = RecordTimes(query.kafka, clock: clock)
        commitTimes = try CommitTimes(query.kafka, clock: clock)
        instances = try TopicFollower(query.kafka, tail: Self.instancesTail, clock: clock)
    }

    /// Ends the clients without waiting for a cluster that does not answer.
    public func close() {
        times.close(deadlineMs: 200)
        commitTimes.close(deadlineMs: 200)
        instances.close(deadlineMs: 200)
        admin.close(deadlineMs: 200)
    }

    /// - Parameter progress: what is known so far, and what is done next: for whoever cannot wait for the rest.
    public func sample(
        withinMs: Int, _ progress: (_ soFar: LagSample, _ next: String) -> Void = { _, _ in }
    ) -> LagSample {
        let deadlineNs = clock.monotonicNs + UInt64(withinMs) * 1_000_000
        func leftMs() -> Int { max(1, Int((Int64(deadlineNs) - Int64(clock.monotonicNs)) / 1_000_000)) }
        var sample = LagSample(takenMs: clock.wallMs)
        progress(sample, "asking for its topics")
        let metadata: ClusterMetadata
        do throws(KafkaError) {
            metadata = try admin.metadata(timeoutMs: withinMs)
        } catch {
            sample.clusterError = complaint.explaining(error)
            return sample
        }
        let counts = Dictionary(metadata.topics.filter { $0.error == nil }.map { ($0.name, $0.partitions.count) }) {
            $1
        }
        progress(sample, "listing its groups")
        let groups = wantedGroups(into: &sample, timeoutMs: leftMs() / 3)
        progress(sample, "describing the groups")
        collectMembers(groups, into: &sample, timeoutMs: leftMs() / 3)
        progress(sample, "asking for the commits")
        let commits = collectCommits(groups, counts: counts, into: &sample, timeoutMs: leftMs() / 2)
        progress(sample, "asking for the ends of the partitions")
        collectPositions(commits, into: &sample, deadlineNs: deadlineNs - UInt64(leftMs() / 4) * 1_000_000)
        progress(sample, "asking which logs the topics are")
        compareLogs(commits, into: &sample, timeoutMs: leftMs() / 4)
        progress(sample, "reading the first waiting records")
        collectTimes(into: &sample, deadlineNs: deadlineNs - UInt64(min(leftMs() / 4, 300)) * 1_000_000)
        // After the ends and the times: "now" must not be before what it is compared with.
        sample.takenMs = clock.wallMs
        if let count = counts[CommitTimes.topic], readsCommitTimes {
            progress(sample, "reading when the commits were made")
            let lastNs = deadlineNs - UInt64(min(leftMs() / 4, 150)) * 1_000_000
            collectCommitTimes(groups, partitionCount: count, into: &sample, deadlineNs: lastNs, timeoutMs: leftMs())
        }
        if counts[query.names[.instances]] != nil {
            progress(sample, "reading the chat servers' announcements")
            collectInstances(into: &sample, deadlineNs: deadlineNs, timeoutMs: leftMs())
        }
        return sample
    }

    // MARK: Groups

    private func wantedGroups(into sample: inout LagSample, timeoutMs: Int) -> [String] {
        let own = LagQuery.stages.map { query.names.group($0.stage) }
        guard let isWanted = query.otherGroups else { return own }
        do throws(KafkaError) {
            let all = try admin.groups(timeoutMs: timeoutMs)
            return own + all.map(\.id).filter { isWanted($0) && !own.contains($0) }
        } catch {
            sample.missing.append("other groups: \(error.message)")
            return own
        }
    }

    private func collectMembers(_ groups: [String], into sample: inout LagSample, timeoutMs: Int) {
        do throws(KafkaError) {
            for (id, description) in try admin.describeGroups(groups, timeoutMs: timeoutMs) {
                switch description {
                case .success(let group): sample.groups.append(LagSample.Group(group))
                case .failure(let error):
                    sample.groups.append(LagSample.Group(id: id, members: nil))
                    sample.missing.append("members of \(id): \(error.message)")
                }
            }
        } catch {
            sample.missing.append("members of the groups: \(error.message)")
        }
    }

    private typealias Commit = (group: String, partition: TopicPartition, offset: Int64?, note: String)

    /// What the groups have committed; for the stages, also the partitions on which they have not.
    private func collectCommits(
        _ groups: [String], counts: [String: Int], into sample: inout LagSample, timeoutMs: Int
    ) -> [Commit] {
        let answers: [(group: String, Result<[GroupOffset], KafkaError>)]
        do throws(KafkaError) {
            answers = try admin.groupOffsets(groups, timeoutMs: timeoutMs)
        } catch {
            sample.missing.append("commits of the groups: \(error.message)")
            return []
        }
        var commits: [Commit] = []
        for (group, result) in answers {
            let offsets: [GroupOffset]
            switch result {
            case .success(let found): offsets = found
            case .failure(let error):
                sample.missing.append("commits of \(group): \(error.message)")
                continue
            }
            guard let topics = query.topics(of: group) else {
                // A commit on a topic that is gone says nothing about today.
                commits += offsets.filter { Int($0.partition.partition) < counts[$0.partition.topic] ?? 0 }
                    .map { (group, $0.partition, $0.offset, $0.metadata) }
                continue
            }
            let known = Dictionary(offsets.map { ($0.partition, $0) }) { first, _ in first }
            for topic in topics {
                guard let count = counts[topic] else {
                    sample.missing.append("topic \(topic), which \(group) reads, does not exist")
                    continue
                }
                for partition in 0..<Int32(count) {
                    let place = TopicPartition(topic, partition)
                    commits.append((group, place, known[place]?.offset, known[place]?.metadata ?? ""))
                }
            }
        }
        return commits
    }

    // MARK: Positions

    private func collectPositions(_ commits: [Commit], into sample: inout LagSample, deadlineNs: UInt64) {
        let partitions = Array(Set(commits.map(\.partition))).sorted()
        var ends: [TopicPartition: Watermarks] = [:]
        ends.reserveCapacity(partitions.count)
        var unknown: [String: (count: Int, why: String)] = [:]
        func missing(_ partition: TopicPartition, _ error: KafkaError) {
            unknown[partition.topic] = ((unknown[partition.topic]?.count ?? 0) + 1, error.message)
        }
        /// - Parameter isLast: whether a failure stands; else each topic is asked for by itself, since one that was
        ///   deleted a moment ago fails the whole request.
        func ask(_ slice: [TopicPartition], isLast: Bool) {
            let leftMs = (Int64(deadlineNs) - Int64(clock.monotonicNs)) / 1_000_000
            do throws(KafkaError) {
                let found = try admin.watermarks(slice, timeoutMs: max(1, Int(isLast ? leftMs : leftMs / 2)))
                for (partition, marks) in zip(slice, found) {
                    switch marks {
                    case .success(let marks): ends[partition] = marks
                    case .failure(let error): missing(partition, error)
                    }
                }
            } catch {
                let topics = Dictionary(grouping: slice, by: \.topic)
                if isLast || topics.count == 1 {
                    for partition in slice { missing(partition, error) }
                } else {
                    for topic in topics.keys.sorted() { ask(topics[topic] ?? [], isLast: true) }
                }
            }
        }
        for start in stride(from: 0, to: partitions.count, by: Self.sliceCount) {
            ask(Array(partitions[start..<min(start + Self.sliceCount, partitions.count)]), isLast: false)
        }
        for (topic, (count, why)) in unknown.sorted(by: { $0.key < $1.key }) {
            sample.missing.append("ends of \(count) partitions of \(topic): \(why)")
        }
        sample.positions.reserveCapacity(commits.count)
        for commit in commits {
            guard let marks = ends[commit.partition] else { continue }
            var position = LagSample.Position(
                group: commit.group, partition: commit.partition, committed: commit.offset, low: marks.low,
                end: marks.high)
            if commit.partition.topic == query.names[.push] {
                position.pushNote = try? PushNote(decoding: Array(commit.note.utf8).span)
            }
            sample.positions.append(position)
        }
    }

    /// Which positions are of a log that is gone. The join says so also beside its positions of the other topics: a topic
    /// that is deleted takes its own positions along.
    private func compareLogs(_ commits: [Commit], into sample: inout LagSample, timeoutMs: Int) {
        struct Key: Hashable { let group: String, topic: Topic, partition: Int32 }
        var noted: [Key: Set<LogIdentity>] = [:]
        for commit in commits {
            for (topic, log) in LogIdentity.noted(in: commit.note) {
                noted[Key(group: commit.group, topic: topic, partition: commit.partition.partition), default: []]
                    .insert(log)
            }
        }
        let there = Set(sample.positions.map(\.partition.topic))
        let topics = Set(noted.keys.map(\.topic)).filter { there.contains(query.names[$0]) }.sorted {
            $0.rawValue < $1.rawValue
        }
        guard !topics.isEmpty else { return }
        do throws(KafkaError) {
            let present = try query.kafka.identities(of: topics.map { query.names[$0] }, timeoutMs: timeoutMs)
            for (topic, log) in zip(topics, present) {
                guard let log else { continue }
                for index in sample.positions.indices
                where sample.positions[index].partition.topic == query.names[topic] {
                    let position = sample.positions[index]
                    let key = Key(group: position.group, topic: topic, partition: position.partition.partition)
                    sample.positions[index].isOfAnotherLog = noted[key].map { !$0.contains(log) } ?? false
                }
            }
        } catch {
            sample.missing.append("which logs the topics are: \(error.message)")
        }
    }

    /// The time of the first waiting record of each position that has one.
    private func collectTimes(into sample: inout LagSample, deadlineNs: UInt64) {
        var wanted: Set<RecordTimes.Place> = []
        for position in sample.positions where position.messages > 0 { wanted.insert(position.place) }
        do throws(KafkaError) {
            let found = try times.read(wanted, deadlineNs: deadlineNs)
            for index in sample.positions.indices where sample.positions[index].messages > 0 {
                switch found[sample.positions[index].place] {
                case .timestampMs(let ms): sample.positions[index].firstWaitingMs = ms
                case .nothing: sample.positions[index].hasOnlyMarkers = true
                case nil: break
                }
            }
            if found.count < wanted.count {
                sample.missing.append(
                    "the time of the first waiting record, at \(wanted.count - found.count) places")
            }
        } catch {
            sample.missing.append("times of waiting records: \(error.message)")
        }
    }

    private func collectCommitTimes(
        _ groups: [String], partitionCount: Int, into sample: inout LagSample, deadlineNs: UInt64, timeoutMs: Int
    ) {
        do throws(KafkaError) {
            try commitTimes.update(
                groups, partitionCount: partitionCount, admin, deadlineNs: deadlineNs, timeoutMs: timeoutMs)
        } catch {
            if error.code == .authorization { readsCommitTimes = false }
        }
        for index in sample.positions.indices {
            let position = sample.positions[index]
            sample.positions[index].committedMs = commitTimes.committedMs(position.group, position.partition)
        }
    }

    // MARK: Instances

    /// The newest announcement of each chat server.
    private func collectInstances(into sample: inout LagSample, deadlineNs: UInt64, timeoutMs: Int) {
        let place = TopicPartition(query.names[.instances], 0)
        do throws(KafkaError) {
            let end = try admin.watermarks([place], timeoutMs: timeoutMs)[0].get()
            let isWhole = try instances.catchUp(to: [place: end], deadlineNs: deadlineNs) { _, message in
                guard let key = message.key else { return }
                if let value = message.value, let record = try? InstanceRecord(decoding: value) {
                    newestInstances[record.instance] = record
                } else {
                    newestInstances[String(showing: key)] = nil
                }
            }
            if !isWhole { sample.missing.append("instances: not all announcements were read in time") }
        } catch {
            sample.missing.append("instances: \(error.message)")
        }
        newestInstances = newestInstances.filter { clock.wallMs - $0.value.ts < 60_000 }
        sample.instances = newestInstances.values.sorted { $0.instance < $1.instance }.map {
            LagSample.Instance(
                name: $0.instance, connections: $0.connections, isDraining: $0.isDraining,
                heartbeatAgeMs: max(0, clock.wallMs - $0.ts))
        }
    }
}

extension LagSample.Position {
    fileprivate var place: RecordTimes.Place { RecordTimes.Place(partition: partition, offset: next) }
}

extension LagSample.Group {
    fileprivate init(_ group: GroupDescription) {
        var owners: [TopicPartition: LagSample.Owner] = [:]
        for member in group.members {
            let owner = LagSample.Owner(
                member: member.id, name: member.groupInstanceID ?? member.clientID,
                // Java's brokers write an address as /10.0.0.1.
                host: String(member.host.drop { $0 == "/" }))
            for partition in member.partitions { owners[partition] = owner }
        }
        self.init(id: group.id, members: group.members.count, owners: owners)
    }
}

/// The last thing that librdkafka had to say about its connections, from whichever of its threads.
private final class LastComplaint: Sendable {
    private let text = Mutex("")

    func note(_ line: KafkaLogLine) {
        guard line.level.rawValue <= KafkaLogLine.Level.error.rawValue else { return }
        // It begins with the thread's name in brackets.
        let message =
            line.message.hasPrefix("[thrd:") ? line.message.drop { $0 != "]" }.dropFirst(3) : line.message[...]
        text.withLock { $0 = String(message) }
    }

    func explaining(_ error: KafkaError) -> String {
        let last = text.withLock { $0 }
        return last.isEmpty ? error.message : "\(error.message) (\(last))"
    }
}
