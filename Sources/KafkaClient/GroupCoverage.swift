/// Whether a group has forgotten partitions: when it decides while a topic is not there for a moment (made again under its
/// name, or not made yet), its members are given nothing of it. librdkafka asks for another decision only when it sees a topic
/// change between two of its own looks, so what was gone between them is never given to anybody.
///
/// A member that is given nothing asks the group after a while whether somebody has all partitions; if nobody has, it joins
/// anew. Where there are more members than partitions this costs three requests now and then.
struct GroupCoverage {
    private(set) var topics: [String] = []
    private var dueMs: Int64?
    private var pauseMs = Self.pauseMsMin

    private static let pauseMsMin: Int64 = 1000
    private static let pauseMsMax: Int64 = 60_000

    mutating func subscribed(_ topics: [String]) {
        self.topics = topics
        (dueMs, pauseMs) = (nil, Self.pauseMsMin)
    }

    mutating func assigned(_ partitions: [TopicPartition], nowMs: Int64) {
        let given = Set(partitions.map(\.topic))
        if topics.allSatisfy(given.contains) {
            (dueMs, pauseMs) = (nil, Self.pauseMsMin)
        } else {
            dueMs = nowMs + pauseMs
        }
    }

    /// Whether it is time to ask; the next time is later.
    mutating func isDue(nowMs: Int64) -> Bool {
        guard let dueMs, nowMs >= dueMs else { return false }
        pauseMs = min(pauseMs * 2, Self.pauseMsMax)
        self.dueMs = nowMs + pauseMs
        return true
    }
}

extension Consumer {
    /// Joins anew when the group has given partitions to nobody. A cluster that does not answer is asked again later.
    func checkCoverage() throws(KafkaError) {
        guard let group = groupID, coverage.isDue(nowMs: monotonicMs()) else { return }
        let admin = try Admin(configuration) { _ in }
        defer { admin.close(deadlineMs: 200) }
        let description = try admin.describeGroups([group], timeoutMs: Self.coverageTimeoutMs)[0].1.get()
        guard description.state == .stable else { return }
        let counts = try admin.partitionCounts(of: coverage.topics, timeoutMs: Self.coverageTimeoutMs)
        let owned = Set(description.members.flatMap(\.partitions))
        let forgotten = zip(coverage.topics, counts).flatMap { topic, count in
            (0..<count).map { TopicPartition(topic, $0) }.filter { !owned.contains($0) }
        }
        guard let first = forgotten.first else { return }
        let message = "\(forgotten.count) partitions were given to nobody (\(first)); joining anew"
        tell(KafkaLogLine(level: .warning, facility: "GROUP", message: message))
        let known = coverage
        try unsubscribe()
        coverage = known
        try rejoin(known.topics)
    }

    private static let coverageTimeoutMs = 1000
}
