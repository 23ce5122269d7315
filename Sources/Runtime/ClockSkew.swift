/// How far other machines' clocks are from ours, by the times that stand in what they write.
///
/// A record is read a little after it was written, never before: so the least difference seen in a while is the clocks', and
/// what is more is the way. Each source is judged by itself; the one that differs most is told.
public struct ClockSkew: Sendable {
    public struct Finding: Equatable, Sendable {
        public let source: String
        /// How far our clock is ahead of the source's; below zero, behind it.
        public let aheadMs: Int64
    }

    public static let windowMs: Int64 = 10_000
    /// More than this is worth a warning: sessions' order, presence and pushes compare times of several machines.
    public static let warningMs: Int64 = 2_000
    /// More sources are not looked at: a handful tells whether the clock is wrong.
    private static let sourcesMax = 1_000

    private var least: [String: Int64] = [:]
    private var dueMs: Int64?

    public init() {}

    /// - Parameters:
    ///   - aheadMs: our clock now, less the time that the source has written.
    ///   - nowMs: of a clock that never jumps.
    public mutating func note(_ source: String, aheadMs: Int64, nowMs: Int64) {
        if dueMs == nil { dueMs = nowMs + Self.windowMs }
        guard let known = least[source] else {
            if least.count < Self.sourcesMax { least[source] = aheadMs }
            return
        }
        least[source] = min(known, aheadMs)
    }

    /// What the last while has shown, once it is over; then the next begins.
    public mutating func take(nowMs: Int64) -> Finding? {
        guard let dueMs, nowMs >= dueMs else { return nil }
        let most = least.max { (abs($0.value), $0.key) < (abs($1.value), $1.key) }
        least = [:]
        self.dueMs = nil
        return most.map { Finding(source: $0.key, aheadMs: $0.value) }
    }
}

/// Tells operators of it: a gauge, and a warning a minute at most.
public struct ClockWatch: Sendable {
    private var skew = ClockSkew()
    private let aheadMs = Gauge()
    private let log: Log
    private var warnedMs: Int64?
    private static let warnEveryMs: Int64 = 60_000

    public init(_ metrics: Metrics, log: Log) {
        let aheadMs = aheadMs
        metrics.gauge(
            "fanout_clock_skew_seconds",
            "How far this machine's clock is ahead of the chat server's that differs most from it"
        ) { Double(aheadMs.value) / 1_000 }
        self.log = log
    }

    /// - Parameters:
    ///   - writtenMs: the time in what the source has written just now.
    ///   - wallMs: our clock's.
    ///   - nowMs: of a clock that never jumps.
    public mutating func note(_ source: String, writtenMs: Int64, wallMs: Int64, nowMs: Int64) {
        skew.note(source, aheadMs: wallMs - writtenMs, nowMs: nowMs)
        guard let finding = skew.take(nowMs: nowMs) else { return }
        aheadMs.set(Int(finding.aheadMs))
        guard abs(finding.aheadMs) > ClockSkew.warningMs else { return }
        if let warnedMs, nowMs < warnedMs + Self.warnEveryMs { return }
        warnedMs = nowMs
        log.warning(
            "clocks differ: times of presence and pushes cannot be relied on",
            ["from": .string(finding.source), "ahead_ms": .int(finding.aheadMs)])
    }
}
