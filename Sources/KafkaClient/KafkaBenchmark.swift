// What the wrapper costs: the same records through `Producer` and `Consumer` and through bare librdkafka, in turns on the
// same broker with the same properties. The bare loops are those of librdkafka's own rdkafka_performance, which Debian
// does not ship.
internal import CRdKafka

public struct KafkaBenchmark {
    public struct Figures: Sendable {
        /// Records a second: the median of the rounds.
        public var produce: Double
        public var bareProduce: Double
        public var consume: Double
        public var bareConsume: Double

        public var produceRatio: Double { produce / bareProduce }
        public var consumeRatio: Double { consume / bareConsume }
    }

    private let configuration: KafkaConfiguration
    private let topic: String
    private let messageCount: Int
    private let value: [UInt8]
    private let options: ProducerOptions

    public init(_ configuration: KafkaConfiguration, topic: String, messageCount: Int, valueBytes: Int) {
        self.configuration = configuration
        self.topic = topic
        self.messageCount = messageCount
        value = [UInt8](repeating: UInt8(ascii: "x"), count: valueBytes)
        var options = ProducerOptions()
        options.lingerMs = 5
        self.options = options
    }

    /// The topic must exist and have one partition.
    public func run(rounds: Int, progress: (String) -> Void = { _ in }) throws(KafkaError) -> Figures {
        var samples: [[Double]] = [[], [], [], []]
        for round in 1...rounds {
            // In turns, and each first as often as second.
            let bareFirst = round % 2 == 0
            for turn in 0..<2 {
                let isBare = (turn == 0) == bareFirst
                samples[isBare ? 1 : 0].append(try isBare ? produceBare() : produce())
            }
            for turn in 0..<2 {
                let isBare = (turn == 0) == bareFirst
                samples[isBare ? 3 : 2].append(try isBare ? consumeBare() : consume())
            }
            progress("round \(round) of \(rounds)")
        }
        let medians = samples.map { $0.sorted()[$0.count / 2] }
        return Figures(produce: medians[0], bareProduce: medians[1], consume: medians[2], bareConsume: medians[3])
    }

    private func rate(_ body: () throws(KafkaError) -> Void) throws(KafkaError) -> Double {
        let start = ContinuousClock.now
        try body()
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        return Double(messageCount) / seconds
    }

    // MARK: Through the wrapper

    private func produce() throws(KafkaError) -> Double {
        let producer = try Producer(configuration, options)
        defer { producer.close(deadlineMs: 5000) { _ in } }
        try producer.warmUp(topics: [topic])
        let handle = try producer.topic(topic)
        var failed = 0
        let rate = try rate { () throws(KafkaError) in
            for index in 0..<messageCount {
                while try producer.produce(
                    handle, partition: 0, key: nil, value: value.span, tag: UInt64(index)) == .queueFull
                { producer.poll(timeoutMs: 100) { if !$0.succeeded { failed += 1 } } }
                if index % 1000 == 0 { producer.poll { if !$0.succeeded { failed += 1 } } }
            }
            _ = producer.flush(deadlineMs: 60_000) { if !$0.succeeded { failed += 1 } }
        }
        try check(failed == 0 && producer.inFlight == 0, "records were not acknowledged")
        return rate
    }

    private func consume() throws(KafkaError) -> Double {
        let consumer = try Consumer(configuration, ConsumerOptions())
        defer { consumer.close(deadlineMs: 5000) }
        try consumer.assign([PartitionStart(TopicPartition(topic, 0), at: .beginning)])
        var count = 0
        var bytes = 0
        let rate = try rate { () throws(KafkaError) in
            let deadline = Deadline(afterMs: 60_000)
            while count < messageCount, !deadline.hasPassed {
                let batch = consumer.poll(maxMessages: 1000, timeoutMs: 1000)
                for index in 0..<batch.count { bytes += batch[index].value?.count ?? 0 }
                count += batch.count
            }
        }
        try check(count >= messageCount && bytes > 0, "records were not read")
        return rate
    }

    private func check(_ holds: Bool, _ message: String) throws(KafkaError) {
        if !holds { throw KafkaError(.other, message, place: "benchmark") }
    }

    // MARK: Bare

