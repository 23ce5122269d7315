internal import CRdKafka
internal import System

/// A topic to be made.
public struct NewTopic: Sendable, Equatable {
    public var name: String
    public var partitions: Int
    /// -1 lets the cluster decide.
    public var replicationFactor: Int
    public var configs: [String: String]

    public init(_ name: String, partitions: Int, replicationFactor: Int = -1, configs: [String: String] = [:]) {
        self.name = name
        self.partitions = partitions
        self.replicationFactor = replicationFactor
        self.configs = configs
    }
}

/// A subject of an admin call and what became of it.
public struct AdminOutcome: Sendable, Equatable {
    public let name: String
    /// nil is success.
    public let error: KafkaError?

    init(name: String, code: rd_kafka_resp_err_t, message: String, place: String) {
        self.name = name
        error = code == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : KafkaError(code, message: message, place: "\(place) \(name)")
    }
}

extension Admin {
    /// Makes topics in one request, and waits until a broker that is asked knows them; an existing one answers
    /// `.topicAlreadyExists`.
    public func createTopics(
        _ topics: [NewTopic], validateOnly: Bool = false, timeoutMs: Int = 10_000
    ) throws(KafkaError) -> [AdminOutcome] {
        guard !topics.isEmpty else { return [] }
        let place = "create topic"
        let call = try AdminCall(
            self, RD_KAFKA_ADMIN_OP_CREATETOPICS, timeoutMs: timeoutMs, place: place, waitsForEffect: true)
        var reason = [CChar](repeating: 0, count: 512)
        if validateOnly {
            _ = unsafe rd_kafka_AdminOptions_set_validate_only(call.options, 1, &reason, reason.count)
        }
        var requests = unsafe [OpaquePointer?]()
        defer { unsafe requests.forEach { unsafe rd_kafka_NewTopic_destroy($0) } }
        for topic in topics {
            let made = unsafe rd_kafka_NewTopic_new(
                topic.name, Int32(clamping: topic.partitions), Int32(clamping: topic.replicationFactor), &reason,
                reason.count)
            guard let made = unsafe made else {
                throw KafkaError(.invalidArgument, string(fromC: reason), place: "\(place) \(topic.name)")
            }
            unsafe requests.append(made)
            for (name, value) in topic.configs.sorted(by: { $0.key < $1.key }) {
                let code = unsafe rd_kafka_NewTopic_set_config(made, name, value)
                if code != RD_KAFKA_RESP_ERR_NO_ERROR {
                    throw KafkaError(code, place: "\(place) \(topic.name): \(name)")
                }
            }
        }
        unsafe rd_kafka_CreateTopics(handle.raw, &requests, requests.count, call.options, call.queue)
        let outcomes = try unsafe call.answer { event throws(KafkaError) in
            var count = 0
            let results = unsafe rd_kafka_CreateTopics_result_topics(
                rd_kafka_event_CreateTopics_result(event), &count)
            return unsafe topicOutcomes(results, count, place)
        }
        let made = Set(outcomes.filter { $0.error == nil }.map(\.name))
        if !validateOnly {
            let known = topics.filter { made.contains($0.name) }.map { ($0.name, max(1, $0.partitions)) }
            waitUntilKnown(known, timeoutMs)
        }
        return outcomes
    }

    /// Apache Kafka answers when its controller has decided, and its brokers hear of it a moment later. Who uses the
    /// topic at once should not have to know.
    private func waitUntilKnown(_ topics: [(name: String, partitions: Int)], _ timeoutMs: Int) {
        waitUntil(timeoutMs) { known in
            topics.allSatisfy { topic in
                let found = known[topic.name] ?? []
                return found.count >= topic.partitions && found.allSatisfy { $0.leader >= 0 }
            }
        }
    }

    private func waitUntil(_ timeoutMs: Int, _ isDone: ([String: [ClusterMetadata.Partition]]) -> Bool) {
        let deadline = Deadline(afterMs: timeoutMs)
        while !deadline.hasPassed {
            if let known = try? handle.metadata(ofAllTopics: true, timeoutMs: Int(deadline.remainingMs)).topics {
                if isDone(Dictionary(known.map { ($0.name, $0.partitions) }) { first, _ in first }) { return }
            }
            _ = Handover<Never>().take(timeoutMs: 10)
        }
    }

