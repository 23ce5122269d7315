import System
import Testing

@Suite struct SendFileTests {
    let directory: String
    let content = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7 / 5) }

    init() throws {
        directory = try Directory.createTemporary()
        try File.replaceAtomically(directory + "/data", with: content)
    }

    private func file() throws -> SharedFile { SharedFile(try File(directory + "/data")) }

    @Test func `file ranges leave in their place between writes`() throws {
        defer { try? Directory.removeAll(directory) }
        let local = try Local()
        let client = try Client(on: local.loop, port: local.port)
        try local.loop.runUntil { local.stream != nil }
        let file = try file()
        var expected: [UInt8] = []
        for index in 0..<10 {
            local.stream?.write(Array("[\(index)".utf8))
            local.stream?.sendFile(file, offset: Int64(index * 1000), count: index * 100_000)
            local.stream?.write(copying: [UInt8(ascii: "]")].span)
            expected += Array("[\(index)".utf8) + content[(index * 1000)..<(index * 101_000)] + [UInt8(ascii: "]")]
        }
        try local.loop.runUntil { client.received.count == expected.count }
        #expect(client.received == expected)
    }

    @Test func `a file larger than a socket's buffer reaches a reader that pauses`() throws {
        defer { try? Directory.removeAll(directory) }
        let local = try Local()
        let client = try Client(on: local.loop, port: local.port)
        try local.loop.runUntil { local.stream != nil }
        client.stream.pauseReading()
        let file = try file()
        for _ in 0..<8 { local.stream?.sendFile(file, offset: 0, count: content.count) }
        try local.loop.runUntil { local.stream?.isBlocked ?? false }
        // Ranges of files hold no memory, so they do not count against the bytes of the limit.
        #expect(local.stream?.write([1]) == .queued)
        client.stream.resumeReading()
        try local.loop.runUntil { client.received.count == 8 * content.count + 1 }
        #expect(client.received.prefix(content.count) == content[...])
        #expect(client.received.suffix(1) == [1])
    }

    @Test func `a file shorter than its range fails the stream`() throws {
        defer { try? Directory.removeAll(directory) }
        let local = try Local()
        let client = try Client(on: local.loop, port: local.port)
        try local.loop.runUntil { local.stream != nil }
        local.stream?.sendFile(try file(), offset: Int64(content.count - 10), count: 20)
        try local.loop.runUntil { !local.closed.isEmpty }
        guard case .failed(let error) = local.closed[0] else {
            Issue.record("\(local.closed)")
            return
        }
        #expect(error.code == .corrupt)
        #expect(error.message == "the file is shorter than the range to send")
        withExtendedLifetime(client) {}
    }
}
