import Synchronization

/// Where a component gets its time from, so that tests and the simulation can own it.
public protocol Clock: Sendable {
    /// Milliseconds since the Unix epoch: for times that leave the process.
    var wallMs: Int64 { get }
    /// Nanoseconds that never run backwards: for intervals, deadlines and latencies.
    var monotonicNs: UInt64 { get }
}

/// Time that stands still until a test moves it.
public final class ManualClock: Clock {
    private let wall: Atomic<Int64>
    private let monotonic: Atomic<UInt64>

    public init(wallMs: Int64 = 1_700_000_000_000) {
        wall = Atomic(wallMs)
        monotonic = Atomic(1_000_000_000)
    }

    public var wallMs: Int64 { wall.load(ordering: .relaxed) }
    public var monotonicNs: UInt64 { monotonic.load(ordering: .relaxed) }

    /// Moves both times forward together.
    public func advance(ms: Int64) {
        wall.wrappingAdd(ms, ordering: .relaxed)
        monotonic.wrappingAdd(UInt64(ms) * 1_000_000, ordering: .relaxed)
    }

    /// Moves only the wall clock, as an operator or NTP does.
    public func setWall(ms: Int64) {
        wall.store(ms, ordering: .relaxed)
    }
}
