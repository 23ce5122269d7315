import KafkaClient
import Testing

/// What `ResendingProducer` keeps in its own hands.
@Suite struct GatheringTests {
    let cluster: MockCluster

    init() throws {
        cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 2)
        try cluster.createTopic("u", partitions: 1)
    }

    private func producer(
        _ engine: ClientEngine, _ change: (inout ProducerOptions) -> Void = { _ in }
    ) throws -> ResendingProducer {
        var options = ProducerOptions()
        change(&options)
        let producer = try ResendingProducer(engine.configuration(cluster.configuration), options) { _ in }
        try producer.warmUp(topics: ["t", "u"])
        return producer
    }

    private func values(_ topic: String, _ partition: Int32, _ count: Int) throws -> [String?] {
        let consumer = try Consumer(cluster.configuration, ConsumerOptions())
        try consumer.assign([PartitionStart(TopicPartition(topic, partition), at: .beginning)])
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { $0.count >= count }
        return seen.map(\.value)
    }

    @Test(arguments: ClientEngine.allCases)
    func `what comes while a partition is busy goes in order and in few requests`(_ engine: ClientEngine) throws {
        let producer = try producer(engine)
        let topic = try producer.topic("t")
        try cluster.setLatency(broker: 1, milliseconds: 100)
        var reported: [UInt64] = []
        let start = ContinuousClock.now
        for tag in 0..<2000 as Range<UInt64> {
            let value = Array("\(tag)".utf8)
            #expect(
                try producer.produce(topic, partition: Int32(tag % 2), key: nil, value: value.span, tag: tag) == .queued
            )
            if tag % 50 == 0 { try producer.poll { reported.append($0.tag) } }
        }
        #expect(try producer.flush(deadlineMs: 30_000) { reported.append($0.tag) })
        // Five at a time, a thousand to a partition would take twenty seconds.
        #expect(ContinuousClock.now - start < .seconds(10))
        #expect(reported.sorted() == Array(0..<2000))
        #expect(try values("t", 0, 1000) == (0..<1000).map { "\($0 * 2)" })
        #expect(try values("t", 1, 1000) == (0..<1000).map { "\($0 * 2 + 1)" })
    }

    @Test(arguments: ClientEngine.allCases)
    func `a record that is refused when its turn comes holds up nothing`(_ engine: ClientEngine) throws {
        let producer = try producer(engine)
        let topic = try producer.topic("t")
        try cluster.setLatency(broker: 1, milliseconds: 50)
        var reports: [DeliveryReport] = []
        for tag in 0..<40 as Range<UInt64> {
            // With what surrounds it, number 20 is larger than a request may be to librdkafka.
            let value = tag == 20 ? [UInt8](repeating: 7, count: 999_990) : Array("\(tag)".utf8)
            #expect(try producer.produce(topic, partition: 0, key: nil, value: value.span, tag: tag) == .queued)
        }
        #expect(try producer.flush(deadlineMs: 30_000) { reports.append($0) })
        let refused: [UInt64] = engine == .direct ? [] : [20]
        #expect(reports.filter { !$0.succeeded }.map(\.tag) == refused)
        #expect(reports.allSatisfy { $0.succeeded || $0.error?.code == .messageTooLarge })
        let written = try values("t", 0, 40 - refused.count).filter { ($0?.count ?? 0) < 10 }
        #expect(written == (0..<40).filter { $0 != 20 }.map { "\($0)" })
    }

    @Test(arguments: ClientEngine.allCases)
    func `what waits is bounded, and is reported at the end`(_ engine: ClientEngine) throws {
        let producer = try producer(engine) { $0.queueMessagesMax = 50 }
        let topic = try producer.topic("t")
        try cluster.setDown(broker: 1)
        var taken: UInt64 = 0
        while try producer.produce(topic, partition: 0, key: nil, value: [1].span, tag: taken) == .queued { taken += 1 }
        #expect(taken == 50)
        #expect(producer.inFlight == 50)
        var reports: [DeliveryReport] = []
        #expect(!producer.close(deadlineMs: 100) { reports.append($0) })
        #expect(reports.map(\.tag).sorted() == Array(0..<50))
        #expect(reports.allSatisfy { !$0.succeeded })
    }

    @Test(arguments: ClientEngine.allCases)
    func `records of a patient topic gather until they are sent for, others do not wait for them`(
        _ engine: ClientEngine
    ) throws {
        let producer = try producer(engine)
        let hasty = try producer.topic("t")
        let patient = try producer.patientTopic("u")
        var reported: [UInt64] = []
        for tag in 0..<100 as Range<UInt64> {
            let topic = tag % 2 == 0 ? hasty : patient
            let value = Array("\(tag)".utf8)
            #expect(try producer.produce(topic, partition: 0, key: nil, value: value.span, tag: tag) == .queued)
        }
        #expect(producer.hasGathered)
        while reported.count < 50 { try producer.poll(timeoutMs: 1000) { reported.append($0.tag) } }
        #expect(reported.sorted() == (0..<50).map { $0 * 2 })
        #expect(producer.inFlight == 50)
        producer.sendGathered()
        #expect(!producer.hasGathered)
        while reported.count < 100 { try producer.poll(timeoutMs: 1000) { reported.append($0.tag) } }
        #expect(try values("u", 0, 50) == (0..<50).map { "\($0 * 2 + 1)" })
    }

    @Test(arguments: ClientEngine.allCases)
    func `a patient topic's records leave by themselves once they are worth a request`(_ engine: ClientEngine) throws {
        let producer = try producer(engine) { $0.batchBytesMax = 100_000 }
        let patient = try producer.patientTopic("u")
        let value = [UInt8](repeating: 65, count: 1000)
        for tag in 0..<25 as Range<UInt64> {
            #expect(try producer.produce(patient, partition: 0, key: nil, value: value.span, tag: tag) == .queued)
        }
        var reported = 0
        while reported < 25 {
            #expect(isReadable(producer.wakeDescriptor, withinMs: 10_000))
            try producer.poll { _ in reported += 1 }
        }
    }

    @Test(arguments: ClientEngine.allCases)
    func `what gathers is sent again, in order, by the producer that replaces a failed one`(_ engine: ClientEngine)
        throws
    {
        let producer = try producer(engine)
        let patient = try producer.patientTopic("u")
        let hasty = try producer.topic("t")
        var reports: [DeliveryReport] = []
        for tag in 0..<50 as Range<UInt64> {
            let value = Array("\(tag)".utf8)
            #expect(try producer.produce(patient, partition: 0, key: nil, value: value.span, tag: tag) == .queued)
        }
        // As a broker does, until the producer is another (see ResendingProducerTests).
        cluster.fail(.produce, with: Array(repeating: .outOfOrderSequence, count: 100))
        #expect(try producer.produce(hasty, partition: 0, key: nil, value: [1].span, tag: 50) == .queued)
        while producer.replacementCount == 0 { try producer.poll(timeoutMs: 1000) { reports.append($0) } }
        cluster.stopFailing(.produce)
        #expect(try producer.flush(deadlineMs: 30_000) { reports.append($0) })
        #expect(producer.replacementCount >= 1)
        #expect(reports.map(\.tag).sorted() == Array(0...50))
        #expect(reports.allSatisfy { $0.succeeded })
        #expect(try values("u", 0, 50) == (0..<50).map { "\($0)" })
    }

    @Test func `an acknowledgement without a place is another producer's: librdkafka's engine sends again and says so`()
        throws
    {
        let producer = try producer(.librdkafka)
        let topic = try producer.topic("t")
        cluster.fail(.produce, with: [.duplicateSequence])
        #expect(try producer.produce(topic, partition: 0, key: nil, value: [1].span, tag: 7) == .queued)
        var reports: [DeliveryReport] = []
        #expect(try producer.flush(deadlineMs: 30_000) { reports.append($0) })
        #expect(reports.map(\.tag) == [7])
        #expect(reports.map(\.offset) == [0])
        #expect(reports.allSatisfy { $0.succeeded && $0.mayBeRepeated })
        #expect(producer.replacementCount == 1)
    }
}
