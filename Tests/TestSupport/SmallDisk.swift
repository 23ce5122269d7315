import Foundation
import System

/// A file system of a few megabytes, which can really be full. Only root may mount one; `nil` for others.
public final class SmallDisk {
    public let directory = NSTemporaryDirectory() + TestKafka.unique("fanout-disk")
    private var ballast: String { directory + "/ballast" }

    public init?(megabytes: Int) throws {
        guard CurrentProcess.isRoot else { return nil }
        try Directory.create(directory)
        let mounted = try ChildProcess.run(
            "mount", ["-t", "tmpfs", "-o", "size=\(megabytes)m", "fanout-test", directory])
        guard mounted.exit.isSuccess else {
            try Directory.removeAll(directory)
            return nil
        }
    }

    deinit {
        _ = try? ChildProcess.run("umount", ["--lazy", directory])
        try? Directory.removeAll(directory)
    }

    /// Takes all the space there is but so much.
    public func fill(leaving kilobytes: Int = 0) throws {
        let room = try FileManager.default.attributesOfFileSystem(forPath: directory)[.systemFreeSize] as? Int ?? 0
        let wanted = room - kilobytes << 10
        guard wanted > 0 else { return }
        let file = try File(ballast, .readWrite, create: .ifMissing)
        let size = try file.size
        try file.truncate(to: size + Int64(wanted))
        try file.preallocate(offset: size, count: Int64(wanted))
    }

    /// Gives the space back.
    public func clear() throws { try File.remove(ballast) }
}
