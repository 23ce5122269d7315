import Foundation
import TestSupport
import Testing

/// What stands in `ops/` and `kafka/compose.yml` is held to what the program has.
@Suite struct OperationsFilesTests {
    private static let root = WebClientTests.root

    private static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appending(path: path), encoding: .utf8)
    }

    @Test func `Prometheus accepts the configuration and the rules, and the rules pass their tests`() throws {
        for command in [
            ["promtool", "check", "config", "ops/prometheus/prometheus.yml"],
            ["promtool", "check", "rules", "--lint=all", "--lint-fatal", "ops/prometheus/fanout.rules.yml"],
            ["promtool", "test", "rules", "ops/prometheus/fanout.tests.yml"],
        ] {
            let (status, text) = try WebClientTests.run(command)
            #expect(status == 0, "\(command.joined(separator: " ")): \(text)")
        }
    }

    @Test func `every command line in the operations files is one that the program takes`() throws {
        var commandLines: [(file: String, words: [String])] = []
        for file in try FileManager.default.contentsOfDirectory(atPath: Self.root.appending(path: "ops/systemd").path)
        where file.hasSuffix(".service") {
            for match in try Self.text("ops/systemd/\(file)").matches(of: /ExecStart=\/usr\/bin\/fanout (.+)/) {
                commandLines.append((file, match.1.split(separator: " ").map(String.init)))
            }
        }
        for file in ["kafka/compose.yml", "ops/kubernetes/fanout.yaml"] {
            let text = try Self.text(file)
            for match in text.matches(of: /(?:args|command): \[([^\]]+)\]|args:\n((?: +- ".*"\n)+)/) {
                let list = String(match.1 ?? match.2 ?? "")
                let words = list.matches(of: /"([^"]*)"/).map { String($0.1) }
                if words.first != "postgres", words.first != "CMD" { commandLines.append((file, words)) }
            }
        }
        #expect(commandLines.count >= 25)
        let overview = try FanoutProcess.run(["--help"]).text
        for (file, words) in commandLines {
            let command = try #require(words.first)
            guard overview.contains("\n  \(command) ") else {
                Issue.record("\(file): there is no command \(command)")
                continue
            }
            let help = try FanoutProcess.run([command, "--help"]).text
            for word in words where word.hasPrefix("--") {
                let option = word.prefix { $0 != "=" }
                #expect(
                    help.contains(try Regex("\\n  \(option)[ \\n]")), "\(file): fanout \(command) has no \(option)")
            }
        }
    }

    @Test func `the dashboard is well-formed: every panel has its place and its queries`() throws {
        let data = try Data(contentsOf: Self.root.appending(path: "ops/grafana/fanout.json"))
        let dashboard = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        let panels = try #require(dashboard["panels"] as? [[String: Any]])
        var taken: Set<String> = []
        for panel in panels {
            let title = try #require(panel["title"] as? String)
            let place = try #require(panel["gridPos"] as? [String: Int])
            for x in (place["x"] ?? 0)..<(place["x"] ?? 0) + (place["w"] ?? 0) {
                for y in (place["y"] ?? 0)..<(place["y"] ?? 0) + (place["h"] ?? 0) {
                    #expect(taken.insert("\(x) \(y)").inserted, "\(title) lies over another panel")
                }
            }
            if panel["type"] as? String != "row" {
                #expect((panel["targets"] as? [[String: Any]])?.isEmpty == false, "\(title) asks for nothing")
            }
        }
        #expect(panels.count > 20)
    }

    @Test func `metrics, their list, the dashboard and the alerts agree, in a real Prometheus fed by the whole system`()
        throws
    {
        let directory = FileManager.default.temporaryDirectory.appending(path: "fanout-operations-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let system = try FanoutProcess([
            "up", "--dir", directory.path + "/data", "--port", "0", "--kafka-port", "0", "--postgres-port", "0",
        ])
        defer { system.terminate(seconds: 40) }
        try #require(system.waitForOutput("Ctrl-C stops", seconds: 90), "\(system.text)")
        let chat = try #require(system.text.firstMatch(of: /http:\/\/([0-9.:]+)\/metrics/)).1
        let stages = system.text.matches(of: /([a-z]+) :([0-9]+)/).map { "\($0.1)=127.0.0.1:\($0.2)" }
        #expect(stages.count == 7)
        let (status, text) = try WebClientTests.run(
            [".venv/bin/python", "ops/check.py", "chat=\(chat)"] + stages)
        print(text)
        #expect(status == 0, "\(text)\n\(system.text)")
    }
}
