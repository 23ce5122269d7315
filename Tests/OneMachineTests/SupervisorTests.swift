import Runtime
import System
import TestSupport
import Testing

@testable import OneMachine

@Suite struct SupervisorTests {
    /// A shell that hears no SIGTERM.
    private func deaf(_ name: String) -> Service {
        Service(
            name: name,
            start: { try ChildProcess("/bin/sh", ["-c", "trap '' TERM; while :; do sleep 60; done"]) },
            graceMs: 600_000)
    }

    @Test func `whoever is in a hurry while a service takes its time does not wait for it`() throws {
        let loop = try EventLoop()
        let supervisor = Supervisor(loop: loop, log: .none)
        try supervisor.supervise(deaf("one"))
        try supervisor.supervise(deaf("two"))
        let ids = try ["one", "two"].map { try #require(supervisor.processID(of: $0)) }
        var isHurried = false
        // Heard while it stops, as a second Ctrl-C is.
        loop.schedule(afterMs: 50) { isHurried = true }
        supervisor.stopAll { isHurried }
        for id in ids { #expect(!File.exists("/proc/\(id)")) }
    }

    @Test func `a service that ends is started again, until everything is stopped`() throws {
        let loop = try EventLoop()
        let supervisor = Supervisor(loop: loop, log: .none)
        var starts = 0
        try supervisor.supervise(
            Service(name: "short") {
                starts += 1
                return try ChildProcess("/bin/sh", ["-c", starts < 3 ? "exit 1" : "exec sleep 60"])
            })
        while starts < 3 || supervisor.processID(of: "short") == nil { loop.runOnce(timeoutMs: 100) }
        supervisor.stopAll { false }
        #expect(starts == 3)
    }
}
