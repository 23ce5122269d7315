public import Wire

/// Whether what a cluster acknowledges outlives one of its brokers.
///
/// `acks=all` waits for the replicas that are in sync, and a replica that is slow or away is not. With Kafka's default of
/// `min.insync.replicas=1` the leader alone may be left: what it acknowledges then is lost with it. With
/// `unclean.leader.election.enable=true` a replica that lacks what was acknowledged may become the leader, and its offsets are
/// given to other records.
public struct TopicDurability: Sendable, Equatable {
    public var topic: String
    /// Of the partition that has the fewest.
    public var replicas: Int
    public var minInSync: Int
    public var isUncleanElectionAllowed: Bool

    public init(topic: String, replicas: Int, minInSync: Int, isUncleanElectionAllowed: Bool) {
        self.topic = topic
        self.replicas = replicas
        self.minInSync = minInSync
        self.isUncleanElectionAllowed = isUncleanElectionAllowed
    }

    public enum Fault: Sendable, Equatable, CaseIterable {
        case oneReplica, leaderAlone, uncleanElection

        var words: String {
            switch self {
            case .oneReplica:
                "one replica: what is acknowledged is lost with its broker; kafka-reassign-partitions.sh gives more"
            case .leaderAlone:
                "min.insync.replicas is 1: what is acknowledged may be with the leader alone, and is lost with it; "
                    + "with 3 replicas, kafka-configs.sh --alter --topic NAME --add-config min.insync.replicas=2 mends it"
            case .uncleanElection:
                "unclean.leader.election.enable is true: a broker that lacks what was acknowledged may lead, and that is lost; "
                    + "kafka-configs.sh --alter --topic NAME --add-config unclean.leader.election.enable=false mends it"
            }
        }
    }

    /// On one broker there is nothing to choose: it keeps what it acknowledges by itself, or not.
    func has(_ fault: Fault, brokers: Int) -> Bool {
        guard brokers > 1 else { return false }
        return switch fault {
        case .oneReplica: replicas == 1
        case .leaderAlone: replicas > 1 && minInSync < 2
        case .uncleanElection: replicas > 1 && isUncleanElectionAllowed
        }
    }

    /// What to set when a topic is made, where the number of its replicas is known.
    static func configs(replicationFactor: Int) -> [String: String] {
        switch replicationFactor {
        // With two, both would have to be there for each write: whoever chooses two chooses that a broker may be away.
        case ...1: [:]
        case 2: ["unclean.leader.election.enable": "false"]
        default: ["min.insync.replicas": "2", "unclean.leader.election.enable": "false"]
        }
    }

    /// One problem for each kind, with the topics that have it.
    public static func problems(_ topics: [TopicDurability], brokers: Int) -> [TopicPlan.Problem] {
        Fault.allCases.compactMap { fault in
            let names = topics.filter { $0.has(fault, brokers: brokers) }.map(\.topic)
            return names.isEmpty ? nil : .durability(fault, topics: names)
        }
    }
}

extension TopicPlan {
    /// What a stage says when it starts: nothing of how the topics are, but what can be lost.
    public func durabilityProblems(
        _ admin: Admin, names: Names, timeoutMs: Int = 30_000
    ) throws(KafkaError) -> [Problem] {
        let metadata = try admin.metadata(timeoutMs: timeoutMs)
        guard metadata.brokers.count > 1 else { return [] }
        let wanted = Set(entries.map { names[$0.topic] })
        let present = metadata.topics.map(\.name).filter(wanted.contains)
        return durabilityProblems(metadata, try admin.topicConfigs(present, timeoutMs: timeoutMs))
    }

    func durabilityProblems(
        _ metadata: ClusterMetadata, _ settings: [(topic: String, Result<[TopicConfig], KafkaError>)]
    ) -> [Problem] {
        let replicas = Dictionary(
            metadata.topics.map { ($0.name, $0.partitions.map(\.replicas.count).min() ?? 0) }
        ) { $1 }
        let topics = settings.compactMap { topic, result -> TopicDurability? in
            guard let replicas = replicas[topic], case .success(let configs) = result else { return nil }
            let value = { (name: String) in configs.first { $0.name == name }?.value }
            return TopicDurability(
                topic: topic, replicas: replicas, minInSync: value("min.insync.replicas").flatMap { Int($0) } ?? 1,
                isUncleanElectionAllowed: value("unclean.leader.election.enable") == "true")
        }
        return TopicDurability.problems(topics, brokers: metadata.brokers.count)
    }
}
