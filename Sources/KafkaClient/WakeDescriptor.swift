internal import CRdKafka
internal import Glibc

/// An eventfd which librdkafka writes when a queue becomes non-empty, so that a thread can wait for Kafka in the same
/// `epoll_wait` as for its sockets and timers. Level-triggered: readable while there may be something to poll.
final class WakeDescriptor: Sendable {
    let descriptor: Int32

    init() throws(KafkaError) {
        descriptor = eventfd(0, Int32(EFD_NONBLOCK) | Int32(EFD_CLOEXEC))
        guard descriptor >= 0 else {
            throw KafkaError(.other, "eventfd: errno \(errno)", place: "wake descriptor")
        }
    }

    deinit { Glibc.close(descriptor) }

    func signal() {
        var one: UInt64 = 1
        _ = unsafe write(descriptor, &one, 8)
    }

    func clear() {
        var count: UInt64 = 0
        _ = unsafe read(descriptor, &count, 8)
    }
}

/// Milliseconds on the monotonic clock, for deadlines inside this module.
func monotonicMs() -> Int64 {
    var now = timespec()
    _ = unsafe clock_gettime(CLOCK_MONOTONIC, &now)
    return Int64(now.tv_sec) * 1000 + Int64(now.tv_nsec) / 1_000_000
}

/// A point on the monotonic clock by which a call must have returned.
struct Deadline {
    let atMs: Int64

    init(afterMs: Int) { atMs = monotonicMs() + Int64(max(0, afterMs)) }

    var remainingMs: Int32 { Int32(clamping: max(0, atMs - monotonicMs())) }
    var hasPassed: Bool { remainingMs == 0 }
}
