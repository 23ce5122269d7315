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
            "--web", WebClientTests.root.path + "/web",
        ])
        defer { system.terminate(seconds: 40) }
        try #require(system.waitForOutput("Ctrl-C stops", seconds: 90), "\(system.text)")
        let address = try #require(system.text.firstMatch(of: /open +(http:\/\/[0-9.:]+)/)).1
        let chat = try Self.chatServer(of: system.pid)
        let pictures = ProcessInfo.processInfo.environment["FANOUT_PICTURES"] ?? directory.path + "/pictures"

        let (status, text) = try WebClientTests.run([
            ".venv/bin/python", "web/tests/browser.py", String(address), "--pictures", pictures,
            "--chat-pid", "\(chat.pid)", "--ops-token", chat.adminToken,
        ])
        print(text)
        #expect(status == 0, "\(text)\n\(system.text)")
        #expect(text.contains("all steps passed"))
    }

    /// The process to kill, and a token made with the key that it was given.
    private static func chatServer(of parent: Int32) throws -> (pid: Int32, adminToken: String) {
        for name in try FileManager.default.contentsOfDirectory(atPath: "/proc") {
            guard let pid = Int32(name),
                let status = try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8),
                status.contains("PPid:\t\(parent)\n"),
                let arguments = try? String(contentsOfFile: "/proc/\(pid)/cmdline", encoding: .utf8),
                arguments.split(separator: "\0").dropFirst().first == "chat"
            else { continue }
            let environment = try String(contentsOfFile: "/proc/\(pid)/environ", encoding: .utf8)
            let key = try #require(environment.firstMatch(of: /FANOUT_TOKEN_KEY=([^\0]+)/)).1
            let (_, token) = try FanoutProcess.run(
                ["token", "--user", UUID().uuidString.lowercased(), "--scope", "admin"],
                environment: ["FANOUT_TOKEN_KEY": String(key)])
            return (pid, token.trimmingCharacters(in: .whitespacesAndNewlines))
        }
        throw CocoaError(.fileNoSuchFile)
    }
}
