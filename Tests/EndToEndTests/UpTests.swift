import Foundation
import TestSupport
import Testing

@Suite(.serialized) struct UpTests {
    @Test
    func `one command runs the pipeline, every device gets every message once, and a second start finds its data`()
        throws
    {
        let system = try RunningSystem()
        defer { RunningSystem.remove(system.directory) }
        let first = try system.bench(["--chats", "5", "--members", "8", "--rate", "50", "--duration", "3s"])
        #expect(first.status == 0, "\(first.text)\n\(system.up.text)")
        #expect(system.stop() == 0, "\(system.up.text)")

        let again = try RunningSystem(directory: system.directory)
        let second = try again.bench(["--chats", "5", "--members", "8", "--window", "4", "--duration", "2s"])
        #expect(second.status == 0, "\(second.text)\n\(again.up.text)")
        #expect(again.stop() == 0)
    }

    @Test func `a port in use, another's directory, another version: one clear line each`() throws {
        let directory = NSTemporaryDirectory() + "fanout-up-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        defer { RunningSystem.remove(directory) }
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let broker = try BrokerProcess()
        let taken = try FanoutProcess.run(["up", "--dir", directory, "--port", "\(broker.port)"])
        #expect(taken.status == 1)
        #expect(
            taken.text
                == "fanout up: port \(broker.port), meant for the chat server, is in use; choose another with --port\n")

        try "9".write(toFile: directory + "/VERSION", atomically: true, encoding: .utf8)
        let version = try FanoutProcess.run(["up", "--dir", directory])
        #expect(version.status == 1 && version.text.contains("another version"), "\(version.text)")

        try FileManager.default.removeItem(atPath: directory + "/VERSION")
        try "mine".write(toFile: directory + "/letters", atomically: true, encoding: .utf8)
        let stranger = try FanoutProcess.run(["up", "--dir", directory])
        #expect(stranger.status == 1 && stranger.text.contains("holds other files (letters"), "\(stranger.text)")
        #expect(try String(contentsOfFile: directory + "/letters", encoding: .utf8) == "mine")
    }
}
