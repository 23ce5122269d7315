internal import System
public import Wire

extension KafkaConfiguration {
    /// Which logs stand under these names, asked of the brokers now; in the order of the names. nil where the brokers tell no
    /// topic ids (Apache Kafka before 2.8), or where only librdkafka reaches them, which does not tell them (2.0.2). Throws
    /// when a topic does not exist.
    ///
    /// For who compares a kept position's log before the position is used. A connection of its own, so it costs some
    /// milliseconds.
    public func identities(
        of topics: [String], timeoutMs: Int = 5000, log: KafkaLogSink? = nil
    ) throws(KafkaError) -> [LogIdentity?] {
        guard Cluster.serves(self) else { return topics.map { _ in nil } }
        return try TopicQuestion.ask(topics, self, log, Deadline(afterMs: timeoutMs)).map(\.log)
    }
}

/// Asks the brokers what they know of topics, and waits for it: for who has no client that knows.
final class TopicQuestion: ClusterClient {
    let topicNames: [String]
    private let cluster: Cluster
    private var answers: [String: MetadataAnswer.Topic] = [:]

    static func ask(
        _ topics: [String], _ configuration: KafkaConfiguration, _ log: KafkaLogSink?, _ deadline: Deadline
    ) throws(KafkaError) -> [MetadataAnswer.Topic] {
        let loop: EventLoop
        do throws(SystemError) { loop = try EventLoop() } catch {
            throw KafkaError(.other, "\(error)", place: "topic ids")
        }
        loop.adopt()
        defer { loop.close() }
        let question = TopicQuestion(topics, Cluster(configuration, on: loop, log: log))
        return try question.ask(deadline)
    }

    private init(_ topics: [String], _ cluster: Cluster) {
        topicNames = topics
        self.cluster = cluster
        cluster.client = self
    }

    private func ask(_ deadline: Deadline) throws(KafkaError) -> [MetadataAnswer.Topic] {
        let place = "topic ids of \(topicNames.joined(separator: ","))"
        defer { cluster.reset() }
        while true {
            let known = topicNames.compactMap { answers[$0] }
            if known.count == topicNames.count { return known }
            guard !deadline.hasPassed else { throw KafkaError(.transport, "no broker answers", place: place) }
            cluster.askMetadata()
            cluster.loop.runOnce(timeoutMs: min(10, Int(deadline.remainingMs)))
            cluster.checkTimeouts()
            if let missing = answers.values.first(where: { $0.error == 3 }) {
                throw KafkaError(.unknownTopicOrPartition, "no such topic: \(missing.name)", place: place)
            }
        }
    }

    func learned(_ topic: MetadataAnswer.Topic) {
        // Any other error passes: the topic is being made, or its leader elected.
        if topic.error == 0 || topic.error == 3 { answers[topic.name] = topic }
    }

    func answered(_ answer: BrokerLink.Answer, by link: BrokerLink) {}
    func lost(_ question: BrokerLink.Question) {}
    func wake() {}
}
