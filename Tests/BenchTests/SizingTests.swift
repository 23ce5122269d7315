import Bench
import Foundation
import Testing

struct SizingTests {
    private func sizing(_ change: (inout Sizing.Load) -> Void = { _ in }) -> Sizing {
        var load = Sizing.Load()
        change(&load)
        return Sizing(load)
    }

    @Test func `twice the messages take twice the cores`() {
        let (once, twice) = (sizing { $0.messages = 50_000 }, sizing { $0.messages = 100_000 })
        #expect(abs(twice.cores / once.cores - 2) < 0.01)
        #expect(abs(twice.logBytes.produced / once.logBytes.produced - 2) < 0.05)
    }

    @Test func `every partition carries what a partition carries well`() {
        for messages in [10, 1000, 100_000, 11_000_000] as [Double] {
            for members in [2, 5, 100, 1000] as [Double] {
                let sizing = sizing { ($0.messages, $0.members) = (messages, members) }
                let deliveries = sizing.topics[2]
                #expect(deliveries.bytesPerSecond / sizing.partitions.user < 11e6)
                #expect(deliveries.recordsPerSecond / sizing.partitions.user < 5500)
                #expect(sizing.topics[1].recordsPerSecond / sizing.partitions.chat <= 5000)
                // A message is at least one record, and at most one for each of its recipients.
                #expect(deliveries.recordsPerSecond >= messages * 0.999)
                #expect(deliveries.recordsPerSecond <= messages * members * 1.001)
            }
        }
    }

    @Test func `nobody connected costs no frames, and memory follows who is`() {
        let nobody = sizing { $0.sessions = 0 }
        #expect(nobody.stages[0].memoryBytes == 0)
        #expect(nobody.stages.allSatisfy { $0.processes >= 1 })
        let many = sizing { $0.sessions = 1_000_000 }
        #expect(many.stages[0].memoryBytes == 1536e6)
    }

    @Test func `the worked examples in the documents are what the command prints`() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let page = try String(contentsOf: root.appending(path: "docs/operations.md"), encoding: .utf8)
        let small = sizing {
            ($0.messages, $0.users, $0.sessions) = (2000, 200_000, 100_000)
        }
        let large = sizing {
            ($0.messages, $0.users, $0.sessions) = (11_000_000, 1e9, 400e6)
        }
        #expect(page.contains(small.report))
        #expect(page.contains(large.report))
    }
}
