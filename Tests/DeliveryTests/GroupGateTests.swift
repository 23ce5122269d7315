import Delivery
import Testing

struct GroupGateTests {
    private static func missing(reached: Int, lessThanOthers: Bool = false) -> Reach {
        Reach(
            missing: [.init(name: "chat-1", address: "a:1", reason: "refused", sinceMs: 0)], reachedCount: reached,
            isLessThanOthers: lessThanOthers)
    }
    private static let whole = Reach(reachedCount: 3)

    @Test func `a worker joins at once when it reaches every chat server, or when there is none`() {
        var gate = GroupGate(nowMs: 0)
        #expect(gate.decide(Self.whole, nowMs: 1) == .join && gate.isIn)
        gate = GroupGate(nowMs: 0)
        #expect(gate.decide(Reach(), nowMs: 1) == .join)
    }

    @Test func `it waits for a link, and joins without it when no other worker is better off`() {
        var gate = GroupGate(nowMs: 0)
        #expect(gate.decide(Self.missing(reached: 2), nowMs: GroupGate.waitMs - 1) == nil)
        #expect(gate.decide(Self.missing(reached: 2), nowMs: GroupGate.waitMs) == .join)
    }

    @Test func `one that reaches nobody, or less than others, stays out for as long as that is so`() {
        var gate = GroupGate(nowMs: 0)
        #expect(gate.decide(Self.missing(reached: 0), nowMs: 1_000_000) == nil)
        #expect(gate.decide(Self.missing(reached: 2, lessThanOthers: true), nowMs: 2_000_000) == nil)
        #expect(gate.decide(Self.whole, nowMs: 2_000_001) == .join)
    }

    @Test func `a member leaves when others have reached more for some time, and comes back when its links last`() {
        var gate = GroupGate(nowMs: 0)
        let worse = Self.missing(reached: 2, lessThanOthers: true)
        #expect(gate.decide(Self.whole, nowMs: 0) == .join)
        #expect(gate.decide(worse, nowMs: 100) == nil)
        #expect(gate.decide(Self.whole, nowMs: 200) == nil, "a link that was away for a moment")
        #expect(gate.decide(worse, nowMs: 300) == nil)
        #expect(gate.decide(worse, nowMs: 300 + GroupGate.leaveMs - 1) == nil)
        #expect(gate.decide(worse, nowMs: 300 + GroupGate.leaveMs) == .leave && !gate.isIn)
        #expect(gate.decide(Self.whole, nowMs: 20_000) == nil)
        #expect(gate.decide(worse, nowMs: 24_000) == nil)
        #expect(gate.decide(Self.whole, nowMs: 25_000) == nil)
        #expect(gate.decide(Self.whole, nowMs: 25_000 + GroupGate.steadyMs) == .join)
    }

    @Test func `a member stays and holds when nobody reaches more: else none would be left`() {
        var gate = GroupGate(nowMs: 0)
        #expect(gate.decide(Self.whole, nowMs: 0) == .join)
        for nowMs in [1_000, 100_000, 1_000_000] as [Int64] {
            #expect(gate.decide(Self.missing(reached: 0), nowMs: nowMs) == nil)
            #expect(gate.decide(Self.missing(reached: 2), nowMs: nowMs) == nil)
        }
    }
}
