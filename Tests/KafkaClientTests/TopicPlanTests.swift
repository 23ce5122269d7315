import Foundation
import KafkaClient
import TestSupport
import Testing
import Wire

private let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../kafka")

@Suite struct TopicPlanTests {
    @Test func `the list in the program is kafka/topics.json, and names every topic once`() throws {
        let text = try String(contentsOf: folder.appending(path: "topics.json"), encoding: .utf8)
        #expect(TopicPlan.json == text.trimmingCharacters(in: .newlines), "run kafka/embed")
        let topics = TopicPlan.standard.entries.map(\.topic)
        #expect(Set(topics) == Set(Topic.allCases) && topics.count == Topic.allCases.count)
    }

    @Test func `every topic has a schema whose examples the pipeline reads`() throws {
        for topic in Topic.allCases {
            let path = folder.appending(path: "schemas/\(topic.rawValue).schema.json")
            let schema = try #require(
                try JSONSerialization.jsonObject(with: Data(contentsOf: path)) as? [String: Any], "\(topic)")
            #expect(schema["title"] as? String == topic.rawValue)
            let examples = try #require(schema["examples"] as? [Any])
            #expect(!examples.isEmpty)
            for example in examples {
                let bytes = [UInt8](try JSONSerialization.data(withJSONObject: example))
                switch topic {
                case .incoming: _ = try IncomingMessage(decoding: bytes.span)
                case .signals: _ = try Signal(decoding: bytes.span)
                case .members, .users: _ = try ChangeEnvelope(decoding: bytes.span)
                case .messages: _ = try AcceptedMessage(decoding: bytes.span)
                case .deliveries: _ = try DeliveryRecord(decoding: bytes.span)
                case .presence: _ = try PresenceRecord(decoding: bytes.span)
                case .push: _ = try PushRecord(decoding: bytes.span)
                case .instances: _ = try InstanceRecord(decoding: bytes.span)
                case .rejected, .pushDead: break
                }
            }
        }
    }

    @Test func `a problem that stops the pipeline says the way out, and an operator's own choice is left alone`() {
        typealias Problem = TopicPlan.Problem
        #expect("\(Problem.missing("a"))".contains("fanout topics create"))
        for problem in [Problem.partitions("a", 2, expected: 1), .unequal(.chat, ["a has 1", "b has 16"])] {
            #expect("\(problem)".contains("kafka-topics.sh --delete") && "\(problem)".contains("fanout topics create"))
        }
        let policy = Problem.config("a", name: "cleanup.policy", value: "delete", expected: "compact")
        #expect("\(policy)".contains("--topic a --add-config cleanup.policy=compact"))
        let choice = Problem.config("a", name: "retention.ms", value: "1", expected: "2")
        #expect("\(choice)" == "a: retention.ms is 1, not 2")
    }

    @Test func `topics of three replicas are made so that no acknowledged record is with the leader alone`() {
        let made = TopicPlan.standard.missing([], names: Names(), replicationFactor: 3)
        #expect(made.count == TopicPlan.standard.entries.count)
        for topic in made {
            #expect(topic.configs["min.insync.replicas"] == "2", "\(topic.name)")
            #expect(topic.configs["unclean.leader.election.enable"] == "false", "\(topic.name)")
        }
        // One broker could not keep that, and with two replicas both would have to be there for each write.
        for replicas in [-1, 1, 2] {
            let made = TopicPlan.standard.missing([], names: Names(), replicationFactor: replicas)
            #expect(made.allSatisfy { $0.configs["min.insync.replicas"] == nil })
        }
    }

    @Test func `a cluster that may lose what it has acknowledged is told so, in a line for each kind of loss`() {
        func topic(_ name: String, _ replicas: Int, _ minInSync: Int, unclean: Bool = false) -> TopicDurability {
            TopicDurability(topic: name, replicas: replicas, minInSync: minInSync, isUncleanElectionAllowed: unclean)
        }
        let good = topic("good", 3, 2)
        #expect(TopicDurability.problems([good], brokers: 3) == [])
        let problems = TopicDurability.problems(
            [good, topic("one", 1, 1), topic("a", 3, 1), topic("b", 2, 1, unclean: true)], brokers: 3)
        #expect(
            problems == [
                .durability(.oneReplica, topics: ["one"]), .durability(.leaderAlone, topics: ["a", "b"]),
                .durability(.uncleanElection, topics: ["b"]),
            ])
        let isAnyFatal = problems.contains { $0.isFatal }
        #expect(!isAnyFatal)
        #expect("\(problems[1])".contains("min.insync.replicas=2") && "\(problems[1])".hasSuffix("(a, b)"))
        // The embedded broker is one, and has nothing to choose.
        #expect(TopicDurability.problems([topic("x", 1, 1, unclean: true)], brokers: 1) == [])
    }

    @Test func `topics are made once, and a cluster where they differ is refused`() throws {
        let kafka = try TestKafka.shared()
        let names = Names(prefix: TestKafka.unique("plan") + ".")
        let admin = try Admin(KafkaConfiguration(bootstrapServers: kafka.address))
        var plan = TopicPlan.standard
        (plan.partitions[.chat], plan.partitions[.user]) = (3, 2)
        #expect(try plan.problems(admin, names: names).count == plan.entries.count)
        #expect(try Set(plan.create(admin, names: names)) == Set(Topic.allCases.map { names[$0] }))
        #expect(try plan.problems(admin, names: names) == [])
        #expect(try plan.create(admin, names: names) == [])

        _ = try admin.growTopics([(names[.members], 4)])
        try admin.setTopicConfigs(names[.incoming], ["message.timestamp.type": "CreateTime"])
        try admin.setTopicConfigs(names[.push], ["retention.ms": "1000"])
        // A cluster's brokers hear of it a moment later.
        var problems: [TopicPlan.Problem] = []
        #expect(
            try eventually {
                problems = try plan.problems(admin, names: names)
                return problems.count == 3
            })
        #expect(problems.filter(\.isFatal).count == 2, "\(problems)")
        _ = try admin.deleteTopics(Topic.allCases.map { names[$0] })
        admin.close(deadlineMs: 2000)
    }
}
