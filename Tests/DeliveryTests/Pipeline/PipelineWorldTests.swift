import Foundation
import TestSupport
import Testing

struct PipelineWorldTests {
    private static let worldCount = ProcessInfo.processInfo.environment["FANOUT_SEEDS"].flatMap(UInt64.init) ?? 100
    private static let steps = 600

    private func worlds(_ name: String, count: UInt64 = worldCount, _ body: (PipelineWorld, UInt64) throws -> Bool)
        throws
    {
        let first = SeededGenerator.freshSeed()
        print("seed \(first) (\(name); FANOUT_SEED=n FANOUT_SEEDS=1 runs one world again)")
        for number in 0..<count {
            let seed = first &+ number
            guard try body(PipelineWorld(seed: seed), seed) else { return }
        }
    }

    @Test func `what a device says reaches every device of every member once and in order, whatever dies`() throws {
        var (messages, shown) = (0, 0)
        try worlds("the whole pipeline") { world, seed in
            try world.run(steps: Self.steps)
            let faults = world.faults()
            for fault in faults { Issue.record("FANOUT_SEED=\(seed): \(fault)") }
            messages += world.messageCount
            shown += world.shownCount
            return faults.isEmpty
        }
        print("\(messages) messages and \(shown) events shown")
        #expect(shown > messages)
    }

    /// The check can fail.
    @Test func `a pipeline that does not drop what is written twice is found out`() throws {
        var (tried, isFound) = (0, false)
        try worlds("repeats are not dropped", count: 500) { world, _ in
            tried += 1
            world.delivery.hidesSources = true
            try world.run(steps: Self.steps)
            isFound = !world.faults().isEmpty
            return !isFound
        }
        print("found in world \(tried)")
        #expect(isFound)
    }
}
