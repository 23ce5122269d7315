internal import Synchronization

/// Whether a consumer's thread makes progress, readable from any thread.
///
/// librdkafka counts every poll of any queue as a sign of life, so a thread that polls but is stuck on its work keeps
/// its partitions for ever. A stage's health check asks here instead.
public final class ConsumerWatch: Sendable {
    private let lastPollMs = Atomic<Int64>(monotonicMs())
    private let busySinceMs = Atomic<Int64>(0)

    init() {}

    func polled() {
        let now = monotonicMs()
        lastPollMs.store(now, ordering: .relaxed)
        busySinceMs.store(now, ordering: .relaxed)
    }

    func finished() { busySinceMs.store(0, ordering: .relaxed) }

    /// How long ago the consumer was last polled.
    public var idleMs: Int64 { monotonicMs() - lastPollMs.load(ordering: .relaxed) }

    /// How long the current batch has been in use; 0 between batches.
    public var busyMs: Int64 {
        let since = busySinceMs.load(ordering: .relaxed)
        return since == 0 ? 0 : monotonicMs() - since
    }
}
