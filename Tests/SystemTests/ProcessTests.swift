import Synchronization
import System
import Testing

@Suite struct ProcessTests {
    @Test func `a child's output, error and exit status come back`() throws {
        let result = try ChildProcess.run("sh", ["-c", "echo out; echo err >&2; exit 7"])
        #expect(result.exit == .status(7))
        #expect(result.output == "out\n")
        #expect(result.error == "err\n")
    }

    @Test func `a program that is missing is named, and one that cannot run says why`() throws {
        let missing = #expect(throws: SystemError.self) { try ChildProcess("no-such-program-here") }
        #expect(missing?.description == "start no-such-program-here: not found in PATH")
        let directory = #expect(throws: SystemError.self) { try ChildProcess("/tmp") }
        #expect(directory?.code == .permissionDenied)
    }

    @Test func `a child that a signal ends says which`() throws {
        let child = try ChildProcess("sleep", ["60"])
        #expect(child.poll() == nil)
        child.kill(.kill)
        #expect(child.wait() == .signal(9))
        #expect(child.wait().description == "ended by SIGKILL")
    }

    @Test func `a loop hears of a child's end`() throws {
        let loop = try EventLoop()
        let child = try ChildProcess("sh", ["-c", "exit 3"])
        var exits: [ChildProcess.Exit] = []
        _ = try child.watchExit(on: loop) { exits.append($0) }
        try loop.runUntil { !exits.isEmpty }
        #expect(exits == [.status(3)])
    }

    @Test func `stop asks first and insists after the grace`() throws {
        let polite = try ChildProcess("sleep", ["60"])
        #expect(polite.stop() == .signal(15))
        var options = ChildProcess.Options()
        options.output = .pipe
        let stubborn = try ChildProcess(
            "sh", ["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], options: options)
        #expect(ChildProcess.readLine(stubborn.output) == "ready")
        #expect(stubborn.stop(graceMs: 50) == .signal(9))
    }

    @Test func `a child gets the environment, directory and file it was given`() throws {
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        var options = ChildProcess.Options()
        options.environment = ["FANOUT_X": "a b", "PATH": "/usr/bin:/bin"]
        options.workingDirectory = directory
        options.output = .file(directory + "/out")
        let child = try ChildProcess("sh", ["-c", "echo \"$FANOUT_X\"; pwd"], options: options)
        #expect(child.wait().isSuccess)
        #expect(try File.text(of: directory + "/out") == "a b\n\(directory)\n")
    }

    @Test(.enabled(if: CurrentProcess.isRoot)) func `root may start a child as another user`() throws {
        let nobody = try #require(CurrentProcess.user(named: "nobody"))
        var options = ChildProcess.Options()
        options.user = nobody
        let result = try ChildProcess.run("id", ["-u"], options: options)
        #expect(result.output == "\(nobody.id)\n")
    }

    @Test func `a grandchild set to die with its parent does`() throws {
        // The thread that starts the sleeper ends at once, which is what the kernel takes for the parent's death.
        let started = Handover<ChildProcess?>()
        let thread = Thread.start(name: "parent") {
            var options = ChildProcess.Options()
            options.dieWithParent = .kill
            started.put(try? ChildProcess("sleep", ["60"], options: options))
        }
        thread.join()
        let child = try #require(started.take())
        #expect(child.wait(timeoutMs: 10_000) == .signal(9))
    }

    @Test func `a loop hears signals that are blocked`() throws {
        // On a thread of its own: the others do not block the signal, so it goes to this thread and not the process.
        let heard = Handover<[ProcessSignal]>()
        _ = Thread.start(name: "signals") {
            Signals.block([.user1])
            guard let loop = try? EventLoop() else { return heard.put([]) }
            var signals: [ProcessSignal] = []
            let watch = try? Signals.watch([.user1], on: loop) { signals.append($0) }
            Signals.raiseOnThisThread(.user1)
            try? loop.runUntil { !signals.isEmpty }
            watch?.cancel()
            heard.put(signals)
        }
        #expect(heard.take() == [.user1])
    }

    @Test func `the process knows its memory, time and descriptors`() throws {
        #expect(CurrentProcess.residentBytes > 1 << 20)
        #expect(CurrentProcess.cpuNs > 0)
        let limit = CurrentProcess.raiseDescriptorLimit(to: CurrentProcess.descriptorLimit)
        #expect(limit >= CurrentProcess.descriptorCount)
        #expect(!CurrentProcess.hostName.isEmpty)
        let path = try #require(CurrentProcess.executablePath)
        #expect(File.isExecutable(path))
    }
}
