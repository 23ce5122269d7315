/// The wall clock without its jumps, in milliseconds: it moves at the pace of the monotonic clock, and comes nearer to the wall
/// clock by an eighth of that. So what is due in a second is due in a second, whatever is done to the clock, and a clock that
/// was wrong when the process began does not stay wrong for as long as it runs.
public struct SteadyTime: Sendable {
    private var offsetMs: Int64
    private var followedMs: Int64

    public init(wallMs: Int64, monotonicMs: UInt64) {
        followedMs = Int64(monotonicMs)
        offsetMs = wallMs - followedMs
    }

    public func nowMs(monotonicMs: UInt64) -> Int64 { Int64(monotonicMs) + offsetMs }

    /// To be called now and then.
    public mutating func follow(wallMs: Int64, monotonicMs: UInt64) {
        let step = max(0, Int64(monotonicMs) - followedMs) / 8
        // Less would be lost in the division.
        guard step > 0 else { return }
        followedMs = Int64(monotonicMs)
        let wrongMs = wallMs - nowMs(monotonicMs: monotonicMs)
        offsetMs += min(max(wrongMs, -step), step)
    }
}
