internal import CRdKafka

extension ConsumerOptions {
    /// How soon a group should notice that a member has died: what people wait for, then.
    public static let sessionTimeoutMsWanted = 3_000

    /// Sets the session timeout that was asked for; else the one that is wanted, if the brokers allow it. Heartbeats come ten
    /// times as often, since with them members learn that another has left.
    public mutating func setSessionTimeout(
        _ askedMs: Int?, _ configuration: KafkaConfiguration, log: KafkaLogSink? = nil
    ) {
        sessionTimeoutMs = askedMs ?? max(Self.sessionTimeoutMsWanted, Self.sessionTimeoutMsMin(configuration, log))
        heartbeatIntervalMs = max(100, sessionTimeoutMs / 10)
    }

    /// What Apache Kafka allows if nobody has told it otherwise: `group.min.session.timeout.ms`.
    private static let sessionTimeoutMsMinOfKafka = 6_000

    private static func sessionTimeoutMsMin(_ configuration: KafkaConfiguration, _ log: KafkaLogSink?) -> Int {
        do {
            let admin = try Admin(configuration)
            defer { admin.close(deadlineMs: 500) }
            return try admin.brokerSetting("group.min.session.timeout.ms", timeoutMs: 3_000).flatMap { Int($0) } ?? 0
        } catch {
            let message = "the brokers do not tell their shortest session timeout; Apache Kafka's is taken: \(error)"
            log?(KafkaLogLine(level: .warning, facility: "SESSION", message: message))
            return sessionTimeoutMsMinOfKafka
        }
    }
}

extension Admin {
    /// One setting of a broker; nil where it has no such setting.
    func brokerSetting(_ name: String, timeoutMs: Int) throws(KafkaError) -> String? {
        let brokers = try handle.metadata(ofAllTopics: false, timeoutMs: timeoutMs).brokers
        guard let broker = brokers.first else { return nil }
        let configs = try configs(of: "\(broker.id)", RD_KAFKA_RESOURCE_BROKER, timeoutMs: timeoutMs)
        return configs.first { $0.name == name }?.value
    }
}
