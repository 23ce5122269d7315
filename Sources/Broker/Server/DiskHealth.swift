internal import Runtime
internal import System

/// Whether the data directory can be written to, for `/readyz`. What fails is told at once; that it works again is not known
/// from silence, since whoever was refused may have stopped to try. So it tries by itself, with a small file of its own.
/// On the loop's thread only; the trial is on another.
final class DiskHealth {
    private let storage: Health.Condition
    private let thread: Health.Condition
    private let loop: EventLoop
    private let maintenance: LoopThread
    private let path: String
    private var failedAtMs: UInt64?
    private var isTrying = false

    /// Trials are so far apart, and from the last failure.
    private static let pauseMs: UInt64 = 2000
    private static let tickMs = 500
    /// As much as a small group of batches, so that what is left of a page does not count as room.
    private static let trialBytes = 64 << 10

    init(_ health: Health, directory: String, on loop: EventLoop, _ maintenance: LoopThread) {
        storage = health.condition("storage", failing: nil)
        thread = health.thread("broker")
        self.loop = loop
        self.maintenance = maintenance
        path = directory + "/trial"
        tick()
    }

    func failed(_ error: BrokerError) {
        // The first reason of many stands: they differ in the files that they name.
        if failedAtMs == nil { storage.failed("the data directory failed: \(error.description)") }
        failedAtMs = loop.monotonicMs
    }

    private func tick() {
        thread.beat()
        if let failedAtMs, !isTrying, loop.monotonicMs - failedAtMs >= Self.pauseMs { tryDisk() }
        loop.schedule(afterMs: Self.tickMs) { [weak self] in self?.tick() }
    }

    private func tryDisk() {
        isTrying = true
        let (path, remote, health) = (path, loop.remote, LoopBound(self, on: loop))
        maintenance.remote.execute { _ in
            let isGood: Bool
            do {
                let file = try File(path, .readWrite, create: .ifMissing)
                try file.write([UInt8](repeating: 0, count: Self.trialBytes), at: 0)
                try file.synchronize()
                isGood = true
            } catch {
                isGood = false
            }
            try? File.remove(path)
            remote.execute { health.value(on: $0).tried(isGood) }
        }
    }

    private func tried(_ isGood: Bool) {
        isTrying = false
        // Meanwhile something else may have failed.
        guard isGood, let failedAtMs, loop.monotonicMs - failedAtMs >= Self.pauseMs else {
            failedAtMs = loop.monotonicMs
            return
        }
        self.failedAtMs = nil
        storage.met()
    }
}
