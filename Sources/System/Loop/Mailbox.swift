internal import Runtime
internal import Synchronization

/// The bounded hand-over of data to a loop: other threads post, the loop's handler takes everything that has come
/// since, as one batch a tick. Posting costs a lock and an append; only the first post into an empty box wakes the
/// loop.
public final class Mailbox<Element: Sendable>: Sendable {
    private struct State {
        var elements: [Element] = []
        var isClosed = false
    }

    public let capacity: Int
    private let remote: EventLoop.Remote
    private let state = Guarded(State())
    private let handler: LoopBound<([Element]) -> Void>

    /// On the loop's thread, where `handler` runs.
    public init(on loop: EventLoop, capacity: Int, _ handler: @escaping ([Element]) -> Void) {
        self.capacity = capacity
        self.remote = loop.remote
        self.handler = LoopBound(handler, on: loop)
    }

    /// Whether the box had room and its loop still runs. The poster of a full box keeps the element and says what that means.
    public func post(_ element: Element) -> Bool {
        let (taken, first) = state.withLock { state in
            guard state.elements.count < capacity, !state.isClosed else { return (false, false) }
            state.elements.append(element)
            return (true, state.elements.count == 1)
        }
        if first, !remote.execute({ [self] loop in deliver(on: loop) }) {
            close()
            return false
        }
        return taken
    }

    public var count: Int { state.withLock { $0.elements.count } }

    /// Refuses further posts and drops what waits.
    public func close() {
        state.withLock { state in
            state.isClosed = true
            state.elements = []
        }
    }

    private func deliver(on loop: EventLoop) {
        var batch: [Element] = []
        state.withLock { swap(&batch, &$0.elements) }
        if !batch.isEmpty { handler.value(on: loop)(batch) }
    }
}

/// A flag that other threads raise and the loop's handler answers, once for any number of raises before it runs. It
/// allocates nothing a raise, so a library's callback may raise it for every message.
public final class Signal: Sendable {
    private let isRaised = Atomic(false)
    private let remote: EventLoop.Remote
    private let handler: LoopBound<() -> Void>

    public init(on loop: EventLoop, _ handler: @escaping () -> Void) {
        self.remote = loop.remote
        self.handler = LoopBound(handler, on: loop)
    }

    public func raise() {
        // Cleared before the handler runs, so a raise during it brings another run.
        guard !isRaised.exchange(true, ordering: .acquiringAndReleasing) else { return }
        remote.execute { [self] loop in
            isRaised.store(false, ordering: .sequentiallyConsistent)
            handler.value(on: loop)()
        }
    }
}
