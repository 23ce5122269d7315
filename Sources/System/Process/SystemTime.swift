internal import CLinux
internal import Glibc

enum SystemTime {
    static var wallMs: Int64 {
        let now = read(CLOCK_REALTIME)
        return Int64(now.tv_sec) * 1000 + Int64(now.tv_nsec) / 1_000_000
    }

    static var monotonicNs: UInt64 {
        let now = read(CLOCK_MONOTONIC)
        return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
    }

    static func read(_ clock: clockid_t) -> timespec {
        var now = timespec()
        _ = unsafe clock_gettime(clock, &now)
        return now
    }
}

enum SystemSetup {
    /// A write to a closed socket is an error to handle, not a reason to die. Done once, when the first loop is made.
    static func ignorePipeSignal() { _ = pipeSignalIgnored }

    private static let pipeSignalIgnored: Bool = {
        _ = signal(SIGPIPE, SIG_IGN)
        return true
    }()
}
