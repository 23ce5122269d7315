internal import CLinux
internal import Glibc

/// A clock that a descriptor tells: periodic, for a loop that is itself watched by another loop, which knows nothing of the
/// inner loop's timers; or at one moment, to the microsecond, where a loop's own timers are too coarse.
public final class Ticker {
    public let descriptor: Int32
    private var periodMs: Int?
    private var passed = false

    public init() throws(SystemError) {
        descriptor = timerfd_create(CLOCK_MONOTONIC, Int32(TFD_CLOEXEC) | Int32(TFD_NONBLOCK))
        guard descriptor >= 0 else { throw SystemError.last("timerfd_create") }
    }

    deinit { _ = Glibc.close(descriptor) }

    /// Ticks with this period, or not at all. Setting the period that it has changes nothing and costs nothing.
    public func set(everyMs: Int?) {
        guard everyMs != periodMs else { return }
        periodMs = everyMs
        let ms = everyMs ?? 0
        let period = timespec(tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000)
        var value = itimerspec(it_interval: period, it_value: period)
        _ = unsafe timerfd_settime(descriptor, 0, &value, nil)
    }

    /// Ticks once at this time of the monotonic clock; at once when it has passed.
    public func set(atNs ns: UInt64) {
        periodMs = nil
        let at = timespec(tv_sec: Int(ns / 1_000_000_000), tv_nsec: max(1, Int(ns % 1_000_000_000)))
        var value = itimerspec(it_interval: timespec(), it_value: at)
        _ = unsafe timerfd_settime(descriptor, Int32(TFD_TIMER_ABSTIME), &value, nil)
    }

    /// Takes note of a tick, so that the descriptor is readable only at the next.
    public func clear() {
        var count: UInt64 = 0
        if unsafe read(descriptor, &count, 8) == 8 { passed = true }
    }

    /// Whether it has ticked since the last call.
    public func hasPassed() -> Bool {
        defer { passed = false }
        return passed
    }
}
