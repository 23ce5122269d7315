import Foundation
import Ingest
import TestSupport
import Testing
import WebSocket
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

    @Test(
        .enabled(if: hasPython, "scripts/setup makes the Python environment"),
        arguments: [("holiday.png", "image/png"), ("ä b/c%2F&+?#.bin", "application/octet-stream")])
    func `media go to a store that nobody here wrote and come back, by links that are good for nothing else`(
        name: String, type: String
    ) throws {
        let store = try FanoutProcess(
            [Self.root.appending(path: "Tests/Interop/media_store.py").path, "media", "AKEY", "the/secret+key"],
            program: Self.python)
        defer { store.kill() }
        #expect(store.waitForOutput("\n", seconds: 60), "\(store.text)")
        let port = try #require(store.text.firstMatch(of: /^(\d+)$/.anchorsMatchLineEndings())).1
        let bench = try Bench {
            $0.media = MediaStore(
                endpoint: "http://127.0.0.1:\(port)", bucket: "media", region: "us-east-1", accessKey: "AKEY",
                secretKey: "the/secret+key")
        }
        let text = "a picture's worth"
        let ask = ["name": name, "type": type, "bytes": text.utf8.count] as [String: Any]
        let body = String(decoding: try JSONSerialization.data(withJSONObject: ask), as: UTF8.self)
        let reply = try bench.http("POST", "/v1/media", token: bench.token(.random()), body: body)
        #expect(reply.status == 201)
        let links = try #require(try JSONSerialization.jsonObject(with: Data(reply.body)) as? [String: String])
        let client = try FanoutProcess(
            [
                Self.root.appending(path: "Tests/Interop/media_client.py").path, try #require(links["put"]),
                try #require(links["get"]), type, text,
            ], program: Self.python)
        #expect(client.waitForExit(seconds: 60) == 0, "\(client.text)\n\(store.text)")
        #expect(client.text.contains("everything holds"))
    }
}
