internal import CRdKafka

/// One setting of a topic as the broker has it.
public struct TopicConfig: Sendable, Equatable {
    public let name: String
    /// nil when the broker does not tell, as for secrets.
    public let value: String?
    /// Set on this topic, as opposed to inherited from the broker.
    public let isSetOnTopic: Bool
}

extension Admin {
    /// All settings of these topics.
    public func topicConfigs(
        _ topics: [String], timeoutMs: Int = 10_000
    ) throws(KafkaError) -> [(topic: String, Result<[TopicConfig], KafkaError>)] {
        guard !topics.isEmpty else { return [] }
        let call = try AdminCall(
            self, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeoutMs: timeoutMs, place: "describe configs")
        var requests = unsafe [OpaquePointer?]()
        for topic in topics { unsafe requests.append(rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic)) }
        defer { unsafe requests.forEach { unsafe rd_kafka_ConfigResource_destroy($0) } }
        unsafe rd_kafka_DescribeConfigs(handle.raw, &requests, requests.count, call.options, call.queue)
        return try unsafe call.answer { event throws(KafkaError) in
            var count = 0
            let results = unsafe rd_kafka_DescribeConfigs_result_resources(
                rd_kafka_event_DescribeConfigs_result(event), &count)
            return unsafe outcomes(results, count)
        }
    }

    /// All settings of one resource.
    func configs(
        of name: String, _ type: rd_kafka_ResourceType_t, timeoutMs: Int
    ) throws(KafkaError) -> [TopicConfig] {
        let call = try AdminCall(
            self, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeoutMs: timeoutMs, place: "describe configs")
        var request = unsafe rd_kafka_ConfigResource_new(type, name)
        defer { unsafe rd_kafka_ConfigResource_destroy(request) }
        unsafe rd_kafka_DescribeConfigs(handle.raw, &request, 1, call.options, call.queue)
        return try unsafe call.answer { event throws(KafkaError) in
            var count = 0
            let results = unsafe rd_kafka_DescribeConfigs_result_resources(
                rd_kafka_event_DescribeConfigs_result(event), &count)
            return try unsafe outcomes(results, count).first?.1.get() ?? []
        }
    }

    /// Changes some settings of a topic and leaves its others as they are.
    ///
    /// librdkafka 2.0.2 can only replace all settings of a topic at once, so those set before are read and sent again.
    /// Two such changes at the same moment may undo one another.
    public func setTopicConfigs(
        _ topic: String, _ changes: [String: String], timeoutMs: Int = 10_000
    ) throws(KafkaError) {
        var settings: [String: String] = [:]
        for (_, result) in try topicConfigs([topic], timeoutMs: timeoutMs) {
            for config in try result.get() where config.isSetOnTopic { settings[config.name] = config.value }
        }
        settings.merge(changes) { $1 }
        let call = try AdminCall(self, RD_KAFKA_ADMIN_OP_ALTERCONFIGS, timeoutMs: timeoutMs, place: "set configs")
        var request = unsafe rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic)
        defer { unsafe rd_kafka_ConfigResource_destroy(request) }
        for (name, value) in settings.sorted(by: { $0.key < $1.key }) {
            let code = unsafe rd_kafka_ConfigResource_set_config(request, name, value)
            if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError(code, place: "set configs \(topic): \(name)") }
        }
        unsafe rd_kafka_AlterConfigs(handle.raw, &request, 1, call.options, call.queue)
        try unsafe call.answer { event throws(KafkaError) in
            var count = 0
            let results = unsafe rd_kafka_AlterConfigs_result_resources(
                rd_kafka_event_AlterConfigs_result(event), &count)
            for (topic, result) in unsafe outcomes(results, count) {
                if case .failure(let error) = result {
                    throw KafkaError(error.code, error.message, place: "set configs \(topic)")
                }
            }
        }
    }

    private func outcomes(
        _ results: UnsafeMutablePointer<OpaquePointer?>?, _ count: Int
    ) -> [(topic: String, Result<[TopicConfig], KafkaError>)] {
        guard let results = unsafe results else { return [] }
        return (0..<count).map { index in
            let result = unsafe results[index]
            let topic = unsafe adminString(rd_kafka_ConfigResource_name(result))
            let code = unsafe rd_kafka_ConfigResource_error(result)
            if code != RD_KAFKA_RESP_ERR_NO_ERROR {
                let message = unsafe adminString(rd_kafka_ConfigResource_error_string(result))
                return (topic, .failure(KafkaError(code, message: message, place: "configs of \(topic)")))
            }
            var entryCount = 0
            let entries = unsafe rd_kafka_ConfigResource_configs(result, &entryCount)
            let configs = (0..<entryCount).compactMap { index -> TopicConfig? in
                guard let entry = unsafe entries?[index] else { return nil }
                return unsafe TopicConfig(
                    name: adminString(rd_kafka_ConfigEntry_name(entry)),
                    value: rd_kafka_ConfigEntry_value(entry).map { unsafe String(cString: $0) },
                    isSetOnTopic: rd_kafka_ConfigEntry_source(entry) == RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG)
            }
            return (topic, .success(configs.sorted { $0.name < $1.name }))
        }
    }
}
