// The producer of every stage: idempotent, on its owner's thread, and it outlives what ends other producers.
//
// An idempotent producer numbers its records, and when the broker and it no longer agree on the numbers (its state
// expired, a replica was lost, the log was truncated), it must not go on. What is not acknowledged by then is sent again
// by a new one, in the order of the callers' tags, before anything newer. The caller sees neither the failure nor the
// reports of it. Some of what is sent again may have been written the first time: consumers see it twice. Fanout's
// consumers drop repeats by the source position or id that each record carries.
//
// The work is done by `DirectProducer` where it can, and by librdkafka where its properties ask for what only librdkafka
// has: encryption, SASL, compression, lingering (docs/decisions/008).
public import Wire

public final class ResendingProducer {
    private enum Engine {
        case direct(DirectProducer)
        case librdkafka(GatheringProducer)
    }

    private let engine: Engine
    private var lastTag: UInt64?
    private let noHeaders = RecordHeaders()

    /// Replacing is given up after this many in a row with no record acknowledged between them.
    static let replacementsInVainMax = 5

    public init(
        _ configuration: KafkaConfiguration, _ options: ProducerOptions = ProducerOptions(), log: KafkaLogSink? = nil
    ) throws(KafkaError) {
        if DirectProducer.serves(configuration, options) {
            engine = .direct(try DirectProducer(configuration, options, log: log))
        } else {
            engine = .librdkafka(try GatheringProducer(configuration, options, log: log))
        }
    }

    /// Readable while there may be something to `poll`; the same for the life of this object.
    public var wakeDescriptor: Int32 {
        switch engine {
        case .direct(let producer): producer.wakeDescriptor
        case .librdkafka(let producer): producer.wakeDescriptor
        }
    }

    /// Records taken and not yet reported on.
    public var inFlight: Int {
        switch engine {
        case .direct(let producer): producer.inFlight
        case .librdkafka(let producer): producer.inFlight
        }
    }

    /// How often it had to begin again as another producer.
    public var replacementCount: Int {
        switch engine {
        case .direct(let producer): producer.replacementCount
        case .librdkafka(let producer): producer.replacementCount
        }
    }

    /// The handle to write to a topic with; cheap after the first time.
    public func topic(_ name: String) throws(KafkaError) -> ProducerTopic {
        switch engine {
        case .direct(let producer): producer.topic(name, isPatient: false)
        case .librdkafka(let producer): try producer.topic(name)
        }
    }

    /// Which log stands under a topic's name, as far as the brokers have told; nil where librdkafka writes, which does not
    /// tell (2.0.2). It is known after `warmUp`.
    public func identity(of topic: String) -> LogIdentity? {
        switch engine {
        case .direct(let producer): producer.cluster.identity(of: topic)
        case .librdkafka: nil
        }
    }

    /// A topic that nobody waits for: its records gather until `sendGathered`, or until they are worth a request.
    public func patientTopic(_ name: String) throws(KafkaError) -> ProducerTopic {
        switch engine {
        case .direct(let producer): producer.topic(name, isPatient: true)
        case .librdkafka(let producer): try producer.patientTopic(name)
        }
    }

    /// As `Producer.warmUp`.
    @discardableResult
    public func warmUp(topics names: [String], timeoutMs: Int = 5000) throws(KafkaError) -> [Int32] {
        switch engine {
        case .direct(let producer): try producer.warmUp(topics: names, timeoutMs: timeoutMs)
        case .librdkafka(let producer): try producer.warmUp(topics: names, timeoutMs: timeoutMs)
        }
    }

    /// As `Producer.produce`. Tags must grow from record to record: they are the order in which records are sent again.
    public func produce(
        _ topic: ProducerTopic, partition: Int32? = nil, key: Span<UInt8>?, value: Span<UInt8>?, tag: UInt64
    ) throws(KafkaError) -> ProduceResult {
        switch engine {
        case .direct(let producer):
            try took(
                producer.produce(
                    topic, partition: partition, key: key, value: value, headers: noHeaders, timestampMs: nil, tag: tag),
                tag)
        case .librdkafka(let producer):
            try took(producer.produce(topic, partition: partition, key: key, value: value, tag: tag), tag)
        }
    }

    /// The same with headers or a timestamp of the caller's.
    public func produce(
        _ topic: ProducerTopic, partition: Int32? = nil, key: Span<UInt8>?, value: Span<UInt8>?,
        headers: borrowing RecordHeaders, timestampMs: Int64? = nil, tag: UInt64
    ) throws(KafkaError) -> ProduceResult {
        switch engine {
        case .direct(let producer):
            try took(
                producer.produce(
                    topic, partition: partition, key: key, value: value, headers: headers, timestampMs: timestampMs,
                    tag: tag), tag)
        case .librdkafka(let producer):
            try took(
                producer.produce(
                    topic, partition: partition, key: key, value: value, headers: headers, timestampMs: timestampMs,
                    tag: tag), tag)
        }
    }

    private func took(_ result: ProduceResult, _ tag: UInt64) -> ProduceResult {
        if result == .queued {
            if let lastTag { precondition(tag > lastTag, "tags must grow") }
            lastTag = tag
        }
        return result
    }

    /// Whether records of patient topics wait for `sendGathered`.
    public var hasGathered: Bool {
        switch engine {
        case .direct(let producer): producer.hasGathered
        case .librdkafka(let producer): producer.hasGathered
        }
    }

    /// What patient topics have gathered goes with the next `poll`, or as soon as its partition is free.
    public func sendGathered() {
        switch engine {
        case .direct(let producer): producer.sendGathered()
        case .librdkafka(let producer): producer.sendGathered()
        }
    }

    /// Sends what is due and hands over what became of records, waiting at most `timeoutMs` for the first report. Throws
    /// only when beginning again is in vain.
    @discardableResult
    public func poll(timeoutMs: Int = 0, _ body: (DeliveryReport) -> Void) throws(KafkaError) -> Int {
        switch engine {
        case .direct(let producer): try producer.poll(timeoutMs: timeoutMs, body)
        case .librdkafka(let producer): try producer.poll(timeoutMs: timeoutMs, body)
        }
    }

    /// Waits until every record is reported on; false if the deadline came first.
    public func flush(deadlineMs: Int, _ body: (DeliveryReport) -> Void) throws(KafkaError) -> Bool {
        let deadline = Deadline(afterMs: deadlineMs)
        while inFlight > 0 {
            sendGathered()
            let remaining = Int(deadline.remainingMs)
            try poll(timeoutMs: remaining, body)
            if remaining == 0 { break }
        }
        return inFlight == 0
    }

    /// Sends what it can until the deadline, gives up on the rest, and ends. Every record gets its report.
    @discardableResult
    public func close(deadlineMs: Int, _ body: (DeliveryReport) -> Void) -> Bool {
        switch engine {
        case .direct(let producer): producer.close(deadlineMs: deadlineMs, body)
        case .librdkafka(let producer): producer.close(deadlineMs: deadlineMs, body)
        }
    }
}
