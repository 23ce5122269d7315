import KafkaClient
import Lag
import Testing
import Wire

private func position(
    _ committed: Int64?, end: Int64, low: Int64 = 0, firstMs: Int64? = nil, partition: Int32 = 0
) -> LagSample.Position {
    LagSample.Position(
        group: "g", partition: TopicPartition("t", partition), committed: committed, low: low, end: end,
        firstWaitingMs: firstMs)
}

private func sample(at ms: Int64, members: Int? = 1, _ positions: LagSample.Position...) -> LagSample {
    var sample = LagSample(takenMs: ms)
    sample.positions = positions
    sample.groups = [LagSample.Group(id: "g", members: members)]
    return sample
}

/// What two looks say, for one partition.
private func row(_ before: LagSample?, _ now: LagSample) -> LagRow { LagStatus(before: before, now: now).rows[0] }

@Suite struct LagStatusTests {
    @Test func `nothing waiting is OK and zero seconds, however old the last record is`() {
        let row = row(sample(at: 0, position(5, end: 5)), sample(at: 1000, position(5, end: 5)))
        #expect(row.state == .ok && row.seconds == 0 && row.messages == 0 && row.catchUpSeconds == 0)
    }

    @Test func `seconds are the age of the first waiting record`() {
        let row = row(nil, sample(at: 60_000, position(5, end: 9, firstMs: 57_500)))
        #expect(row.seconds == 2.5 && row.messages == 4)
    }

    @Test func `a clock that runs ahead never makes time negative`() {
        #expect(row(nil, sample(at: 1000, position(5, end: 9, firstMs: 5000))).seconds == 0)
    }

    @Test func `a consumer that is late but gaining is OK, one that loses is BEHIND`() {
        let before = sample(at: 0, position(100, end: 1000, firstMs: -60_000))
        #expect(row(before, sample(at: 1000, position(400, end: 1100, firstMs: -50_000))).state == .ok)
        #expect(row(before, sample(at: 1000, position(150, end: 1100, firstMs: -59_000))).state == .behind)
    }

    @Test func `work without any commit moving is STALLED, but not within the time between two commits`() {
        let before = sample(at: 10_000, position(5, end: 9, firstMs: 9_000))
        #expect(row(before, sample(at: 11_000, position(5, end: 9, firstMs: 9_000))).state == .ok)
        #expect(row(before, sample(at: 20_000, position(5, end: 9, firstMs: 9_000))).state == .stalled)
    }

    @Test func `a group without members is EMPTY, one whose members are unknown is judged by its commits`() {
        #expect(row(nil, sample(at: 0, members: 0, position(5, end: 9))).state == .empty)
        #expect(row(nil, sample(at: 0, members: nil, position(9, end: 9))).state == .ok)
    }

    @Test func `commits outside of the log are clamped and flagged`() {
        let beyond = row(nil, sample(at: 0, position(50, end: 9)))
        #expect(beyond.messages == 0 && beyond.isClamped)
        let deleted = row(nil, sample(at: 0, position(2, end: 9, low: 6)))
        #expect(deleted.messages == 3 && deleted.isClamped)
        let never = row(nil, sample(at: 0, position(nil, end: 9, low: 6)))
        #expect(never.messages == 3 && !never.isClamped)
    }

    @Test func `rates and the time to catch up follow from two looks`() {
        let row = row(
            sample(at: 0, position(0, end: 1000, firstMs: 0)), sample(at: 2000, position(600, end: 1200, firstMs: 0)))
        #expect(row.rateIn == 100 && row.rateOut == 300 && row.catchUpSeconds == 3)
    }

    @Test func `a rewind is no consumption`() {
        let row = row(
            sample(at: 0, position(900, end: 1000, firstMs: 0)), sample(at: 1000, position(100, end: 1000, firstMs: 0)))
        #expect(row.rateOut == 0 && row.catchUpSeconds == nil)
    }

    @Test func `a total is as bad as its worst partition`() {
        let status = LagStatus(
            before: nil,
            now: sample(
                at: 60_000, position(5, end: 5), position(1, end: 9, firstMs: 10_000, partition: 1)))
        #expect(status.totals.count == 1)
        #expect(status.totals[0].seconds == 50 && status.totals[0].messages == 8 && status.totals[0].state == .behind)
    }

    @Test func `a slot that is lost, runs out of room or keeps too much is DANGER`() {
        func state(_ change: (inout LagSample.Slot) -> Void) -> LagState {
            var slot = LagSample.Slot(
                name: "s", isActive: true, confirmed: "0/0", retainedBytes: 1000, safeBytes: 1 << 30,
                walStatus: "reserved", behindSeconds: 0)
            change(&slot)
            var sample = LagSample(takenMs: 0)
            sample.slots = [slot]
            return LagStatus(before: nil, now: sample).slots[0].state
        }
        #expect(state { _ in } == .ok)
        #expect(state { $0.walStatus = "lost" } == .danger)
        #expect(state { $0.safeBytes = 10 } == .danger)
        #expect(state { $0.retainedBytes = 2 << 30 } == .danger)
        #expect(state { $0.isActive = false } == .empty)
        #expect(state { $0.behindSeconds = 60 } == .behind)
    }
}

@Suite struct LagOutputTests {
    private let status = LagStatus(
        before: sample(at: 0, position(100, end: 1_000_000, firstMs: -100)),
        now: sample(at: 1000, position(5100, end: 12_345_678, firstMs: -100), position(9, end: 5, partition: 1)))

    @Test func `no line of the table is wider than 80 columns`() {
        var table = LagTable()
        for partitions in [false, true] {
            table.showsPartitions = partitions
            for line in table.lines(status) { #expect(line.count <= 80, "\(line)") }
        }
        #expect(table.lines(status).last == "! a commit lies outside of the log")
    }

    @Test func `the watch view fills its terminal exactly, however small`() {
        var view = LagWatch()
        for _ in 0..<5 { view.add(status) }
        for (columns, rows) in [(80, 24), (40, 5), (10, 2), (1, 1), (200, 60)] {
            let screen = view.screen(status, table: LagTable(), columns: columns, rows: rows)
            #expect(screen.count == rows)
            #expect(screen.allSatisfy { $0.count <= columns })
        }
    }

    @Test func `the JSON is one well-formed object`() throws {
        var json = JSONWriter()
        status.write(to: &json)
        var reader = JSONReader(json.bytes.span)
        try reader.skipValue()
        try reader.finish()
    }

    @Test func `a check is critical above the limit, warns above half of it, and does not hide what it could not see`()
    {
        func verdict(_ seconds: Double, missing: [String] = []) -> LagCheck.Verdict {
            var now = sample(at: 100_000, position(5, end: 9, firstMs: 100_000 - Int64(seconds * 1000)))
            now.missing = missing
            var check = LagCheck()
            check.secondsMax = 8
            return check.verdict(on: LagStatus(before: nil, now: now)).0
        }
        #expect(verdict(1) == .ok)
        #expect(verdict(5) == .warning)
        #expect(verdict(9) == .critical)
        #expect(verdict(1, missing: ["a"]) == .unknown)
        #expect(verdict(9, missing: ["a"]) == .critical)
    }
}
