internal import KafkaClient

/// Reads topics from their beginning to where they end now.
struct TopicScan {
    private let configuration: CDCConfiguration
    private var ends: [TopicPartition: Int64] = [:]
    private let faults: ReadFaults

    /// Notes the present ends; what is written later is not read.
    init(
        _ configuration: CDCConfiguration, _ faults: ReadFaults, topics: [String], partitions: [Int32]
    ) throws(CDCError) {
        self.configuration = configuration
        self.faults = faults
        do throws(KafkaError) {
            let admin = try Admin(configuration.kafka)
            defer { admin.close(deadlineMs: 500) }
            let places = zip(topics, partitions).flatMap { topic, count in (0..<count).map { TopicPartition(topic, $0) }
            }
            let marks = try admin.watermarks(places, timeoutMs: 15_000)
            for (place, result) in zip(places, marks) {
                let mark = try result.get()
                if mark.high > mark.low { ends[place] = mark.high }
            }
        } catch {
            throw CDCError(error, "cannot read the topics' ends")
        }
    }

    var isEmpty: Bool { ends.isEmpty }

    func forEach(
        idle: () throws(CDCError) -> Void,
        _ body: (_ topic: String, _ partition: Int32, _ key: Span<UInt8>, _ value: Span<UInt8>?) throws(CDCError) ->
            Void
    ) throws(CDCError) {
        if ends.isEmpty { return }
        let consumer = try open()
        defer { consumer.close(deadlineMs: 1000) }
        var left = Set(ends.keys)
        while !left.isEmpty {
            let batch = consumer.poll(maxMessages: 5000, timeoutMs: 50)
            for index in 0..<batch.count {
                let message = batch[index]
                let topic = consumer.name(of: message.topic)
                let place = TopicPartition(topic, message.partition)
                guard let end = ends[place], message.offset < end else {
                    left.remove(place)
                    continue
                }
                if message.offset == end - 1 { left.remove(place) }
                if let key = message.key { try body(topic, message.partition, key, message.value) }
            }
            faults.tell(batch.event)
            switch batch.event {
            // Compaction may have removed the last record that was there.
            case .endOfPartition(let place, _): left.remove(place)
            case .lostPlace(let place): throw CDCError(.transient, "a topic changed while it was read back: \(place)")
            case .error(let error, _) where error.isFatal: throw CDCError(error, "cannot read the topics back")
            default: break
            }
            try idle()
        }
    }

    private func open() throws(CDCError) -> Consumer {
        var options = ConsumerOptions()
        options.reportsEndOfPartition = true
        do throws(KafkaError) {
            let consumer = try Consumer(configuration.kafka, options)
            try consumer.assign(ends.keys.sorted().map { PartitionStart($0, at: .beginning) })
            return consumer
        } catch {
            throw CDCError(error, "cannot read the topics back")
        }
    }
}
