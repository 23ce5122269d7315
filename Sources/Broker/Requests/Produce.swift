internal import System

/// Produce (0), versions 3–11: append record batches.
///
/// Batches are stored as they come; see `RecordBatch` for what is filled in. Versions 0–2 (message formats of 2016) are
/// announced but refused with UNSUPPORTED_VERSION, as Apache Kafka 4 does: some releases of librdkafka take their absence
/// to mean that compression is unsupported. Gaps: no transactions.
struct ProduceRequest: Request {
    static let api = API(0, "Produce", 0...11, flexibleFrom: 9)

    struct Partition {
        var index: Int32
        /// Inside the frame.
        var records: Range<Int>?
    }

    struct Topic {
        var name: String
        var partitions: [Partition]
    }

    let transactionalID: String?
    let acks: Int16
    let topics: [Topic]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        transactionalID = version >= 3 ? try reader.nullableString() : nil
        acks = try reader.int16()
        _ = try reader.int32()
        topics = try reader.array { reader throws(BrokerError) in
            let name = try reader.string()
            let partitions = try reader.array { reader throws(BrokerError) in
                let partition = Partition(index: try reader.int32(), records: try reader.nullableByteRange())
                try reader.skipTags()
                return partition
            }
            try reader.skipTags()
            return Topic(name: name, partitions: partitions)
        }
    }

    private struct Result {
        var error = ErrorCode.none
        var message: String?
        var baseOffset: Int64 = -1
        var appendTimeMs: Int64 = -1
        var startOffset: Int64 = -1
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        var appended = false
        var results: [[Result]] = []
        results.reserveCapacity(topics.count)
        for topic in topics {
            let known = broker.storage.topics[topic.name]
            results.append(
                topic.partitions.map { partition in
                    let result = append(partition, of: known, broker, reply.version, frame)
                    if result.error == .none { appended = true }
                    return result
                })
        }
        guard acks != 0 else {
            // The client hears of nothing, but a connection that only fails must not look as if it worked.
            if results.contains(where: { $0.contains { $0.error != .none } }) { reply.connection.close() }
            return reply.sendNothing()
        }
        guard appended, acks != 1 || broker.configuration.fsync == .always else {
            return send(reply, results, nil)
        }
        broker.commits.whenDurable { failure in send(reply, results, failure) }
    }

    private func append(
        _ partition: Partition, of topic: KnownTopic?, _ broker: BrokerCore, _ version: Int16, _ frame: Span<UInt8>
    ) -> Result {
        guard version >= 3 else { return Result(error: .unsupportedVersion) }
        guard acks >= -1, acks <= 1 else { return Result(error: .invalidRequiredAcks) }
        guard transactionalID == nil else {
            return Result(error: .transactionalIDAuthorizationFailed, message: "transactions are not supported")
        }
        guard let topic, let log = topic.log(partition.index) else { return Result(error: .unknownTopicOrPartition) }
        guard !topic.isInternal else { return Result(error: .invalidTopic, message: "the topic is internal") }
        guard let range = partition.records else { return Result(error: .corruptMessage, message: "no records") }
        let bytes = frame.extracting(range)
        do throws(BrokerError) {
            let batch = try Self.verify(bytes, log.config)
            switch log.producers.check(batch) {
            case .refuse(let error): return Result(error: error)
            case .duplicate(let known):
                // Durable at the latest when what is appended now is.
                return Result(baseOffset: known.firstOffset, startOffset: log.startOffset)
            case .append: break
            }
            let stamps = log.config.timestampType == .logAppendTime
            let placed = try broker.commits.append(
                bytes, batch, to: log, appendTimeMs: stamps ? broker.loop.nowMs : nil)
            return Result(
                baseOffset: placed.baseOffset, appendTimeMs: stamps ? placed.maxTimestamp : -1,
                startOffset: log.startOffset)
        } catch {
            if error.code == .storage { broker.reportStorage(error) }
            return Result(error: error.protocolCode, message: error.message)
        }
    }

    private static func verify(_ bytes: Span<UInt8>, _ config: TopicConfig) throws(BrokerError) -> RecordBatch {
        let batch: RecordBatch
        do throws(RecordBatch.Malformed) {
            batch = try RecordBatch(verifying: bytes)
        } catch {
            if case .badMagic = error {
                throw .refused(.unsupportedForMessageFormat, "only message format v2 is stored")
            }
            throw .refused(.corruptMessage, "\(error)")
        }
        guard batch.size == bytes.count else { throw .refused(.invalidRecord, "more than one batch for a partition") }
        guard batch.size <= config.maxMessageBytes else {
            throw .refused(.messageTooLarge, "\(batch.size) bytes; max.message.bytes is \(config.maxMessageBytes)")
        }
        guard batch.isWellFormedFromProducer else { throw .refused(.invalidRecord, "the batch's header is not valid") }
        guard !batch.isTransactional else {
            throw .refused(.transactionalIDAuthorizationFailed, "transactions are not supported")
        }
        if config.isCompacted, batch.codec == Codec.none { try requireKeys(bytes) }
        return batch
    }

    /// In a compacted topic a record without a key could never be replaced.
    private static func requireKeys(_ bytes: Span<UInt8>) throws(BrokerError) {
        let records = bytes.extracting(RecordBatch.headerSize..<bytes.count)
        var position = 0
        while let record = Record(records, at: position) {
            position = record.range.upperBound
            guard record.key != nil else {
                throw .refused(.invalidRecord, "a record without a key in a compacted topic")
            }
        }
    }

    private func send(_ reply: Reply, _ results: [[Result]], _ failure: BrokerError?) {
        let version = reply.version
        reply.send { writer in
            writer.arrayCount(topics.count)
            for (topic, results) in zip(topics, results) {
                writer.string(topic.name)
                writer.arrayCount(results.count)
                for (partition, result) in zip(topic.partitions, results) {
                    let lost = failure != nil && result.error == .none
                    writer.int32(partition.index)
                    writer.error(lost ? .kafkaStorageError : result.error)
                    writer.int64(lost ? -1 : result.baseOffset)
                    if version >= 2 { writer.int64(result.appendTimeMs) }
                    if version >= 5 { writer.int64(result.startOffset) }
                    if version >= 8 {
                        writer.arrayCount(0)
                        writer.nullableString(lost ? failure?.description : result.message)
                    }
                    writer.noTags()
                }
                writer.noTags()
            }
            if version >= 1 { writer.int32(0) }
            writer.noTags()
        }
    }
}

/// The broker's topic, as told from the one in a request.
private typealias KnownTopic = Topic
