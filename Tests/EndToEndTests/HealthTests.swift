import Foundation
import System
import TestSupport
import Testing

/// Every stage × everything that it needs: what /readyz says is the table in docs/operations.md, and this test reads it there.
/// One system, on a broker and a Postgres of its own, which are stopped, frozen and filled.
@Suite(.serialized) struct HealthTests {
    /// A cell of the table: `200`, or with the conditions that must be named, such as `503: log`; `–` where nothing answers.
    private struct Cell: CustomStringConvertible {
        let status: Int
        let conditions: [String]
        let description: String

        init?(_ text: Substring) {
            let text = text.filter { $0 != "`" }.trimmingCharacters(in: .whitespaces)
            let parts = text.split(separator: ":")
            guard let first = parts.first, let status = first == "–" ? 0 : Int(first) else { return nil }
            (self.status, description) = (status, text)
            conditions =
                parts.count < 2
                ? [] : parts[1].split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
        }

        func isMet(by answer: (status: Int, text: String)?) -> Bool {
            guard let answer else { return status == 0 }
            guard answer.status == status else { return false }
            let named = answer.text.split(separator: "\n").dropFirst().compactMap { $0.split(separator: ":").first }
            // Who is not ready may have more reasons than the one that the table tells.
            let hasAll = conditions.allSatisfy { condition in named.contains { $0 == condition } }
            return hasAll && (status == 503 || named.count == conditions.count)
        }
    }

    private static let stages = ["chat-1", "cdc", "join", "delivery", "history", "push", "broker"]

    /// The table's row for what is wrong: a cell for each stage.
    private func row(_ fault: String) throws -> [(stage: String, cell: Cell)] {
        let page = try File.text(of: WebClientTests.root.appending(path: "docs/operations.md").path)
        let lines = page.split(separator: "\n")
        let line = try #require(lines.first { $0.hasPrefix("| \(fault) |") }, "no row: \(fault)")
        let cells = line.split(separator: "|").dropFirst().compactMap { Cell($0) }
        try #require(cells.count == Self.stages.count, "\(line)")
        return zip(Self.stages, cells).map { ($0, $1) }
    }

    private func expect(_ fault: String, of system: StagedSystem) throws {
        for (stage, cell) in try row(fault) {
            let isMet = eventually(seconds: 60) { cell.isMet(by: system.answer("/readyz", of: stage)) }
            #expect(
                isMet,
                "\(fault): \(stage) should say \(cell), and says \(system.answer("/readyz", of: stage)?.text ?? "nothing")"
            )
            #expect(system.answer("/healthz", of: stage)?.status == (cell.status == 0 ? nil : 200))
        }
        // Who is ready all the same was asked before others had noticed: it is so now, too.
        let areAllMet = try eventually(seconds: 60) {
            try row(fault).allSatisfy { $0.cell.isMet(by: system.answer("/readyz", of: $0.stage)) }
        }
        #expect(areAllMet, "\(fault): not all at once")
    }

    @Test
    func `each stage says what the table says while the log or Postgres is away or frozen, and is ready again after`()
        throws
    {
        let postgres = try PostgresCluster()
        let system = try StagedSystem(postgres: postgres)
        try expect("nothing", of: system)

        try postgres.stop(.immediate)
        try expect("Postgres stopped", of: system)
        try postgres.start()
        try expect("nothing", of: system)

        try postgres.freeze()
        try expect("Postgres frozen", of: system)
        try postgres.thaw()
        try expect("nothing", of: system)

        kill(system.broker.pid, SIGSTOP)
        try expect("the log frozen", of: system)
        kill(system.broker.pid, SIGCONT)
        try expect("nothing", of: system)

        system.broker.kill()
        try expect("the log stopped", of: system)
        try system.broker.restart()
        try expect("nothing", of: system)

        system.stop("cdc")
        system.stop("delivery")
        try expect("other stages stopped", of: system)
    }

    @Test func `fanout lag says within seconds that CDC is frozen or gone, and that all is well before`() throws {
        let system = try StagedSystem()
        let check = { try system.fanout(["lag", "--check"]) }
        var last: (status: Int32?, text: String) = (nil, "")
        func becomes(_ status: Int32, _ words: String) throws -> Bool {
            try eventually(seconds: 90) {
                last = try check()
                return last.status == status && last.text.contains(words)
            }
        }
        #expect(try becomes(0, "OK"), "\(last)")
        system.signal("cdc", SIGSTOP)
        let frozenAt = ContinuousClock.now
        #expect(try becomes(1, "its reader has confirmed nothing newer than"), "\(last)")
        print("a frozen CDC is a warning after \(ContinuousClock.now - frozenAt)")
        #expect(try becomes(2, "its reader has confirmed nothing newer than"), "\(last)")
        print("and critical after \(ContinuousClock.now - frozenAt)")
        system.signal("cdc", SIGCONT)
        #expect(try becomes(0, "OK"), "\(last)")
        system.stop("cdc")
        #expect(try becomes(2, "nobody reads it since"), "\(last)")
    }

    @Test func `with the log's disk full, who writes is not ready, nobody ends, and with room again all are ready`()
        throws
    {
        guard let disk = try SmallDisk(megabytes: 48) else {
            return print("skipped: a small file system cannot be mounted here; that takes root")
        }
        let system = try StagedSystem(brokerDirectory: disk.directory + "/data")
        try expect("nothing", of: system)
        try disk.fill()
        try expect("the log's disk full", of: system)
        try disk.clear()
        try expect("nothing", of: system)
    }
}
