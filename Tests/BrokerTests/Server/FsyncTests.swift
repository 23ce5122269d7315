import Foundation
import System
import TestSupport
import Testing
import Wire

@testable import Broker

/// What `--fsync` promises, of a broker whose disk takes as long as the test wants: the call that brings data to the disk
/// (`fdatasync`) is held up inside the real program.
@Suite struct FsyncTests {
    /// Linked in front of the C library of the broker. While the test has locked the file `GATE` no call ends; `GATE.waiting`
    /// is there as soon as one waits.
    private static let source = """
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/file.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int fdatasync(int file) {
            char waiting[4096];
            snprintf(waiting, sizeof waiting, "%s.waiting", getenv("GATE"));
            int gate = open(getenv("GATE"), O_RDONLY | O_CLOEXEC);
            if (flock(gate, LOCK_SH | LOCK_NB) != 0) {
                close(open(waiting, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
                flock(gate, LOCK_SH);
            }
            close(gate);
            return syscall(SYS_fdatasync, file);
        }
        """

    /// A broker with a gate before its disk.
    private final class Gated {
        let directory: String
        let broker: BrokerProcess
        private let gate: FileHandle
        private var waiting: String { directory + "/gate.waiting" }

        init(_ fsync: String) throws {
            directory = try Directory.createTemporary()
            let library = directory + "/gate.so"
            try File.replaceAtomically(directory + "/gate.c", with: Array(FsyncTests.source.utf8))
            let compiled = try ChildProcess.run(
                "clang", ["-shared", "-fPIC", "-o", library, directory + "/gate.c"])
            try #require(compiled.exit.isSuccess, "\(compiled.error)")
            try File.replaceAtomically(directory + "/gate", with: [])
            gate = try FileHandle(forUpdating: URL(filePath: directory + "/gate"))
            broker = try BrokerProcess(
                ["--fsync", fsync, "--partitions", "1"],
                environment: ["LD_PRELOAD": library, "GATE": directory + "/gate"])
        }

        deinit {
            broker.kill()
            try? Directory.removeAll(directory)
        }

        func shut() {
            try? File.remove(waiting)
            #expect(flock(gate.fileDescriptor, LOCK_EX) == 0)
        }
        func open() { #expect(flock(gate.fileDescriptor, LOCK_UN) == 0) }
        var isWaitedFor: Bool { File.exists(waiting) }

        func makeTopic() throws {
            let peer = try RawClient(port: UInt16(broker.port))
            // Metadata of a topic that is not there makes it.
            let made = peer.ask(3, 4) { writer in
                writer.array(["t"]) { $0.string($1) }
                writer.bool(true)
            }
            #expect(made != nil)
        }
    }

    private static func produce(acks: Int16) -> [UInt8] {
        RawClient.request(0, 3) { writer in
            writer.nullableString(nil)
            writer.int16(acks)
            writer.int32(1000)
            writer.array(["t"]) { writer, topic in
                writer.string(topic)
                writer.array([Batches.batch(values: ["value"])]) { writer, batch in
                    writer.int32(0)
                    writer.byteArray(batch)
                }
            }
        }
    }

    @Test(arguments: [("always", -1), ("always", 1), ("group", -1)])
    func `what waits for the disk is answered when the disk has it and not before`(fsync: String, acks: Int16) throws {
        let gated = try Gated(fsync)
        try gated.makeTopic()
        let peer = try RawClient(port: UInt16(gated.broker.port))
        // It works while nothing is in the way.
        peer.send(Self.produce(acks: acks))
        #expect(peer.receiveFrame(seconds: 60) != nil)
        for _ in 0..<3 {
            gated.shut()
            peer.send(Self.produce(acks: acks))
            #expect(eventually(seconds: 60) { gated.isWaitedFor })
            #expect(peer.receiveFrame(seconds: 1) == nil)
            gated.open()
            #expect(peer.receiveFrame(seconds: 60) != nil)
        }
        // What was not answered yet when it died may be there or not; what was, is.
        gated.shut()
        peer.send(Self.produce(acks: acks))
        gated.broker.kill()
        gated.open()
        try gated.broker.restart()
        let reader = try RawClient(port: UInt16(gated.broker.port))
        #expect(try #require(latest(reader)) >= 4)
    }

    @Test(arguments: ["interval:1", "never"])
    func `what does not wait for the disk is answered before`(fsync: String) throws {
        let gated = try Gated(fsync)
        try gated.makeTopic()
        let peer = try RawClient(port: UInt16(gated.broker.port))
        gated.shut()
        for round in 1...20 {
            peer.send(Self.produce(acks: -1))
            #expect(peer.receiveFrame(seconds: 60) != nil)
            // And shown.
            #expect(latest(peer) == Int64(round))
        }
        // Only one of them brings it there at all.
        if fsync != "never" { #expect(eventually(seconds: 60) { gated.isWaitedFor }) }
        #expect(gated.isWaitedFor == (fsync != "never"))
        // The kernel has it: the end of the process changes nothing.
        gated.broker.kill()
        gated.open()
        try gated.broker.restart()
        let reader = try RawClient(port: UInt16(gated.broker.port))
        #expect(latest(reader) == 20)
    }

    private func latest(_ peer: RawClient) -> Int64? {
        let answer = peer.ask(2, 1) { writer in
            writer.int32(-1)
            writer.array(["t"]) { writer, topic in
                writer.string(topic)
                writer.array([Int64(-1)]) { writer, time in
                    writer.int32(0)
                    writer.int64(time)
                }
            }
        }
        guard let answer, answer.count >= 8 else { return nil }
        return answer.span.bigEndian(at: answer.count - 8)
    }
}
