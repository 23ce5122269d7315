import Foundation
import TestSupport
import Testing

/// The whole system, with people in front of it: real browsers on `fanout up`. `web/tests/browser.py` tells the story.
@Suite(.serialized) struct BrowserTests {
    @Test func `people chat in browsers: receipts, presence, devices, groups, resume, a killed server`() throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "fanout-browser-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let system = try FanoutProcess([
            "up", "--dir", directory.path + "/data", "--port", "0", "--kafka-port", "0", "--postgres-port", "0",
            "--partitions", "4", "--web", WebClientTests.root.path + "/web",
        ])
        defer { system.terminate(seconds: 40) }
        try #require(system.waitForOutput("Ctrl-C stops", seconds: 90), "\(system.text)")
        let address = try #require(system.text.firstMatch(of: /open +(http:\/\/[0-9.:]+)/)).1
        let pictures = ProcessInfo.processInfo.environment["FANOUT_PICTURES"] ?? directory.path + "/pictures"
        let chat = try #require(Relative.descendants(of: system.pid).first { $0.command.contains(" chat ") })
        let adminToken = try String(contentsOfFile: directory.path + "/data/admin-token", encoding: .utf8)

        let (status, text) = try WebClientTests.run([
            ".venv/bin/python", "web/tests/browser.py", String(address), "--pictures", pictures,
            "--chat-pid", "\(chat.id)", "--ops-token", adminToken.trimmingCharacters(in: .whitespacesAndNewlines),
            "--bot-token", try Self.botToken(directory.path + "/data"),
        ])
        print(text)
        #expect(status == 0, "\(text)\n\(system.text)")
        #expect(text.contains("all steps passed"))
    }

    /// The third demo user, whom the rate limit does not hold back.
    private static func botToken(_ data: String) throws -> String {
        struct Person: Decodable { let user: String }
        let people = try JSONDecoder().decode(
            [Person].self, from: try Data(contentsOf: URL(filePath: data + "/demo-users.json")))
        let secrets = try String(contentsOfFile: data + "/secrets", encoding: .utf8)
        let key = try #require(secrets.firstMatch(of: /token-key=(\w+)/)).1
        let (_, token) = try FanoutProcess.run(
            ["token", "--user", people[2].user, "--scope", "bot"], environment: ["FANOUT_TOKEN_KEY": String(key)])
        return token.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
