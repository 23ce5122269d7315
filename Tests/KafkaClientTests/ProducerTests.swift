import KafkaClient
import Testing
import Wire

@Suite struct ProducerTests {
    @Test func `records reach their partitions with key, value, headers and timestamp`() throws {
        let cluster = try MockCluster()
        try cluster.createTopic("chat.incoming", partitions: 4)
        let producer = try Producer(cluster.configuration)
        let topic = try producer.topic("chat.incoming")
        #expect(try producer.warmUp(topics: ["chat.incoming"]) == [4])

        var headers = RecordHeaders("src", Array("a/1/2".utf8).span)
        headers.append("none", nil)
        #expect(
            try producer.produce(
                topic, partition: 2, key: Array("key".utf8).span, value: Array("value".utf8).span, headers: headers,
                timestampMs: 1_700_000_000_123, tag: 7) == .queued)
        #expect(try producer.produce(topic, partition: 2, key: Array("gone".utf8).span, value: nil, tag: 8) == .queued)
        let nothing: [UInt8] = []
        #expect(try producer.produce(topic, partition: 2, key: nothing.span, value: nothing.span, tag: 9) == .queued)

        var reports: [DeliveryReport] = []
        #expect(producer.flush(deadlineMs: 10_000) { reports.append($0) })
        #expect(reports.map(\.tag) == [7, 8, 9])
        #expect(reports.map(\.offset) == [0, 1, 2])
        #expect(reports.allSatisfy { $0.succeeded && $0.topic == topic && $0.partition == 2 })

