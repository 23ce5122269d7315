import KafkaClient
import TestSupport
import Testing

/// Static members of a group: what becomes of their partitions when they end, and of them when another takes their name.
struct GroupMemberTests {
    private let kafka: KafkaConfiguration
    private let topic = TestKafka.unique("t")
    private let group = TestKafka.unique("g")

    init() throws {
        kafka = KafkaConfiguration(bootstrapServers: try TestKafka.shared().address)
        let admin = try Admin(kafka)
        defer { admin.close(deadlineMs: 1_000) }
        _ = try admin.createTopics([NewTopic(topic, partitions: 2)])
    }

    private func member(_ name: String, _ engine: ClientEngine) throws -> Consumer {
        var options = ConsumerOptions(groupID: group)
        options.groupInstanceID = name
        // So long that what happens in a test does not happen because of it.
        (options.sessionTimeoutMs, options.heartbeatIntervalMs) = (60_000, 100)
        let consumer = try Consumer(engine.configuration(kafka), options)
        try consumer.subscribe([topic])
        return consumer
    }

    /// Polls the members, who take what they are given, until one has so many partitions.
    private func poll(_ members: [Consumer], until isDone: ([Int]) -> Bool) -> Bool {
        eventually {
            for member in members {
                switch member.poll(timeoutMs: 10).event {
                case .assigned(let partitions):
                    try? member.assign(partitions.map { PartitionStart($0, at: .committed) })
                case .revoked: try? member.unassign()
                default: break
                }
            }
            return isDone(members.map { assigned(to: $0) })
        }
    }

    private func assigned(to member: Consumer) -> Int { member.assignment.count }

    private func memberCount() throws -> Int {
        let admin = try Admin(kafka)
        defer { admin.close(deadlineMs: 1_000) }
        return try admin.describeGroups([group])[0].1.get().members.count
    }

    @Test func `one that closes for good hands its partitions over; one that only closes is waited for`() throws {
        let first = try member("one", .direct)
        let second = try member("two", .direct)
        #expect(poll([first, second]) { $0 == [1, 1] })
        #expect(first.closeForGood(deadlineMs: 5_000) == nil)
        #expect(poll([second]) { $0 == [2] })
        #expect(try memberCount() == 1)
        second.close(deadlineMs: 5_000)
        #expect(try memberCount() == 1)
    }

    @Test func `one that leaves comes back when it wants`() throws {
        let first = try member("one", .direct)
        let second = try member("two", .direct)
        #expect(poll([first, second]) { $0 == [1, 1] })
        #expect(try first.leave(deadlineMs: 5_000) == nil)
        #expect(poll([first, second]) { $0 == [0, 2] })
        try first.subscribe([topic])
        #expect(poll([first, second]) { $0 == [1, 1] })
        for member in [first, second] { #expect(member.closeForGood(deadlineMs: 5_000) == nil) }
        #expect(try memberCount() == 0)
    }

    @Test func `brokers that only librdkafka can reach are not told, and it says so`() throws {
        let only = try member("one", .librdkafka)
        #expect(poll([only]) { $0 == [2] })
        #expect(only.closeForGood(deadlineMs: 5_000)?.code == .unsupported)
    }

    @Test(arguments: ClientEngine.allCases)
    func `one whose name another takes is told so once, and commits nothing more`(_ engine: ClientEngine) throws {
        let first = try member("one", engine)
        #expect(poll([first]) { $0 == [2] })
        let second = try member("one", engine)
        var told: [KafkaError] = []
        var isTaken = false
        let isTold = eventually {
            try? first.commitLater([CommittedOffset(TopicPartition(topic, 0), offset: 1)])
            switch first.poll(timeoutMs: 10).event {
            case .error(let error, _): told.append(error)
            case .revoked: try? first.unassign()
            default: break
            }
            if case .assigned(let partitions) = second.poll(timeoutMs: 10).event {
                try? second.assign(partitions.map { PartitionStart($0, at: .committed) })
                isTaken = true
            }
            return isTaken && !told.isEmpty
        }
        #expect(isTold)
        #expect(told.map(\.isNameTaken) == [true], "\(told)")
        let offset = CommittedOffset(TopicPartition(topic, 0), offset: 7)
        #expect(throws: KafkaError.self) { try first.commit([offset]) }
        #expect(throws: KafkaError.self) { try first.commitLater([offset]) }
        #expect(first.closeForGood(deadlineMs: 5_000) == nil)
        #expect(try memberCount() == 1, "it has not taken the other with it")
        _ = second.closeForGood(deadlineMs: 5_000)
    }

    @Test func `a session is as short as is wanted and the brokers allow`() {
        var options = ConsumerOptions(groupID: group)
        options.setSessionTimeout(nil, kafka)
        #expect(options.sessionTimeoutMs >= ConsumerOptions.sessionTimeoutMsWanted)
        #expect(options.heartbeatIntervalMs == options.sessionTimeoutMs / 10)
        options.setSessionTimeout(45_000, kafka)
        #expect(options.sessionTimeoutMs == 45_000)
    }
}
