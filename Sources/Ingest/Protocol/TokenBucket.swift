/// How often something may happen: `burst` at once, and `burst` again in every `periodMs`.
struct RateLimit: Sendable, Equatable {
    var burst: Int
    var periodMs: Int

    /// What one thing costs, in the units in which time refills the bucket.
    var unit: Int64 { Int64(periodMs) }
    var capacity: Int64 { Int64(burst) * unit }
}

/// A token bucket that needs no timer: what it holds follows from when it was last looked at.
struct TokenBucket: Sendable {
    /// Of thousandths: `burst` a period is one `burst`-th of a unit each millisecond.
    private var level: Int64
    private var atMs: Int64

    init(_ limit: RateLimit, nowMs: Int64) {
        level = limit.capacity
        atMs = nowMs
    }

    /// Takes one, or says how long until there is one.
    mutating func take(_ limit: RateLimit, nowMs: Int64) -> Int? {
        refill(limit, nowMs)
        if level >= limit.unit {
            level -= limit.unit
            return nil
        }
        let missing = limit.unit - level
        return Int((missing + Int64(limit.burst) - 1) / Int64(limit.burst))
    }

    func isFull(_ limit: RateLimit, nowMs: Int64) -> Bool {
        var copy = self
        copy.refill(limit, nowMs)
        return copy.level == limit.capacity
    }

    private mutating func refill(_ limit: RateLimit, _ nowMs: Int64) {
        // A clock that was set back refills nothing and does no harm.
        guard nowMs > atMs else { return }
        let elapsed = min(nowMs - atMs, Int64(limit.periodMs))
        level = min(limit.capacity, level + elapsed * Int64(limit.burst))
        atMs = nowMs
    }
}