        let consumer = try Consumer(cluster.configuration, ConsumerOptions())
        try consumer.assign([PartitionStart(TopicPartition("chat.incoming", 2), at: .beginning)])
        var seen = 0
        while seen < 3 {
            let batch = consumer.poll(timeoutMs: 10_000)
            let isEmpty = batch.isEmpty
            try #require(!isEmpty)
            for index in 0..<batch.count {
                let message = batch[index]
                #expect(message.offset == Int64(seen))
                #expect(message.partition == 2)
                #expect(consumer.name(of: message.topic) == "chat.incoming")
                switch seen {
                case 0:
                    #expect(text(message.key) == "key")
                    #expect(text(message.value) == "value")
                    #expect(text(message.header("src")) == "a/1/2")
                    #expect(text(message.header("none")) == nil)
                    #expect(message.timestampMs == 1_700_000_000_123)
                    var names: [String] = []
                    message.forEachHeader { name, _ in names.append(name) }
                    #expect(names == ["src", "none"])
                case 1:
                    #expect(text(message.key) == "gone")
                    #expect(text(message.value) == nil, "a tombstone has no value")
                default:
                    #expect(text(message.key) == "", "an empty key is not a missing one")
                    #expect(text(message.value) == "", "an empty value is not a tombstone")
                }
                seen += 1
            }
        }
        #expect(consumer.close(deadlineMs: 5000))
        #expect(producer.close(deadlineMs: 5000) { _ in })
    }

    @Test func `a key lands where the Java client's hash puts it`() throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 16)
        let producer = try Producer(cluster.configuration)
        let topic = try producer.topic("t")
        let keys = (0..<200).map { "1b9d6bcd-bbfd-4b2d-9b5d-\(100_000_000_000 + $0)" }
        for (index, key) in keys.enumerated() {
            _ = try producer.produce(topic, key: Array(key.utf8).span, value: [1].span, tag: UInt64(index))
        }
        var partitions = [Int32](repeating: -1, count: keys.count)
        #expect(producer.flush(deadlineMs: 10_000) { partitions[Int($0.tag)] = $0.partition })
        #expect(partitions == keys.map { partition(forKey: Array($0.utf8).span, count: 16) })
    }

    @Test func `a full queue is a result, and nothing that was taken is lost`() throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        var options = ProducerOptions()
        options.queueMessagesMax = 100
        let producer = try Producer(cluster.configuration, options)
        let topic = try producer.topic("t")
        try producer.warmUp(topics: ["t"])
        try cluster.setLatency(broker: 1, milliseconds: 200)
        var taken: [UInt64] = []
        var refused = 0
        for tag in 0..<300 as Range<UInt64> {
            let start = ContinuousClock.now
            switch try producer.produce(topic, partition: 0, key: nil, value: [7].span, tag: tag) {
            case .queued: taken.append(tag)
            case .queueFull: refused += 1
            }
            #expect(ContinuousClock.now - start < .milliseconds(150), "produce never waits")
        }
        #expect(refused >= 100)
        var reported: [UInt64] = []
        #expect(producer.flush(deadlineMs: 20_000) { reported.append($0.tag) })
        #expect(reported == taken, "each taken record has its report, in order")
        #expect(try producer.produce(topic, partition: 0, key: nil, value: [7].span, tag: 999) == .queued)
    }

    @Test func `reports can be waited for on a descriptor`() throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        let producer = try Producer(cluster.configuration)
        let topic = try producer.topic("t")
        for tag in 0..<20 as Range<UInt64> {
            _ = try producer.produce(topic, partition: 0, key: nil, value: [7].span, tag: tag)
            var reports: [UInt64] = []
            while reports.isEmpty {
                try #require(isReadable(producer.wakeDescriptor, withinMs: 10_000))
                producer.poll { reports.append($0.tag) }
            }
            #expect(reports == [tag])
        }
    }

    @Test func `the first record does not wait for metadata after a warm-up`() throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        let producer = try Producer(cluster.configuration)
        try producer.warmUp(topics: ["t"])
        let start = ContinuousClock.now
        _ = try producer.produce(try producer.topic("t"), partition: 0, key: nil, value: [7].span, tag: 1)
        #expect(producer.flush(deadlineMs: 10_000) { _ in })
        #expect(ContinuousClock.now - start < .milliseconds(400))
        cluster.hideTopic("nowhere")
        let error = #expect(throws: KafkaError.self) { try producer.warmUp(topics: ["nowhere"], timeoutMs: 500) }
        #expect(error?.code == .unknownTopicOrPartition)
    }

    @Test func `failures that may pass are retried without the caller's help`() throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        let producer = try Producer(cluster.configuration)
        let topic = try producer.topic("t")
        cluster.fail(.produce, with: [.notLeader, .requestTimedOut, .disconnect])
        for tag in 0..<50 as Range<UInt64> {
            _ = try producer.produce(topic, partition: 0, key: nil, value: [7].span, tag: tag)
        }
        var reports: [DeliveryReport] = []
        #expect(producer.flush(deadlineMs: 20_000) { reports.append($0) })
        #expect(reports.map(\.tag) == Array(0..<50))
        #expect(reports.allSatisfy { $0.succeeded })
    }

    @Test func `a record that the broker refuses is reported with the reason`() throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        let producer = try Producer(cluster.configuration)
        let topic = try producer.topic("t")
        cluster.fail(.produce, with: [.topicAuthorization])
        _ = try producer.produce(topic, partition: 0, key: nil, value: [7].span, tag: 3)
        var reports: [DeliveryReport] = []
        #expect(producer.flush(deadlineMs: 20_000) { reports.append($0) })
        #expect(reports.first?.error?.code == .authorization)
        #expect(reports.first?.tag == 3)
        #expect(reports.first?.offset == nil)

        let tooLarge = [UInt8](repeating: 0, count: 2_000_000)
        let error = #expect(throws: KafkaError.self) {
            try producer.produce(topic, partition: 0, key: nil, value: tooLarge.span, tag: 4)
        }
        #expect(error?.code == .messageTooLarge)
        #expect(error?.place == "produce t/0")
    }

    @Test func `closing gives every record its report, though no broker answers`() throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        let producer = try Producer(cluster.configuration) { _ in }
        let topic = try producer.topic("t")
        try producer.warmUp(topics: ["t"])
        try cluster.setDown(broker: 1)
        for tag in 0..<1000 as Range<UInt64> {
            _ = try producer.produce(topic, partition: 0, key: nil, value: [7].span, tag: tag)
        }
        var reports: [DeliveryReport] = []
        let start = ContinuousClock.now
        #expect(!producer.close(deadlineMs: 300) { reports.append($0) })
        #expect(ContinuousClock.now - start < .seconds(3))
        #expect(reports.map(\.tag).sorted() == Array(0..<1000))
        #expect(reports.allSatisfy { $0.error?.code == .purged })
    }
}

