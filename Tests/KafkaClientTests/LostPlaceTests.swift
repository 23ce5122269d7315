import Foundation
import KafkaClient
import TestSupport
import Testing
import Wire

/// A log that is not the one that was read, or not as it was: a reader stands still, and says so once.
@Suite struct LostPlaceTests {
    private func configuration() throws -> KafkaConfiguration {
        KafkaConfiguration(bootstrapServers: try TestKafka.shared().address)
    }

    private func create(_ topic: String, _ configuration: KafkaConfiguration) throws {
        let end = ContinuousClock.now + .seconds(20)
        while true {
            let made = try Admin(configuration) { _ in }.createTopics([
                NewTopic(topic, partitions: 1, replicationFactor: 1)
            ])
            // A cluster deletes in the background.
            guard made.contains(where: { $0.error?.code == .topicAlreadyExists }) else { return }
            try #require(ContinuousClock.now < end)
        }
    }

    private func makeAgain(_ topic: String, _ configuration: KafkaConfiguration) throws {
        _ = try Admin(configuration) { _ in }.deleteTopics([topic])
        try create(topic, configuration)
    }

    private func write(_ values: Range<Int>, to topic: String, _ configuration: KafkaConfiguration) throws {
        try KafkaClientTests.write(values.map { "\($0)" }, to: topic, configuration)
    }

    /// Polls until the reader has lost its place, or fails after 20 seconds.
    private func lostPlace(_ consumer: Consumer, _ seen: inout [Seen]) throws -> LostPlace {
        var found: LostPlace?
        try consumer.takeUntil(&seen) { event in
            if case .lostPlace(let place) = event { found = place }
        } _: { _ in
            found != nil
        }
        return try #require(found)
    }