    /// Deletes topics, and waits until a broker that is asked no longer knows them.
    public func deleteTopics(_ names: [String], timeoutMs: Int = 10_000) throws(KafkaError) -> [AdminOutcome] {
        guard !names.isEmpty else { return [] }
        let call = try AdminCall(
            self, RD_KAFKA_ADMIN_OP_DELETETOPICS, timeoutMs: timeoutMs, place: "delete topic", waitsForEffect: true)
        var requests = unsafe [OpaquePointer?]()
        for name in names { unsafe requests.append(rd_kafka_DeleteTopic_new(name)) }
        defer { unsafe requests.forEach { unsafe rd_kafka_DeleteTopic_destroy($0) } }
        unsafe rd_kafka_DeleteTopics(handle.raw, &requests, requests.count, call.options, call.queue)
        let outcomes = try unsafe call.answer { event throws(KafkaError) in
            var count = 0
            let results = unsafe rd_kafka_DeleteTopics_result_topics(
                rd_kafka_event_DeleteTopics_result(event), &count)
            return unsafe topicOutcomes(results, count, "delete topic")
        }
        let gone = outcomes.filter { $0.error == nil }.map(\.name)
        waitUntil(timeoutMs) { known in gone.allSatisfy { known[$0] == nil } }
        return outcomes
    }

    /// Grows topics to these partition counts. Keys hash differently afterwards: see `fanout topics check`.
    public func growTopics(
        _ topics: [(name: String, partitions: Int)], timeoutMs: Int = 10_000
    ) throws(KafkaError) -> [AdminOutcome] {
        guard !topics.isEmpty else { return [] }
        let call = try AdminCall(
            self, RD_KAFKA_ADMIN_OP_CREATEPARTITIONS, timeoutMs: timeoutMs, place: "grow topic", waitsForEffect: true)
        var reason = [CChar](repeating: 0, count: 512)
        var requests = unsafe [OpaquePointer?]()
        defer { unsafe requests.forEach { unsafe rd_kafka_NewPartitions_destroy($0) } }
        for topic in topics {
            let made = unsafe rd_kafka_NewPartitions_new(topic.name, topic.partitions, &reason, reason.count)
            guard let made = unsafe made else {
                throw KafkaError(.invalidArgument, string(fromC: reason), place: "grow topic \(topic.name)")
            }
            unsafe requests.append(made)
        }
        unsafe rd_kafka_CreatePartitions(handle.raw, &requests, requests.count, call.options, call.queue)
        let outcomes = try unsafe call.answer { event throws(KafkaError) in
            var count = 0
            let results = unsafe rd_kafka_CreatePartitions_result_topics(
                rd_kafka_event_CreatePartitions_result(event), &count)
            return unsafe topicOutcomes(results, count, "grow topic")
        }
        let grown = Set(outcomes.filter { $0.error == nil }.map(\.name))
        waitUntilKnown(topics.filter { grown.contains($0.name) }, timeoutMs)
        return outcomes
    }

    /// Deletes the records before these offsets; answers each partition's new first offset.
    public func deleteRecords(
        before offsets: [(TopicPartition, offset: Int64)], timeoutMs: Int = 10_000
    ) throws(KafkaError) -> [(TopicPartition, Result<Int64, KafkaError>)] {
        guard !offsets.isEmpty else { return [] }
        let call = try AdminCall(
            self, RD_KAFKA_ADMIN_OP_DELETERECORDS, timeoutMs: timeoutMs, place: "delete records", waitsForEffect: true)
        let list = PartitionList(capacity: offsets.count)
        for (partition, offset) in offsets { list.add(partition, offset: offset) }
        var request = unsafe rd_kafka_DeleteRecords_new(list.raw)
        defer { unsafe rd_kafka_DeleteRecords_destroy(request) }
        unsafe rd_kafka_DeleteRecords(handle.raw, &request, 1, call.options, call.queue)
        return try unsafe call.answer { event throws(KafkaError) in
            guard
                let results = unsafe rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event))
            else { return [] }
            return unsafe PartitionList.entries(of: results).map { entry in
                entry.error == RD_KAFKA_RESP_ERR_NO_ERROR
                    ? (entry.partition, .success(entry.offset))
                    : (entry.partition, .failure(KafkaError(entry.error, place: "delete records \(entry.partition)")))
            }
        }
    }

    private func topicOutcomes(
        _ results: UnsafeMutablePointer<OpaquePointer?>?, _ count: Int, _ place: String
    ) -> [AdminOutcome] {
        guard let results = unsafe results else { return [] }
        return (0..<count).map { index in
            let result = unsafe results[index]
            return unsafe AdminOutcome(
                name: adminString(rd_kafka_topic_result_name(result)), code: rd_kafka_topic_result_error(result),
                message: adminString(rd_kafka_topic_result_error_string(result)), place: place)
        }
    }
}
