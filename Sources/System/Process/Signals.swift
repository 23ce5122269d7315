internal import CLinux
internal import Glibc

/// A signal that a process answers or sends.
public enum ProcessSignal: Int32, Sendable, CaseIterable, CustomStringConvertible {
    case hangup = 1
    case interrupt = 2
    case quit = 3
    case kill = 9
    case user1 = 10
    case terminate = 15
    case child = 17
    case `continue` = 18
    case stop = 19
    /// Ctrl-Z.
    case terminalStop = 20
    case windowChange = 28

    public var description: String {
        switch self {
        case .hangup: "SIGHUP"
        case .interrupt: "SIGINT"
        case .quit: "SIGQUIT"
        case .kill: "SIGKILL"
        case .user1: "SIGUSR1"
        case .terminate: "SIGTERM"
        case .child: "SIGCHLD"
        case .continue: "SIGCONT"
        case .stop: "SIGSTOP"
        case .terminalStop: "SIGTSTP"
        case .windowChange: "SIGWINCH"
        }
    }
}

/// Signals as events of a loop (`signalfd`) instead of interruptions.
public enum Signals {
    /// Blocks the signals for this thread and those it starts from now on, so that they wait for a watcher. Call it
    /// first thing in the main thread: a thread that does not block a signal dies of it.
    public static func block(_ signals: [ProcessSignal]) {
        var set = mask(signals)
        _ = unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// Calls `handler` on the loop for each of the signals, which `block` has blocked. The result owns the watch.
    public static func watch(
        _ signals: [ProcessSignal], on loop: EventLoop, _ handler: @escaping (ProcessSignal) -> Void
    ) throws(SystemError) -> SignalWatch {
        try SignalWatch(signals, on: loop, handler)
    }

    /// Sends a signal to the calling thread.
    public static func raiseOnThisThread(_ signal: ProcessSignal) {
        _ = raise(signal.rawValue)
    }

    /// Sends a signal to any process that this one may signal; one that is gone already gets none.
    public static func send(_ signal: ProcessSignal, to process: Int32) {
        _ = kill(process, signal.rawValue)
    }

    static func mask(_ signals: [ProcessSignal]) -> sigset_t {
        var set = sigset_t()
        _ = unsafe sigemptyset(&set)
        for signal in signals { _ = unsafe sigaddset(&set, signal.rawValue) }
        return set
    }
}

public final class SignalWatch {
    private let descriptor: Int32
    private var registration: Registration?

    init(
        _ signals: [ProcessSignal], on loop: EventLoop, _ handler: @escaping (ProcessSignal) -> Void
    ) throws(SystemError) {
        var set = Signals.mask(signals)
        descriptor = unsafe signalfd(-1, &set, Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK))
        guard descriptor >= 0 else { throw SystemError.last("signalfd") }
        let descriptor = self.descriptor
        registration = try loop.watch(descriptor) { _ in
            var info = signalfd_siginfo()
            while unsafe read(descriptor, &info, MemoryLayout<signalfd_siginfo>.size)
                == MemoryLayout<signalfd_siginfo>.size
            {
                if let signal = ProcessSignal(rawValue: Int32(info.ssi_signo)) { handler(signal) }
            }
        }
    }

    public func cancel() {
        registration?.cancel()
        registration = nil
    }

    deinit {
        registration?.cancel()
        _ = Glibc.close(descriptor)
    }
}
