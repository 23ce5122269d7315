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
