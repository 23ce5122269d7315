internal import CLinux
internal import Glibc
internal import Runtime

/// An operating-system thread with a name that `top -H` and debuggers show. A stage owns a few of these, each with
/// its own handles and state.
public final class Thread: Sendable {
    private let handle: Guarded<pthread_t?>
    public let name: String

    private init(name: String, handle: pthread_t) {
        self.name = name
        self.handle = Guarded(handle)
    }

    /// Starts a thread. Linux keeps the first 15 bytes of the name.
    public static func start(name: String, _ body: @escaping @Sendable () -> Void) -> Thread {
        let start = unsafe Unmanaged.passRetained(ThreadBody(name: name, body: body))
        var handle = pthread_t()
        let status = unsafe pthread_create(
            &handle, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let start = unsafe Unmanaged<ThreadBody>.fromOpaque(argument).takeRetainedValue()
                Thread.nameCurrent(start.name)
                start.body()
                return nil
            }, start.toOpaque())
        // The kernel refuses a thread only when the process is beyond its limits; nothing can go on without it.
        precondition(status == 0, "cannot start thread \(name): errno \(status)")
        return Thread(name: name, handle: handle)
    }

    /// Holds up the thread that calls: at a start, where there is nothing else to do.
    public static func sleep(ms: Int64) {
        var left = timespec(tv_sec: Int(ms / 1000), tv_nsec: Int(ms % 1000) * 1_000_000)
        while true {
            var asked = left
            guard unsafe nanosleep(&asked, &left) != 0, errno == EINTR else { return }
        }
    }

    /// Waits for the thread's end. Calling it again returns at once.
    public func join() {
        let taken = handle.withLock { handle in
            defer { handle = nil }
            return handle
        }
        if let taken { _ = pthread_join(taken, nil) }
    }

    deinit {
        handle.withLock { handle in
            if let handle { _ = pthread_detach(handle) }
        }
    }

    static func nameCurrent(_ name: String) {
        let cut = String(decoding: name.utf8.prefix(15), as: UTF8.self)
        _ = unsafe pthread_setname_np(pthread_self(), cut)
    }
}

private final class ThreadBody: Sendable {
    let name: String
    let body: @Sendable () -> Void

    init(name: String, body: @escaping @Sendable () -> Void) {
        self.name = name
        self.body = body
    }
}
