import Testing

@testable import System

@Suite struct TimerWheelTests {
    /// What a wheel should do, done slowly.
    private struct Model {
        var waiting: [(deadline: UInt64, order: Int, name: Int)] = []
        var order = 0

        mutating func schedule(_ deadline: UInt64, _ name: Int) {
            waiting.append((deadline, order, name))
            order += 1
        }

        mutating func due(_ now: UInt64) -> [Int] {
            let due = waiting.filter { $0.deadline <= now }.sorted { ($0.deadline, $0.order) < ($1.deadline, $1.order) }
            waiting.removeAll { $0.deadline <= now }
            return due.map(\.name)
        }
    }

    @Test(arguments: [1, 2, 3, UInt64.random(in: 4 ... .max)])
    func `a wheel agrees with a sorted list, whatever is scheduled, cancelled and waited for`(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var now = UInt64.random(in: 0...1 << 40, using: &random)
        var wheel = TimerWheel(startingAt: now)
        var model = Model()
        var ids: [Int: TimerWheel.ID] = [:]
        var fired: [Int] = []
        for name in 0..<20_000 {
            let delay = UInt64.random(in: 0...(1 << UInt64.random(in: 0...34, using: &random)), using: &random)
            ids[name] = wheel.schedule(at: now + delay) { fired.append(name) }
            model.schedule(now + delay, name)
            if Bool.random(using: &random), let (victim, id) = ids.randomElement(using: &random) {
                let waited = wheel.cancel(id) != nil
                #expect(waited == model.waiting.contains { $0.name == victim }, "seed \(seed)")
                model.waiting.removeAll { $0.name == victim }
                ids[victim] = nil
            }
            if Int.random(in: 0..<8, using: &random) == 0 {
                now += UInt64.random(in: 0...(1 << UInt64.random(in: 0...33, using: &random)), using: &random)
                if let wake = wheel.nextWake, let first = model.waiting.map(\.deadline).min() {
                    #expect(wake <= max(first, wheel.elapsed), "seed \(seed)")
                }
                fired = []
                while let handler = wheel.popDue(at: now) { handler() }
                #expect(fired == model.due(now), "seed \(seed)")
                #expect(wheel.count == model.waiting.count)
            }
        }
        fired = []
        while let handler = wheel.popDue(at: now + 1 << 36) { handler() }
        #expect(fired == model.due(now + 1 << 36), "seed \(seed)")
        #expect(wheel.nextWake == nil)
    }

    @Test func `a deadline beyond the wheel's two years is kept and met`() {
        var wheel = TimerWheel(startingAt: 5)
        let far: UInt64 = 1 << 40
        var fired = false
        _ = wheel.schedule(at: far) { fired = true }
        #expect(wheel.popDue(at: far - 1) == nil)
        #expect(!fired)
        wheel.popDue(at: far)?()
        #expect(fired)
    }

    @Test func `a handler may schedule for the same moment and cancel its neighbours`() {
        var wheel = TimerWheel(startingAt: 0)
        var log: [String] = []
        var later: TimerWheel.ID?
        _ = wheel.schedule(at: 10) { log.append("first") }
        later = wheel.schedule(at: 10) { log.append("cancelled") }
        wheel.popDue(at: 10)?()
        if let later { _ = wheel.cancel(later) }
        _ = wheel.schedule(at: 3) { log.append("overdue") }
        while let handler = wheel.popDue(at: 10) { handler() }
        #expect(log == ["first", "overdue"])
    }

    @Test func `the place of a timer that fired is worthless to its old owner`() {
        var wheel = TimerWheel(startingAt: 0)
        let old = wheel.schedule(at: 1) {}
        wheel.popDue(at: 1)?()
        let new = wheel.schedule(at: 5) {}
        #expect(old.index == new.index)
        #expect(wheel.cancel(old) == nil)
        #expect(wheel.isScheduled(new))
    }
}