@Suite struct ResendingProducerTests {
    @Test(arguments: ClientEngine.allCases)
    func `a fatal failure is survived: every record is written, in order, and reported once`(
        _ engine: ClientEngine
    ) throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 2)
        try cluster.createTopic("u", partitions: 1)
        var options = ProducerOptions()
        // The mock takes batches whatever their numbers: with several under way the second would be written before a first
        // that was refused.
        options.requestsInFlightMax = 1
        let producer = try ResendingProducer(engine.configuration(cluster.configuration), options) { _ in }
        let first = try producer.topic("t")
        let second = try producer.topic("u")
        try producer.warmUp(topics: ["t", "u"])
        var headers = RecordHeaders()
        var reports: [DeliveryReport] = []
        // A broker that has refused a batch refuses all that follows it from the same producer id. The mock takes what
        // librdkafka has still sent before it stops, unless it is told to refuse until the producer is another.
        var refusedReplacement: Int?
        func poll() throws {
            try producer.poll { reports.append($0) }
            guard let refused = refusedReplacement, producer.replacementCount > refused else { return }
            refusedReplacement = nil
            cluster.stopFailing(.produce)
        }
        func waitForReplacement() throws {
            while refusedReplacement != nil {
                _ = isReadable(producer.wakeDescriptor, withinMs: 1000)
                try poll()
            }
        }
        for tag in 0..<3000 as Range<UInt64> {
            if tag == 700 || tag == 2100 {
                try waitForReplacement()
                // Out of sequence is fatal: librdkafka gives up its producer id for good.
                refusedReplacement = producer.replacementCount
                cluster.fail(.produce, with: Array(repeating: .outOfOrderSequence, count: 100))
            }
            let value = Array("\(tag)".utf8)
            headers.removeAll()
            headers.append("n", value.span)
            let topic = tag % 3 == 2 ? second : first
            let partition = tag % 3 == 1 ? 1 : 0 as Int32
            while try producer.produce(
                topic, partition: partition, key: value.span, value: value.span, headers: headers, tag: tag)
                == .queueFull
            {
                _ = isReadable(producer.wakeDescriptor, withinMs: 1000)
                try poll()
            }
            if tag % 100 == 99 { try poll() }
        }
        try waitForReplacement()
        #expect(producer.replacementCount >= 2)
        #expect(try producer.flush(deadlineMs: 30_000) { reports.append($0) })
        #expect(reports.allSatisfy { $0.succeeded })
        #expect(reports.map(\.tag).sorted() == Array(0..<3000))
        #expect(producer.close(deadlineMs: 5000) { _ in })

        let consumer = try Consumer(cluster.configuration, ConsumerOptions())
        try consumer.assign(
            [("t", 0), ("t", 1), ("u", 0)].map { PartitionStart(TopicPartition($0.0, $0.1), at: .beginning) })
        var seen: [Seen] = []
        try consumer.takeUntil(&seen) { Set($0.map(\.value)).count == 3000 }
        for (topic, partition) in [("t", 0), ("t", 1), ("u", 0)] as [(String, Int32)] {
            let values = seen.filter { $0.topic == topic && $0.partition == partition }.compactMap {
                Int($0.value ?? "")
            }
            // Records of unknown fate may be there twice. Once repeats of what came before are dropped, all is in order.
            var kept: [Int] = []
            for value in values where value > (kept.last ?? -1) { kept.append(value) }
            #expect(kept.count == 1000)
            #expect(Set(values).count == 1000)
        }
    }

    @Test(arguments: ClientEngine.allCases)
    func `a broker that dies loses nothing when another leads its partitions, a while later`(
        _ engine: ClientEngine
    ) throws {
        let cluster = try MockCluster(brokers: 2)
        try cluster.createTopic("t", partitions: 1)
        try cluster.setLeader(TopicPartition("t", 0), broker: 1)
        let producer = try ResendingProducer(engine.configuration(cluster.configuration)) { _ in }
        let topic = try producer.topic("t")
        try producer.warmUp(topics: ["t"])
        var reported: [UInt64] = []
        func say(_ tags: Range<UInt64>) throws {
            for tag in tags {
                let value = Array("\(tag)".utf8)
                #expect(try producer.produce(topic, partition: 0, key: nil, value: value.span, tag: tag) == .queued)
            }
        }
        try say(0..<10)
        while reported.count < 10 { try producer.poll(timeoutMs: 1000) { reported.append($0.tag) } }
        try cluster.setDown(broker: 1)
        try say(10..<20)
        // For a while everybody says that the dead one leads.
        let end = ContinuousClock.now + .milliseconds(1500)
        while ContinuousClock.now < end { try producer.poll(timeoutMs: 50) { reported.append($0.tag) } }
        #expect(reported.count == 10)
        try cluster.setLeader(TopicPartition("t", 0), broker: 2)
        #expect(try producer.flush(deadlineMs: 15_000) { reported.append($0.tag) })
        #expect(reported == Array(0..<20))
    }

    @Test func `a fatal failure is a named condition of a plain producer`() throws {
        let cluster = try MockCluster()
        try cluster.createTopic("t", partitions: 1)
        let producer = try Producer(cluster.configuration) { _ in }
        let topic = try producer.topic("t")
        #expect(producer.fatalError == nil)
        producer.failFatallyForTests()
        #expect(producer.fatalError?.code == .fatal)
        let error = #expect(throws: KafkaError.self) {
            try producer.produce(topic, partition: 0, key: nil, value: [7].span, tag: 1)
        }
        #expect(error?.isFatal == true)
        let headers = RecordHeaders("n", [1].span)
        let other = #expect(throws: KafkaError.self) {
            try producer.produce(topic, partition: 0, key: nil, value: [7].span, headers: headers, tag: 1)
        }
        #expect(other?.isFatal == true)
        #expect(error?.rawName == "OUT_OF_ORDER_SEQUENCE_NUMBER")
    }
}
