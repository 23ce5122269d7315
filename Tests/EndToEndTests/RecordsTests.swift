import Foundation
import TestSupport
import Testing

/// What data engineers are promised: the schemas and the examples of docs/replay.md hold for a running system.
@Suite(.serialized) struct RecordsTests {
    @Test
    func `every record of every topic is as its schema says, whatever happened: edits, refusals, garbage, deletions`()
        throws
    {
        let system = try StagedSystem()
        let traffic = try system.python("traffic.py", ["\(system.chatPort)", FanoutProcess.binary.path])
        #expect(traffic.waitForExit(seconds: 90) == 0, "\(traffic.text)\n\(system.text)")
        let check = try system.python(
            "check_records.py", [WebClientTests.root.appending(path: "kafka/schemas").path])
        #expect(check.waitForExit(seconds: 60) == 0, "\(check.text)\n\(system.text)")
        print(check.text)
    }

    @Test func `every example of the page about replaying works as it stands there`() throws {
        let system = try StagedSystem()
        let traffic = try system.python("traffic.py", ["\(system.chatPort)", FanoutProcess.binary.path, "--on-and-on"])
        defer { traffic.kill() }
        #expect(traffic.waitForOutput("everything has happened", seconds: 90), "\(traffic.text)\n\(system.text)")
        let found = try #require(traffic.text.firstMatch(of: /chat=(\S+) user=(\S+)/))
        let page = WebClientTests.root.appending(path: "docs/replay.md").path
        let programs = FanoutProcess.binary.deletingLastPathComponent().path
        let ids = ["CHAT": String(found.1), "USER_ID": String(found.2), "PROGRAMS": programs]
        let examples = try system.python("examples.py", [page, "live"], environment: ids)
        #expect(examples.waitForExit(seconds: 120) == 0, "\(examples.text)\n\(system.text)")
        print(examples.text)

        // What must not run beside the stage itself.
        system.stop("history")
        let alone = try system.python("examples.py", [page, "alone"], environment: ids)
        #expect(alone.waitForExit(seconds: 120) == 0, "\(alone.text)\n\(system.text)")
        print(alone.text)
    }
}
