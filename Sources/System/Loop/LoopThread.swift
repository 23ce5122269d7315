internal import Synchronization

/// A thread that runs one event loop.
public final class LoopThread: Sendable {
    public let remote: EventLoop.Remote
    private let thread: Thread

    private init(remote: EventLoop.Remote, thread: Thread) {
        self.remote = remote
        self.thread = thread
    }

    /// Starts the thread, makes its loop and runs `setup` on it before returning; what `setup` throws is thrown here.
    /// What `setup` returns (the owner of the loop's sockets, say) lives until the loop has ended.
    public static func start<Owner, Failure: Error>(
        name: String, _ setup: @escaping @Sendable (EventLoop) throws(Failure) -> Owner
    ) throws -> LoopThread {
        let started = Handover<Result<EventLoop.Remote, any Error>>()
        let thread = Thread.start(name: name) {
            do {
                let loop = try EventLoop()
                let owner = try setup(loop)
                started.put(.success(loop.remote))
                loop.run()
                loop.close()
                withExtendedLifetime(owner) {}
            } catch {
                started.put(.failure(error))
            }
        }
        switch started.take() {
        case .success(let remote): return LoopThread(remote: remote, thread: thread)
        case .failure(let error):
            thread.join()
            throw error
        }
    }

    /// Asks the loop to end after its present tick.
    public func stop() {
        remote.execute { $0.stop() }
    }

    public func join() {
        thread.join()
    }
}
