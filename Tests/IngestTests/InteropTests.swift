import Foundation
import Ingest
import TestSupport
import Testing
import Wire

/// Clients that nobody here wrote: Python's websockets and aiohttp, from the environment that scripts/setup makes.
@Suite(.serialized) struct InteropTests {
    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static let python = root.appending(path: ".venv/bin/python").path
    static var hasPython: Bool { FileManager.default.isExecutableFile(atPath: python) }

    @Test(.enabled(if: hasPython, "scripts/setup makes the Python environment"))
    func `websockets and aiohttp find a server they know`() throws {
        let bench = try Bench()
        let worker = try bench.worker()
        let user = UserID.random()
        let process = try FanoutProcess(
            [
                Self.root.appending(path: "Tests/Interop/chat_clients.py").path, "\(bench.server.port)", "\(user)",
                bench.token(user, scopes: "bot"),
            ], program: Self.python)
        var pushed: Set<UInt32> = []
        var offset: Int64 = 1000
        let event = #"{"type":"message","text":"\#(String(repeating: "x", count: 2000))"}"#
        try bench.wait("the clients are through", seconds: 60) {
            // Every new session gets its event, once.
            for number in worker.sessions.keys where pushed.insert(number).inserted {
                offset += 1
                worker.push(event, offset: offset, to: [user])
            }
            return !process.isRunning
        }
        let text = process.text
        #expect(process.waitForExit() == 0, "\(text)")
        #expect(text.contains("everything holds"), "\(text)")
    }
}
