internal import CRdKafka

extension ClientHandle {
    /// Asks a broker for the topics' partition counts. Each name's topic becomes known to this client.
    func partitionCounts(of names: [String], timeoutMs: Int) throws(KafkaError) -> [Int32] {
        let deadline = Deadline(afterMs: timeoutMs)
        var handles = unsafe [OpaquePointer]()
        defer { unsafe handles.forEach { unsafe rd_kafka_topic_destroy($0) } }
        for name in names {
            guard let handle = unsafe rd_kafka_topic_new(raw, name, nil) else {
                throw KafkaError(rd_kafka_last_error(), place: "topic \(name)")
            }
            unsafe handles.append(handle)
        }
        while true {
            do {
                let topics = try metadata(ofAllTopics: false, timeoutMs: Int(deadline.remainingMs)).topics
                return try names.map { name throws(KafkaError) in
                    guard let topic = topics.first(where: { $0.name == name }) else {
                        throw KafkaError(.unknownTopicOrPartition, "no such topic", place: "metadata of \(name)")
                    }
                    if let error = topic.error { throw error }
                    return Int32(topic.partitions.count)
                }
            } catch {
                // A leader that is being elected is there soon; a topic that does not exist is not.
                guard error.code == .unavailable || error.code == .transport, !deadline.hasPassed else { throw error }
            }
        }
    }

    func metadata(ofAllTopics all: Bool, timeoutMs: Int) throws(KafkaError) -> ClusterMetadata {
        var answer: UnsafePointer<rd_kafka_metadata>?
        let failure = unsafe rd_kafka_metadata(raw, all ? 1 : 0, nil, &answer, Int32(clamping: max(1, timeoutMs)))
        guard failure == RD_KAFKA_RESP_ERR_NO_ERROR, let answer = unsafe answer else {
            throw KafkaError(failure, place: "metadata")
        }
        defer { unsafe rd_kafka_metadata_destroy(answer) }
        return unsafe ClusterMetadata(answer.pointee)
    }
}

/// The cluster as one broker described it.
public struct ClusterMetadata: Sendable, Equatable {
    public struct Broker: Sendable, Equatable {
        public let id: Int32
        public let host: String
        public let port: Int
    }

    public struct Partition: Sendable, Equatable {
        public let id: Int32
        /// -1 while there is none.
        public let leader: Int32
        public let replicas: [Int32]
        public let inSyncReplicas: [Int32]
    }

    public struct Topic: Sendable, Equatable {
        public let name: String
        public let partitions: [Partition]
        public let error: KafkaError?
    }

    public let brokers: [Broker]
    public let topics: [Topic]

    init(_ raw: rd_kafka_metadata) {
        brokers = unsafe (0..<Int(raw.broker_cnt)).map { index in
            let broker = unsafe raw.brokers[index]
            return unsafe Broker(id: broker.id, host: String(cString: broker.host), port: Int(broker.port))
        }
        topics = unsafe (0..<Int(raw.topic_cnt)).map { index in
            let topic = unsafe raw.topics[index]
            let name = unsafe String(cString: topic.topic)
            let partitions = unsafe (0..<Int(topic.partition_cnt)).map { index in
                let partition = unsafe topic.partitions[index]
                return unsafe Partition(
                    id: partition.id, leader: partition.leader,
                    replicas: (0..<Int(partition.replica_cnt)).map { unsafe partition.replicas[$0] },
                    inSyncReplicas: (0..<Int(partition.isr_cnt)).map { unsafe partition.isrs[$0] })
            }
            let error = unsafe topic.err
            return Topic(
                name: name, partitions: partitions.sorted { $0.id < $1.id },
                error: error == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : KafkaError(error, place: "topic \(name)"))
        }
    }
}
