import Testing

@testable import KafkaClient

/// When a member asks whether its group has forgotten partitions; that it helps shows `LostLogTests`.
@Suite struct GroupCoverageTests {
    private let one = [TopicPartition("t", 0)]

    @Test func `who has partitions of each topic does not ask`() {
        var coverage = GroupCoverage()
        coverage.subscribed(["t"])
        coverage.assigned(one, nowMs: 0)
        let isDue = coverage.isDue(nowMs: 1_000_000)
        #expect(!isDue)
    }

    @Test func `who has none of a topic asks after a second, then more and more rarely, until it has`() {
        var coverage = GroupCoverage()
        coverage.subscribed(["t", "u"])
        coverage.assigned(one, nowMs: 0)
        let asked = (0..<200_000).filter { coverage.isDue(nowMs: Int64($0)) }
        #expect(asked.prefix(4) == [1_000, 3_000, 7_000, 15_000])
        #expect(zip(asked, asked.dropFirst()).allSatisfy { $1 - $0 <= 60_000 } && asked.count == 8)
        coverage.assigned([], nowMs: 200_000)
        let isRare = !coverage.isDue(nowMs: 201_000)
        #expect(isRare, "nothing again, as for one member too many, is no reason to hurry")
        coverage.assigned(one + [TopicPartition("u", 1)], nowMs: 300_000)
        coverage.assigned([], nowMs: 400_000)
        let isSoon = coverage.isDue(nowMs: 401_000)
        #expect(isSoon)
    }

    @Test func `who has left the group does not ask`() {
        var coverage = GroupCoverage()
        coverage.subscribed(["t"])
        coverage.assigned([], nowMs: 0)
        coverage.subscribed([])
        let isDue = coverage.isDue(nowMs: 1_000_000)
        #expect(!isDue)
    }
}
