import Foundation
import Testing

/// What is in `web/`, tested in its own language; `web/tests` holds the tests.
@Suite struct WebClientTests {
    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    @Test func `the client library and the pages pass their own tests`() throws {
        let tests = ["client", "metrics", "model", "types"].map { "web/tests/\($0).test.mjs" }
        let (status, text) = try Self.run(["node", "--test"] + tests)
        #expect(status == 0, "\(text)")
        #expect(text.contains(/# pass [1-9]/), "\(text)")
    }

    @Test func `every script in the page is a module that parses`() throws {
        let scripts = try FileManager.default.subpathsOfDirectory(atPath: Self.root.appending(path: "web").path)
            .filter { $0.hasSuffix(".js") }
        try #require(!scripts.isEmpty)
        for script in scripts {
            let (status, text) = try Self.run(["node", "--check", "web/\(script)"])
            #expect(status == 0, "\(text)")
        }
    }

    /// Runs a tool of the machine in the root of the sources and answers what it said.
    static func run(_ command: [String]) throws -> (status: Int32, text: String) {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = command
        process.currentDirectoryURL = root
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        process.standardInput = FileHandle.nullDevice
        try process.run()
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, text)
    }
}
