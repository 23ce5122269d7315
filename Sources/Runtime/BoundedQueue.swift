import Synchronization

/// Hands batches from one thread to another, up to a limit.
///
/// The receiving thread is woken once when the queue turns non-empty and then takes everything there is, so that the
/// cost of the lock and the wake-up is shared by a batch. When the queue is full, `push` says so and the caller decides
/// what that means: nothing is dropped here, and nobody waits here.
public final class BoundedQueue<Element: Sendable>: Sendable {
    private struct State: ~Copyable {
        var elements: [Element] = []
        var cost = 0
        var isClosed = false
    }

    public enum PushResult: Sendable { case accepted, full, closed }

    /// The limit on the summed cost of what is waiting.
    public let capacity: Int
    private let state = Mutex(State())
    private let wake: @Sendable () -> Void

    /// - Parameter wake: called by the pushing thread whenever the queue turns from empty to non-empty, and on close.
    public init(capacity: Int, wake: @escaping @Sendable () -> Void) {
        precondition(capacity > 0, "a queue must hold something")
        self.capacity = capacity
        self.wake = wake
    }

    /// Adds an element that counts `cost` against the capacity. An empty queue takes any element, however costly.
    public func push(_ element: Element, cost: Int = 1) -> PushResult {
        let (result, mustWake) = state.withLock { state -> (PushResult, Bool) in
            if state.isClosed { return (.closed, false) }
            let wasEmpty = state.elements.isEmpty
            if !wasEmpty && state.cost + cost > capacity { return (.full, false) }
            state.elements.append(element)
            state.cost += cost
            return (.accepted, wasEmpty)
        }
        if mustWake { wake() }
        return result
    }

    /// Exchanges the waiting elements for the given (empty) array, so that both sides keep their storage.
    /// Returns `false` once the queue is closed and drained.
    public func take(into batch: inout [Element]) -> Bool {
        batch.removeAll(keepingCapacity: true)
        // The lock's closure may not capture an `inout`, so the arrays change places through a local.
        var spare = batch
        batch = []
        let isOpen = state.withLock { state -> Bool in
            swap(&state.elements, &spare)
            state.cost = 0
            return !state.isClosed || !spare.isEmpty
        }
        batch = spare
        return isOpen
    }

    /// Refuses further elements; those waiting can still be taken.
    public func close() {
        state.withLock { $0.isClosed = true }
        wake()
    }

    public var waitingCost: Int { state.withLock { $0.cost } }
}
