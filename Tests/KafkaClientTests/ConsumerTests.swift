import Glibc
import KafkaClient
import TestSupport
import Testing

@Suite struct ConsumerTests {
    @Test(arguments: ClientEngine.allCases)
    func `an end of partition and its offset are an event`(_ engine: ClientEngine) throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        try write(["a", "b"], to: "t", cluster.configuration)
        var options = ConsumerOptions()
        options.reportsEndOfPartition = true
        let consumer = try Consumer(engine.configuration(cluster.configuration), options)
        try consumer.assign([PartitionStart(TopicPartition("t", 0), at: .beginning)])
        var seen: [Seen] = []
        var end: Int64?
        try consumer.takeUntil(&seen) { event in
            if case .endOfPartition(let partition, let offset) = event {
                #expect(partition == TopicPartition("t", 0))
                end = offset
            }
        } _: { _ in
            end != nil
        }
        #expect(seen.map(\.value) == ["a", "b"])
        #expect(end == 2)
    }

    @Test(arguments: ClientEngine.allCases)
    func `seek, pause and resume in the middle of batches lose and repeat nothing`(_ engine: ClientEngine) throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 2)
        try write((0..<3000).map { "\($0)" }, to: "t", cluster.configuration, partition: 0)
        try write((0..<3000).map { "\($0)" }, to: "t", cluster.configuration, partition: 1)
        let consumer = try Consumer(engine.configuration(cluster.configuration), ConsumerOptions())
        let (left, right) = (TopicPartition("t", 0), TopicPartition("t", 1))
        try consumer.assign([PartitionStart(left, at: .beginning), PartitionStart(right, at: .beginning)])
        var next: [Int64] = [0, 0]
        var random = SeededGenerator.announced("seek, pause and resume")
        var seeksLeft = 40
        let end = ContinuousClock.now + .seconds(40)
        while next != [3000, 3000] {
            var seen: [Seen] = []
            _ = consumer.take(&seen, maxMessages: Int.random(in: 1...200, using: &random), timeoutMs: 200)
            for message in seen {
                #expect(message.offset == next[Int(message.partition)], "partition \(message.partition)")
                next[Int(message.partition)] = message.offset + 1
            }
            try #require(ContinuousClock.now < end, "stuck at \(next)")
            switch Int.random(in: 0..<6, using: &random) {
            case 0:
                try consumer.pause([left])
                try consumer.resume([left])
            case 1:
                guard seeksLeft > 0 else { break }
                seeksLeft -= 1
                next[1] = Int64.random(in: 0...next[1], using: &random)
                try consumer.seek([PartitionStart(right, at: .offset(next[1]))])
            default: break
            }
        }
        #expect(try consumer.positions([left, right]) == [3000, 3000])
    }

    @Test(arguments: ClientEngine.allCases)
    func `a group gives partitions, and others can be read beside them`(_ engine: ClientEngine) throws {
        let cluster = try MockCluster()
        for topic in ["incoming", "members"] { try cluster.createTopic(topic, partitions: 4) }
        for partition in 0..<4 as Range<Int32> {
            try write(["m"], to: "members", cluster.configuration, partition: partition)
            try write(["i"], to: "incoming", cluster.configuration, partition: partition)
        }
        var options = ConsumerOptions(groupID: "join")
        options.sessionTimeoutMs = 6000
        options.groupInstanceID = "one"
        let consumer = try Consumer(engine.configuration(cluster.configuration), options)
        try consumer.subscribe(["incoming"])
        var seen: [Seen] = []
        var assigned: [TopicPartition] = []
        try consumer.takeUntil(&seen) { event in
            if case .assigned(let partitions) = event {
                assigned = partitions
                let beside = partitions.map {
                    PartitionStart(TopicPartition("members", $0.partition), at: .beginning)
                }
                try consumer.assign(partitions.map { PartitionStart($0, at: .committed) } + beside)
            }
        } _: {
            $0.count == 8
        }
        #expect(assigned.sorted() == (0..<4).map { TopicPartition("incoming", $0) })
        #expect(seen.count { $0.topic == "members" } == 4)
        #expect(consumer.assignment.count == 8)

        // Only the group's own positions are committed; the next member starts there.
        try consumer.commit((0..<4).map { CommittedOffset(TopicPartition("incoming", $0), offset: 1, metadata: "n") })
        let committed = try consumer.committed([TopicPartition("incoming", 3), TopicPartition("members", 3)])
        #expect(committed[0]?.offset == 1)
        #expect(committed[1] == nil)
        #expect(consumer.close(deadlineMs: 10_000))
    }

    @Test(arguments: ClientEngine.allCases)
    func `the wake descriptor is readable while there is something to poll`(_ engine: ClientEngine) throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        let consumer = try Consumer(engine.configuration(cluster.configuration), ConsumerOptions())
        try consumer.assign([PartitionStart(TopicPartition("t", 0), at: .beginning)])
        var total = 0
        for round in 1...5 {
            try write((0..<50).map { "\(round).\($0)" }, to: "t", cluster.configuration)
            // Taken in small batches: the descriptor must stay readable until the queue is empty.
            while total < round * 50 {
                try #require(isReadable(consumer.wakeDescriptor, withinMs: 10_000), "at \(total)")
                total += consumer.poll(maxMessages: 7).count
            }
        }
        #expect(total == 250)
    }

    @Test(arguments: ClientEngine.allCases)
    func `a member that waits at the descriptor keeps its partitions while nothing comes`(
        _ engine: ClientEngine
    ) throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        var options = ConsumerOptions(groupID: "idle")
        (options.sessionTimeoutMs, options.heartbeatIntervalMs, options.pollIntervalMaxMs) = (6000, 1000, 6000)
        let consumer = try Consumer(engine.configuration(cluster.configuration), options)
        try consumer.subscribe(["t"])
        var seen: [Seen] = []
        var isAssigned = false
        try consumer.takeUntil(&seen) { event in
            guard case .assigned(let partitions) = event else { return }
            try consumer.assign(partitions.map { PartitionStart($0, at: .committed) })
            isAssigned = true
        } _: { _ in
            isAssigned
        }
        // Longer than the time after which the group gives up on who does not poll.
        let end = ContinuousClock.now + .seconds(9)
        while ContinuousClock.now < end {
            consumer.stayInGroup()
            guard isReadable(consumer.wakeDescriptor, withinMs: 100) else { continue }
            if let event = consumer.poll().event { Issue.record("\(event)") }
        }
    }

    @Test(arguments: ClientEngine.allCases)
    func `commitLater answers with an event`(_ engine: ClientEngine) throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        let consumer = try Consumer(engine.configuration(cluster.configuration), ConsumerOptions(groupID: "g"))
        try consumer.assign([PartitionStart(TopicPartition("t", 0), at: .beginning)])
        try consumer.commitLater([CommittedOffset(TopicPartition("t", 0), offset: 5, metadata: "epoch 3")])
        var answer: [CommittedOffset]?
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { event in
            if case .committed(let offsets, let error) = event {
                #expect(error == nil)
                answer = offsets
            }
        } _: { _ in
            answer != nil
        }
        #expect(answer?.map(\.offset) == [5])
        #expect(try consumer.committed([TopicPartition("t", 0)])[0]?.metadata == "epoch 3")
    }

    @Test(arguments: ClientEngine.allCases)
    func `partitions are added and removed without disturbing the others`(_ engine: ClientEngine) throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 3)
        for partition in 0..<3 as Range<Int32> {
            try write(["x", "y"], to: "t", cluster.configuration, partition: partition)
        }
        let consumer = try Consumer(engine.configuration(cluster.configuration), ConsumerOptions())
        try consumer.add([PartitionStart(TopicPartition("t", 0), at: .beginning)])
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count == 2 }
        try consumer.add([PartitionStart(TopicPartition("t", 1), at: .offset(1))])
        try consumer.takeUntil(&seen) { $0.count == 3 }
        try consumer.remove([TopicPartition("t", 0)])
        try write(["z"], to: "t", cluster.configuration, partition: 0)
        try write(["z"], to: "t", cluster.configuration, partition: 1)
        try consumer.takeUntil(&seen) { $0.count == 4 }
        #expect(seen.map { "\($0.partition)/\($0.offset)" } == ["0/0", "0/1", "1/1", "1/2"])
        #expect(consumer.assignment == [TopicPartition("t", 1)])
    }

    @Test(arguments: ClientEngine.allCases)
    func `closing does not wait for a broker that is gone`(_ engine: ClientEngine) throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        try write(["a"], to: "t", cluster.configuration)
        var options = ConsumerOptions(groupID: "g")
        options.sessionTimeoutMs = 6000
        let consumer = try Consumer(engine.configuration(cluster.configuration), options) { _ in }
        try consumer.subscribe(["t"])
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { event in
            if case .assigned(let partitions) = event {
                try consumer.assign(partitions.map { PartitionStart($0, at: .committed) })
            }
        } _: {
            $0.count == 1
        }
        try cluster.setDown(broker: 1)
        let start = ContinuousClock.now
        let error = #expect(throws: KafkaError.self) {
            try consumer.commit([CommittedOffset(TopicPartition("t", 0), offset: 1)], timeoutMs: 300)
        }
        #expect(error?.isRetriable == true)
        #expect(throws: KafkaError.self) { try consumer.watermarks(TopicPartition("t", 0), timeoutMs: 300) }
        #expect(throws: KafkaError.self) { try consumer.committed([TopicPartition("t", 0)], timeoutMs: 300) }
        #expect(ContinuousClock.now - start < .seconds(3), "each call keeps its timeout")
        let closing = ContinuousClock.now
        consumer.close(deadlineMs: 500)
        #expect(ContinuousClock.now - closing < .seconds(2))
    }

    @Test(arguments: ClientEngine.allCases)
    func `a position behind the log's end is an event`(_ engine: ClientEngine) throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        try write(["a"], to: "t", cluster.configuration)
        let consumer = try Consumer(engine.configuration(cluster.configuration), ConsumerOptions()) { _ in }
        try consumer.assign([PartitionStart(TopicPartition("t", 0), at: .offset(77))])
        var seen: [Seen] = []
        var found: LostPlace?
        try consumer.takeUntil(&seen) { event in
            if case .lostPlace(let place) = event { found = place }
        } _: { _ in
            found != nil
        }
        #expect(found?.partition == TopicPartition("t", 0))
        #expect(found?.position == 77)
        #expect(found?.reason == .outOfRange(Watermarks(low: 0, high: 1)))
    }
}

func isReadable(_ descriptor: Int32, withinMs: Int32) -> Bool {
    var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return unsafe poll(&request, 1, withinMs) == 1
}