    @Test func `a topic that is made again under a reader is said, whatever is in it, and read when that is asked for`()
        throws
    {
        let configuration = try configuration()
        let topic = TestKafka.unique("t")
        try create(topic, configuration)
        let before = try #require(try configuration.identities(of: [topic])[0])
        try write(0..<5, to: topic, configuration)
        let consumer = try Consumer(configuration, ConsumerOptions()) { _ in }
        try consumer.assign([PartitionStart(TopicPartition(topic, 0), at: .beginning, log: before)])
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count == 5 }
        #expect(consumer.identity(of: topic) == before)
        try makeAgain(topic, configuration)
        // More than was read before: an offset alone tells nothing.
        try write(100..<120, to: topic, configuration)
        var place = try lostPlace(consumer, &seen)
        // A cluster may be asked between the two.
        if place.reason == .anotherLog(nil) {
            try consumer.seek([PartitionStart(place.partition, at: .offset(5), log: before)])
            place = try lostPlace(consumer, &seen)
        }
        let after = try #require(try configuration.identities(of: [topic])[0])
        #expect(after != before)
        #expect(place.reason == .anotherLog(after))
        #expect(place.log == before && place.position == 5)
        #expect(seen.count == 5, "nothing of the other log")
        try consumer.seek([PartitionStart(place.partition, at: .beginning)])
        try consumer.takeUntil(&seen) { $0.count == 25 }
        #expect(seen.dropFirst(5).map(\.value) == (100..<120).map { "\($0)" })
        #expect(consumer.identity(of: topic) == after)
    }

    @Test
    func `a topic that is deleted is said to be gone, and what is made under its name is read from its beginning`()
        throws
    {
        let configuration = try configuration()
        let topic = TestKafka.unique("t")
        try create(topic, configuration)
        try write(0..<3, to: topic, configuration)
        let consumer = try Consumer(configuration, ConsumerOptions()) { _ in }
        try consumer.assign([PartitionStart(TopicPartition(topic, 0), at: .beginning)])
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count == 3 }
        _ = try Admin(configuration) { _ in }.deleteTopics([topic])
        let place = try lostPlace(consumer, &seen)
        #expect(place.reason == .anotherLog(nil) && place.kind == "deleted")
        #expect(throws: KafkaError.self) { try configuration.identities(of: [topic]) }
        try consumer.seek([PartitionStart(place.partition, at: .beginning)])
        try create(topic, configuration)
        try write(10..<12, to: topic, configuration)
        try consumer.takeUntil(&seen) { $0.count == 5 }
        #expect(seen.suffix(2).map(\.value) == ["10", "11"])
    }

    @Test func `a position of another log is not used, though the log has such an offset`() throws {
        let configuration = try configuration()
        let topic = TestKafka.unique("t")
        try create(topic, configuration)
        let before = try #require(try configuration.identities(of: [topic])[0])
        try makeAgain(topic, configuration)
        try write(0..<9, to: topic, configuration)
        let consumer = try Consumer(configuration, ConsumerOptions()) { _ in }
        try consumer.assign([PartitionStart(TopicPartition(topic, 0), at: .offset(4), log: before)])
        var seen: [Seen] = []
        let place = try lostPlace(consumer, &seen)
        #expect(place.reason == .anotherLog(try configuration.identities(of: [topic])[0]))
        #expect(place.log == before && place.position == 4 && seen.isEmpty)
    }

    @Test func `a producer knows the log that it writes to`() throws {
        let configuration = try configuration()
        let topic = TestKafka.unique("t")
        try create(topic, configuration)
        let producer = try ResendingProducer(configuration) { _ in }
        try producer.warmUp(topics: [topic])
        #expect(producer.identity(of: topic) == (try configuration.identities(of: [topic])[0]))
    }

    @Test func `a broker that has lost its directory has other logs, and the same reader says so`() throws {
        guard try TestKafka.shared().isEmbedded else { return }
        let broker = try BrokerProcess()
        let plain = KafkaConfiguration(bootstrapServers: broker.address)
        try create("t", plain)
        try write(0..<5, to: "t", plain)
        let consumer = try Consumer(plain, ConsumerOptions()) { _ in }
        try consumer.assign([PartitionStart(TopicPartition("t", 0), at: .beginning)])
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count == 5 }
        let before = consumer.identity(of: "t")
        broker.kill()
        try FileManager.default.removeItem(atPath: broker.directory)
        try broker.restart()
        try create("t", plain)
        try write(0..<50, to: "t", plain)
        var place = try lostPlace(consumer, &seen)
        if place.reason == .anotherLog(nil) {
            try consumer.seek([PartitionStart(place.partition, at: .offset(5), log: before)])
            place = try lostPlace(consumer, &seen)
        }
        #expect(place.kind == "another_log" && place.log == before)
        #expect(seen.count == 5)
    }

    /// The same topic ids, an earlier state: as after a restore, or a disk that lied about what it had written.
    @Test(arguments: [0, 30])
    func `a log that was put back is told from the one that was read, also when it has grown past it`(_ more: Int)
        throws
    {
        guard try TestKafka.shared().isEmbedded else { return }
        let broker = try BrokerProcess()
        let plain = KafkaConfiguration(bootstrapServers: broker.address)
        try create("t", plain)
        try write(0..<10, to: "t", plain)
        broker.terminate()
        let copy = broker.directory + ".copy"
        defer { try? FileManager.default.removeItem(atPath: copy) }
        try FileManager.default.copyItem(atPath: broker.directory, toPath: copy)
        try broker.restart()
        try write(10..<20, to: "t", plain)
        let consumer = try Consumer(plain, ConsumerOptions()) { _ in }
        try consumer.assign([PartitionStart(TopicPartition("t", 0), at: .beginning)])
        var (seen, epochs) = ([Seen](), Set<Int32?>())
        while seen.count < 20 {
            let batch = consumer.poll(timeoutMs: 1000)
            for index in 0..<batch.count {
                epochs.insert(batch[index].leaderEpoch)
                seen.append(
                    Seen(
                        topic: "t", partition: 0, offset: batch[index].offset, key: nil, value: text(batch[index].value)
                    ))
            }
        }
        #expect(epochs.count == 2 && !epochs.contains(nil), "one for each start of the broker")
        broker.terminate()
        try FileManager.default.removeItem(atPath: broker.directory)
        try FileManager.default.moveItem(atPath: copy, toPath: broker.directory)
        try broker.restart()
        if more > 0 { try write(100..<100 + more, to: "t", plain) }
        let place = try lostPlace(consumer, &seen)
        #expect(place.reason == .truncated(end: 10) && place.position == 20)
        #expect(place.leaderEpoch == epochs.compactMap { $0 }.max())
        #expect(seen.count == 20)
        // The same from a kept position.
        let later = try Consumer(plain, ConsumerOptions()) { _ in }
        try later.assign([
            PartitionStart(place.partition, at: .offset(20), log: place.log, leaderEpoch: place.leaderEpoch)
        ])
        #expect(try lostPlace(later, &seen).reason == .truncated(end: 10))
        try later.seek([PartitionStart(place.partition, at: .offset(10), log: place.log)])
        seen = []
        if more > 0 { try later.takeUntil(&seen) { $0.count == more } }
        #expect(seen.map(\.value) == (0..<more).map { "\(100 + $0)" })
    }

    @Test func `a broker that only starts again loses nobody's place`() throws {
        guard try TestKafka.shared().isEmbedded else { return }
        let broker = try BrokerProcess()
        let plain = KafkaConfiguration(bootstrapServers: broker.address)
        try create("t", plain)
        let consumer = try Consumer(plain, ConsumerOptions()) { _ in }
        try consumer.assign([PartitionStart(TopicPartition("t", 0), at: .beginning)])
        var seen: [Seen] = []
        for round in 0..<3 {
            try write(round * 10..<round * 10 + 10, to: "t", plain)
            try consumer.takeUntil(&seen) { event in
                if case .lostPlace(let place) = event { Issue.record("\(place)") }
            } _: {
                $0.count == round * 10 + 10
            }
            if round == 1 { broker.terminate() } else { broker.kill() }
            try broker.restart()
        }
        #expect(seen.map(\.value) == (0..<30).map { "\($0)" })
    }
}
