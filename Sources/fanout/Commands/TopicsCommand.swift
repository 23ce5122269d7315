import KafkaClient
import Runtime
import System
import Wire

extension Command {
    static let topics = Command(
        name: "topics",
        summary: "make, check or list the topics",
        operands: "create|check|describe",
        details: """
            create    makes the topics that are missing, then checks all of them
            check     compares a cluster with the list of topics; ends with 1 if the pipeline must not run on it
            describe  says what each topic is for
            """,
        options: Option.kafka + [
            Option("partitions", .integer(1...10_000), "create: partitions of each topic", standard: "16"),
            Option("chat-partitions", .integer(1...10_000), "create: of the topics by chat only"),
            Option("user-partitions", .integer(1...10_000), "create: of the topics by user only"),
            Option("replication", .integer(1...9), "create: how many brokers keep a topic; the cluster's default else"),
        ],
        run: { invocation in
            let options = invocation.options
            var plan = TopicPlan.standard
            switch invocation.operands {
            case ["describe"]:
                Output.standard(description(of: plan, invocation))
                return .success
            case ["create"]:
                let all = options.integer("partitions") ?? plan.count(of: .chat)
                plan.partitions[.chat] = options.integer("chat-partitions") ?? all
                plan.partitions[.user] = options.integer("user-partitions") ?? all
                let admin = try Admin(try invocation.kafka(clientID: "fanout-topics"))
                defer { _ = admin.close(deadlineMs: 2000) }
                let made = try plan.create(
                    admin, names: invocation.names, replicationFactor: options.integer("replication") ?? -1)
                if made.isEmpty {
                    invocation.log.info("all topics are there")
                } else {
                    invocation.log.info("topics made", ["topics": "\(made.joined(separator: " "))"])
                }
                return try check(plan, admin, invocation)
            case ["check"]:
                let admin = try Admin(try invocation.kafka(clientID: "fanout-topics"))
                defer { _ = admin.close(deadlineMs: 2000) }
                let code = try check(plan, admin, invocation)
                if code == .success { invocation.log.info("the topics are as they must be") }
                return code
            default: throw UsageError("say what to do: fanout topics create, check or describe")
            }
        })

    private static func check(_ plan: TopicPlan, _ admin: Admin, _ invocation: Invocation) throws -> ExitCode {
        let problems = try plan.problems(admin, names: invocation.names)
        for problem in problems {
            if problem.isFatal {
                invocation.log.error("\(problem)")
            } else {
                invocation.log.warning("\(problem)")
            }
        }
        return problems.contains(where: \.isFatal) ? .failure : .success
    }

    private static func description(of plan: TopicPlan, _ invocation: Invocation) -> String {
        plan.entries.map { entry in
            let configs = entry.configs.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            return """
                \(invocation.names[entry.topic])
                    \(entry.about)
                    written by: \(entry.writtenBy); key: \(entry.key); partitions: \(entry.side.rawValue) side
                    \(configs.joined(separator: " "))

                """
        }.joined()
    }
}
