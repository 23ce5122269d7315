import Foundation
import TestSupport
import Testing

/// Stages as processes, two of a group: who goes, and who has the partitions then.
@Suite(.serialized) struct GroupProcessTests {
    /// A stage that shares partitions, and the option that names a process of it.
    struct Stage: Sendable, CustomTestStringConvertible {
        let command: String
        let nameOption: String
        var testDescription: String { command }
    }

    static let stages = [
        Stage(command: "join", nameOption: "--name"), Stage(command: "delivery", nameOption: "--name"),
        Stage(command: "history", nameOption: "--instance"),
    ]

    private final class Scene {
        let broker: BrokerProcess
        let environment: [String: String]

        init() throws {
            broker = try BrokerProcess()
            environment = [
                "FANOUT_KAFKA": broker.address, "FANOUT_LINK_SECRET": "a-link-secret-of-at-least-thirty-two-bytes",
                "FANOUT_POSTGRES": try PostgresCluster.shared().freshDatabase(migrated: true),
            ]
            let made = try FanoutProcess.run(["topics", "create", "--partitions", "2"], environment: environment)
            #expect(made.status == 0, "\(made.text)")
        }

        deinit { broker.kill() }

        func start(_ stage: Stage, _ name: String, _ more: [String] = []) throws -> FanoutProcess {
            try FanoutProcess([stage.command, stage.nameOption, name] + more, environment: environment)
        }
    }

    /// What each stage says when it has both partitions.
    private func hasAll(_ process: FanoutProcess) -> Bool {
        guard
            let last = process.text.split(separator: "\n").last(where: {
                $0.contains("assigned") || $0.contains("revoked") || $0.contains("released")
            })
        else { return false }
        return last.contains("[0, 1]") && last.contains("assigned") || last.contains("assigned") && last.contains("=2")
    }

    @Test(arguments: stages)
    func `a process whose name is taken by another ends with status 6`(_ stage: Stage) throws {
        let scene = try Scene()
        let first = try scene.start(stage, "one")
        #expect(first.waitForOutput("assigned"), "\(first.text)")
        let second = try scene.start(stage, "one")
        defer { second.kill() }
        #expect(first.waitForExit() == 6, "\(first.text)")
        #expect(first.text.contains("another process has joined the group under this one's name"), "\(first.text)")
        #expect(eventually { self.hasAll(second) }, "\(second.text)")
    }

    @Test(arguments: stages.prefix(2))
    func `a process that is stopped hands its partitions to one that is there, however long sessions last`(
        _ stage: Stage
    ) throws {
        let scene = try Scene()
        let first = try scene.start(stage, "one", ["--session-timeout", "120s"])
        #expect(eventually { self.hasAll(first) }, "\(first.text)")
        let second = try scene.start(stage, "two", ["--session-timeout", "120s"])
        #expect(second.waitForOutput("assigned"), "\(second.text)")
        defer { second.kill() }
        #expect(first.terminate() == 0, "\(first.text)")
        #expect(eventually { self.hasAll(second) }, "\(first.text)\n\(second.text)")
    }
}
