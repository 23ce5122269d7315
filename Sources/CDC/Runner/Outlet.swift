internal import KafkaClient
internal import PostgresClient

/// The way into Kafka: hands records to the producer, waits when it is full, and keeps count of what is acknowledged.
final class Outlet: ChangeSink {
    let producer: Producer
    let topics: [ProducerTopic]
    let topicNames: [String]
    let partitions: [Int32]
    var tracker: PositionTracker
    private var tag: UInt64 = 0
    private var failure: KafkaError?
    /// The offset after the last record acknowledged in the first topic's partition 0: what the group commits, so that
    /// tools that look at groups see no lag where there is none.
    private(set) var firstPartitionEnd: Int64
    private(set) var writtenCount = 0
    private(set) var writtenBytes = 0
    private(set) var acknowledgedCount = 0
    /// Called while the producer has no room, every few milliseconds; throws to give up.
    var whileFull: () throws(CDCError) -> Void = { () throws(CDCError) in }

    init(
        _ configuration: CDCConfiguration, topics names: [String], from position: LSN, firstPartitionEnd: Int64
    ) throws(CDCError) {
        self.firstPartitionEnd = firstPartitionEnd
        var options = configuration.producer
        // A record is tried for ever: giving one up would put those after it out of order.
        options.deliveryTimeoutMs = 0
        options.queueBytesMax = configuration.queueBytesMax
        topicNames = names
        tracker = PositionTracker(from: position)
        do throws(KafkaError) {
            let producer = try Producer(configuration.kafka, options)
            topics = try names.map { name throws(KafkaError) in try producer.topic(name) }
            partitions = try producer.warmUp(topics: names, timeoutMs: 10_000)
            self.producer = producer
        } catch {
            if error.code == .unknownTopicOrPartition {
                throw CDCError(
                    .configuration, "\(error)",
                    hint: "fanout topics create, or make the topic yourself if it is for a table of your own")
            }
            throw CDCError(error, "cannot use Kafka at \(configuration.kafka.bootstrapServers)")
        }
    }

    var isTransactionOpen: Bool { tag != 0 }

    func begin() { tag = tracker.begin() }

    func end(at position: LSN) {
        tracker.end(at: position)
        tag = 0
    }

    /// What was begun ends here, and nothing is confirmed by it.
    func abandon() {
        if isTransactionOpen { end(at: .zero) }
    }

    func write(topic: Int, partition: Int32, key: Span<UInt8>, value: Span<UInt8>?) throws(CDCError) {
        while true {
            let result: ProduceResult
            do throws(KafkaError) {
                result = try producer.produce(topics[topic], partition: partition, key: key, value: value, tag: tag)
            } catch {
                throw CDCError(error, "cannot write to \(topicNames[topic])")
            }
            if result == .queued {
                tracker.sent()
                writtenCount &+= 1
                writtenBytes &+= key.count &+ (value?.count ?? 0)
                return
            }
            try poll(timeoutMs: 20)
            try whileFull()
        }
    }

    /// Takes what Kafka has answered. A record that could not be written ends it: from there on the order is lost, so
    /// everything from the confirmed position is sent again by a new producer.
    func poll(timeoutMs: Int = 0) throws(CDCError) {
        producer.poll(timeoutMs: timeoutMs) { report in
            if report.succeeded {
                tracker.acknowledged(report.tag)
                acknowledgedCount &+= 1
                if report.partition == 0, report.topic == topics[0], let offset = report.offset {
                    firstPartitionEnd = offset + 1
                }
            } else {
                failure = failure ?? report.error
            }
        }
        if let failure { throw CDCError(failure, "Kafka did not take a record") }
        if let fatal = producer.fatalError { throw CDCError(.transient, "Kafka: \(fatal)") }
    }

    /// Waits until everything written is acknowledged.
    func flush() throws(CDCError) {
        while producer.inFlight > 0 {
            try poll(timeoutMs: 20)
            try whileFull()
        }
    }
}
