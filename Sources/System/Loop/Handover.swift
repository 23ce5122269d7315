internal import CLinux
internal import Glibc
internal import Runtime

/// One value passed from one thread to another that waits for it.
@safe
public final class Handover<Value: Sendable>: Sendable {
    private let value = Guarded<Value?>(nil)
    nonisolated(unsafe) private let semaphore: UnsafeMutablePointer<sem_t>

    public init() {
        unsafe semaphore = .allocate(capacity: 1)
        _ = unsafe sem_init(semaphore, 0, 0)
    }

    deinit {
        _ = unsafe sem_destroy(semaphore)
        unsafe semaphore.deallocate()
    }

    /// Gives the value. The first one counts.
    public func put(_ new: Value) {
        let first = value.withLock { value in
            guard value == nil else { return false }
            value = new
            return true
        }
        if first { _ = unsafe sem_post(semaphore) }
    }

    /// Waits for the value. Any number of threads may.
    public func take() -> Value {
        while true {
            if let value = value.withLock({ $0 }) { return value }
            if unsafe sem_wait(semaphore) == 0 { _ = unsafe sem_post(semaphore) }
        }
    }

    /// Waits for at most `timeoutMs`.
    public func take(timeoutMs: Int) -> Value? {
        var deadline = timespec()
        _ = unsafe clock_gettime(CLOCK_REALTIME, &deadline)
        let ns = Int64(deadline.tv_nsec) + Int64(timeoutMs) * 1_000_000
        deadline.tv_sec += Int(ns / 1_000_000_000)
        deadline.tv_nsec = Int(ns % 1_000_000_000)
        while true {
            if let value = value.withLock({ $0 }) { return value }
            if unsafe sem_timedwait(semaphore, &deadline) == 0 {
                _ = unsafe sem_post(semaphore)
            } else if Glibc.errno == ETIMEDOUT {
                return value.withLock { $0 }
            }
        }
    }
}
