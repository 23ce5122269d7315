import System
import Testing

@Suite struct FileTests {
    let directory: String

    init() throws {
        directory = try Directory.createTemporary()
    }

    private func cleanUp() { try? Directory.removeAll(directory) }

    @Test func `what is written at a place is read at that place`() throws {
        defer { cleanUp() }
        let file = try File(directory + "/data", .readWrite, create: .exclusive)
        try file.write(Array("hello world".utf8), at: 0)
        try file.write(Array("W".utf8), at: 6)
        #expect(try file.size == 11)
        #expect(String(decoding: try file.read(at: 6, count: 100), as: UTF8.self) == "World")
        try file.truncate(to: 5)
        #expect(String(decoding: try file.read(at: 0, count: 100), as: UTF8.self) == "hello")
        #expect(try file.read(at: 5, count: 10).isEmpty)
        try file.synchronize()
    }

    @Test func `space kept in advance does not show in the size`() throws {
        defer { cleanUp() }
        let file = try File(directory + "/data", .write, create: .exclusive)
        try file.preallocate(offset: 0, count: 1 << 20)
        #expect(try file.size == 0)
    }

    @Test func `what has been written is told from what is only reserved`() throws {
        defer { cleanUp() }
        let file = try File(directory + "/data", .readWrite, create: .exclusive)
        try file.truncate(to: 1 << 20)
        try file.preallocate(offset: 0, count: 1 << 20)
        #expect(try file.firstUnwritten(from: 0) == 0)
        try file.write([UInt8](repeating: 1, count: 100_000), at: 0)
        try file.synchronize()
        #expect((100_000..<200_000).contains(try file.firstUnwritten(from: 0)))
        try file.write([UInt8](repeating: 1, count: 1 << 20), at: 0)
        #expect(try file.firstUnwritten(from: 0) == 1 << 20)
    }

    @Test func `replacing leaves the new content and no other file`() throws {
        defer { cleanUp() }
        let path = directory + "/config"
        try File.replaceAtomically(path, with: "old")
        try File.replaceAtomically(path, with: "new", permissions: 0o600)
        #expect(try File.text(of: path) == "new")
        #expect(try Directory.list(directory) == ["config"])
    }

    @Test func `a replacement that fails leaves the old content and no rest`() throws {
        defer { cleanUp() }
        try Directory.create(directory + "/taken/inner")
        let error = #expect(throws: SystemError.self) { try File.replaceAtomically(directory + "/taken", with: "x") }
        #expect(error?.operation == "rename")
        #expect(try Directory.list(directory) == ["taken"])
    }

    @Test func `a second owner of a lock is refused, and gets it once the first is gone`() throws {
        defer { cleanUp() }
        let path = directory + "/lock"
        do {
            let first = try File(path, .write, create: .ifMissing)
            try first.lock()
            let second = try File(path, .write, create: .ifMissing)
            let error = #expect(throws: SystemError.self) { try second.lock(holder: "another broker") }
            #expect(error?.code == .locked)
            #expect(error?.description == "lock \(path): another broker holds it")
        }
        // A child forked while the first was open may hold its copy for a moment, until its exec closes it.
        try eventually {
            let third = try File(path, .write)
            try third.lock()
        }
    }

    @Test func `errors name the path and the reason`() throws {
        defer { cleanUp() }
        let missing = #expect(throws: SystemError.self) { _ = try File(directory + "/none") }
        #expect(missing?.code == .notFound)
        #expect(missing?.errno == 2)
        #expect(missing?.description == "open \(directory)/none: No such file or directory")
        try File.replaceAtomically(directory + "/there", with: "")
        let exists = #expect(throws: SystemError.self) {
            _ = try File(directory + "/there", .write, create: .exclusive)
        }
        #expect(exists?.code == .exists)
        let large = #expect(throws: SystemError.self) { try File.contents(of: "/proc/self/maps", maxBytes: 10) }
        #expect(large?.code == .tooLarge)
    }

    @Test func `directories are made with their parents, listed, and removed with their content`() throws {
        defer { cleanUp() }
        try Directory.create(directory + "/a/b/c")
        try Directory.create(directory + "/a/b/c")
        try File.replaceAtomically(directory + "/a/b/file", with: "1")
        #expect(try Directory.list(directory + "/a/b") == ["c", "file"])
        try Directory.removeAll(directory + "/a")
        #expect(try Directory.list(directory) == [])
        #expect(try Directory.space(at: directory).totalBytes > 0)
    }
}

func eventually(deadlineMs: Int = 10_000, _ attempt: () throws -> Void) throws {
    let end = SystemClock().monotonicNs + UInt64(deadlineMs) * 1_000_000
    while true {
        do { return try attempt() } catch { if SystemClock().monotonicNs > end { throw error } }
    }
}
