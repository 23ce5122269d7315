internal import CLinux
internal import Glibc
internal import Runtime

extension EventLoop {
    /// How other threads reach a loop. Many calls between two ticks cost one wake-up.
    public final class Remote: Sendable {
        private enum Work {
            case call(@Sendable (EventLoop) -> Void)
            /// A reference, by its address, that another thread has given up and the loop's thread has to let go.
            case letGo(UInt)
        }

        private struct State {
            var pending: [Work] = []
            /// The loop waits in the kernel, or is about to.
            var isParked = false
            var isDetached = false
        }

        /// A tick runs at most this many calls, so that a storm of them does not starve the sockets.
        private static let batchMax = 1024

        let descriptor: Int32
        private let state = Guarded(State())

        init() throws(SystemError) {
            descriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
            guard descriptor >= 0 else { throw SystemError.last("eventfd") }
        }

        deinit { _ = Glibc.close(descriptor) }

        /// Runs `body` on the loop's thread, in the order of the calls. For control, which is rare; data goes through a
        /// `Mailbox`, which is bounded. `false` when the loop is gone.
        @discardableResult
        public func execute(_ body: @escaping @Sendable (EventLoop) -> Void) -> Bool { add(.call(body)) }

        /// Releases a reference on the loop's thread; with the loop gone, nobody else can look at it any more.
        func letGo<Object: AnyObject>(_ object: Unmanaged<Object>) {
            if unsafe !add(.letGo(UInt(bitPattern: object.toOpaque()))) { unsafe object.release() }
        }

        private func add(_ work: Work) -> Bool {
            state.withLock { state in
                guard !state.isDetached else { return false }
                state.pending.append(work)
                if state.isParked {
                    state.isParked = false
                    signal()
                }
                return true
            }
        }

        /// Makes the loop run one more tick.
        public func wake() {
            state.withLock { state in
                guard !state.isDetached else { return }
                state.isParked = false
                signal()
            }
        }

        private func signal() {
            // Fails only when the counter is full, and then a wake-up is on its way anyway.
            _ = eventfd_write(descriptor, 1)
        }

        /// Whether the loop may sleep: no call waits.
        func park() -> Bool {
            state.withLock { state in
                state.isParked = state.pending.isEmpty
                return state.isParked
            }
        }

        func unpark() { state.withLock { $0.isParked = false } }

        func runPending(on loop: EventLoop) {
            var batch: [Work] = []
            state.withLock { state in
                if state.pending.count <= Self.batchMax {
                    swap(&batch, &state.pending)
                } else {
                    batch = Array(state.pending.prefix(Self.batchMax))
                    state.pending.removeFirst(Self.batchMax)
                }
            }
            for work in batch {
                switch work {
                case .call(let body): body(loop)
                case .letGo(let address): Self.release(address)
                }
            }
        }

        /// Refuses work from now on. Calls that have not run are dropped; what was to be let go is let go.
        func detach() {
            var rest: [Work] = []
            state.withLock { state in
                state.isDetached = true
                swap(&rest, &state.pending)
            }
            for case .letGo(let address) in rest { Self.release(address) }
        }

        private static func release(_ address: UInt) {
            guard let pointer = unsafe UnsafeRawPointer(bitPattern: address) else { return }
            unsafe Unmanaged<AnyObject>.fromOpaque(pointer).release()
        }
    }
}
