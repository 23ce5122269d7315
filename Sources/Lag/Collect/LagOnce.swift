public import System

/// Two looks, a moment apart, so that there are rates: all of it within one time. A cluster too large, or too slow, for
/// two looks in that time gets one.
public final class LagOnce {
    private let observer: LagObserver
    private let loop: EventLoop
    private let intervalMs: Int
    private let startedNs: UInt64
    private let endNs: UInt64
    private var status: LagStatus?

    public init(_ observer: LagObserver, on loop: EventLoop, intervalMs: Int, timeoutMs: Int) {
        self.observer = observer
        self.loop = loop
        self.intervalMs = intervalMs
        startedNs = loop.monotonicNs
        // A little is left for what happens before and after.
        endNs = startedNs + UInt64(max(timeoutMs * 9 / 10, timeoutMs - 200)) * 1_000_000
    }

    /// Blocks until the answer is there.
    public func run() -> LagStatus {
        observer.look(at: .cluster, withinMs: leftMs) { [unowned self] first in
            let usedMs = Int((loop.monotonicNs - startedNs) / 1_000_000)
            let pauseMs = min(intervalMs, leftMs - 2 * usedMs)
            if first.clusterError == nil, pauseMs > 0 {
                loop.schedule(afterMs: pauseMs) { [unowned self] in lookAgain(first) }
            } else {
                lookAtSlots(first)
            }
        }
        loop.run()
        return status ?? LagStatus(before: nil, now: LagSample(takenMs: loop.nowMs))
    }

    private var leftMs: Int { max(1, Int((Int64(endNs) - Int64(loop.monotonicNs)) / 1_000_000)) }

    private func lookAgain(_ first: LagSample) {
        observer.look(at: [.cluster, .slots], withinMs: leftMs) { [unowned self] second in
            // It may have come to less than the first; then that one stands, with what the second knows besides.
            if second.clusterError == nil, second.positions.count >= first.positions.count || second.missing.isEmpty {
                finish(before: first, now: second)
            } else {
                finish(before: nil, now: first.with(slotsOf: second))
            }
        }
    }

    private func lookAtSlots(_ first: LagSample) {
        observer.look(at: .slots, withinMs: leftMs) { [unowned self] second in
            finish(before: nil, now: first.with(slotsOf: second))
        }
    }

    private func finish(before: LagSample?, now: LagSample) {
        status = LagStatus(before: before, now: now, thresholds: observer.thresholds)
        loop.stop()
    }
}

extension LagSample {
    fileprivate func with(slotsOf other: LagSample) -> LagSample {
        var sample = self
        sample.slots = other.slots
        sample.missing += other.missing
        return sample
    }
}
