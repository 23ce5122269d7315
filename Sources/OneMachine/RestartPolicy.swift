/// How long to wait before a service that has ended is started again: at once after a long life, longer and longer for
/// one that keeps ending, so that a broken configuration does not burn the machine.
public struct RestartPolicy: Sendable, Equatable {
    public static let firstDelayMs = 100
    public static let delayMsMax = 10_000
    /// Whoever has run this long was well: the next end is a new story.
    public static let stableAfterMs = 30_000

    private var delayMs = 0
    public private(set) var restarts = 0

    public init() {}

    public mutating func ended(afterMs lifeMs: Int) -> Int {
        restarts += 1
        if lifeMs >= Self.stableAfterMs || delayMs == 0 {
            delayMs = Self.firstDelayMs
        } else {
            delayMs = min(delayMs * 2, Self.delayMsMax)
        }
        return delayMs
    }
}