    private func produceBare() throws(KafkaError) -> Double {
        var properties = PropertySet()
        try properties.set(options.properties)
        try properties.apply(configuration)
        unsafe properties.withRaw { conf in
            unsafe rd_kafka_conf_set_dr_msg_cb(conf) { client, message, _ in
                guard let client = unsafe client, let counter = unsafe rd_kafka_opaque(client),
                    let message = unsafe message
                else { return }
                if unsafe message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR {
                    unsafe counter.assumingMemoryBound(to: Int.self).pointee += 1
                }
            }
        }
        let delivered = UnsafeMutablePointer<Int>.allocate(capacity: 1)
        defer { unsafe delivered.deallocate() }
        unsafe delivered.initialize(to: 0)
        unsafe properties.withRaw { unsafe rd_kafka_conf_set_opaque($0, delivered) }
        let client = try unsafe start(RD_KAFKA_PRODUCER, &properties)
        defer { unsafe rd_kafka_destroy(client) }
        let handle = unsafe rd_kafka_topic_new(client, topic, nil)
        defer { unsafe rd_kafka_topic_destroy(handle) }
        var metadata: UnsafePointer<rd_kafka_metadata>?
        if unsafe rd_kafka_metadata(client, 0, handle, &metadata, 5000) == RD_KAFKA_RESP_ERR_NO_ERROR {
            unsafe rd_kafka_metadata_destroy(metadata)
        }
        var payload = value
        let rate = try rate { () throws(KafkaError) in
            unsafe payload.withUnsafeMutableBytes { payload in
                for index in 0..<messageCount {
                    while unsafe rd_kafka_produce(
                        handle, 0, Int32(RD_KAFKA_MSG_F_COPY), payload.baseAddress, payload.count, nil, 0,
                        UnsafeMutableRawPointer(bitPattern: index)) != 0
                    { _ = unsafe rd_kafka_poll(client, 100) }
                    if index % 1000 == 0 { _ = unsafe rd_kafka_poll(client, 0) }
                }
            }
            let deadline = Deadline(afterMs: 60_000)
            while unsafe delivered.pointee < messageCount, !deadline.hasPassed {
                _ = unsafe rd_kafka_poll(client, 100)
            }
        }
        try check(unsafe delivered.pointee == messageCount, "records were not acknowledged")
        return rate
    }

    private func consumeBare() throws(KafkaError) -> Double {
        var properties = PropertySet()
        for (name, value) in ConsumerOptions().properties { try properties.set(name, to: value) }
        try properties.apply(configuration)
        let client = try unsafe start(RD_KAFKA_CONSUMER, &properties)
        defer { unsafe rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) }
        _ = unsafe rd_kafka_poll_set_consumer(client)
        let handle = unsafe rd_kafka_topic_new(client, topic, nil)
        defer { unsafe rd_kafka_topic_destroy(handle) }
        var metadata: UnsafePointer<rd_kafka_metadata>?
        if unsafe rd_kafka_metadata(client, 0, handle, &metadata, 5000) == RD_KAFKA_RESP_ERR_NO_ERROR {
            unsafe rd_kafka_metadata_destroy(metadata)
        }
        let list = PartitionList([PartitionStart(TopicPartition(topic, 0), at: .beginning)])
        _ = unsafe rd_kafka_assign(client, list.raw)
        var count = 0
        var bytes = 0
        let rate = try rate { () throws(KafkaError) in
            let deadline = Deadline(afterMs: 60_000)
            while count < messageCount, !deadline.hasPassed {
                guard let message = unsafe rd_kafka_consumer_poll(client, 1000) else { continue }
                if unsafe message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR {
                    count += 1
                    bytes += unsafe message.pointee.len
                }
                unsafe rd_kafka_message_destroy(message)
            }
        }
        try check(count >= messageCount && bytes > 0, "records were not read")
        return rate
    }

    private func start(_ type: rd_kafka_type_t, _ properties: inout PropertySet) throws(KafkaError) -> OpaquePointer {
        var reason = [CChar](repeating: 0, count: 512)
        let conf = unsafe properties.take()
        guard let client = unsafe rd_kafka_new(type, conf, &reason, reason.count) else {
            unsafe properties.giveBack(conf)
            throw KafkaError(.configuration, string(fromC: reason), place: "benchmark")
        }
        return unsafe client
    }
}
