internal import CLinux
internal import Glibc
internal import Synchronization

/// One thread's epoll loop: sockets, timers, foreign descriptors, and work handed over by other threads.
///
/// A loop belongs to the thread that created it, and so does everything made from it; only its `remote` (and what is
/// built on it: `Mailbox`, `Signal`) may leave that thread. One turn of the loop, a *tick*, does in this order: wait;
/// handle ready sockets; fire timers; take what other threads handed over; run `atTickEnd` hooks; write. All that the
/// streams were given during a tick leaves at its end, with one `sendmsg` a socket.
@safe
public final class EventLoop {
    /// What other threads use to reach this loop.
    public let remote: Remote

    /// Wall time in milliseconds since the epoch, and monotonic time, read once a tick.
    public private(set) var nowMs: Int64
    public private(set) var monotonicNs: UInt64
    public var monotonicMs: UInt64 { monotonicNs / 1_000_000 }

    /// What the one read buffer of a loop holds: the most that a delegate sees in one call.
    static let readBufferBytes = 128 << 10
    static let eventsMax = 512
    static let segmentsMax = 256

    private let epoll: Int32
    private var thread = pthread_self()
    private let events: UnsafeMutablePointer<epoll_event>
    let readBuffer: UnsafeMutablePointer<UInt8>
    let segments: UnsafeMutablePointer<iovec>

    private var slots: [Slot] = []
    private var freeSlot: UInt32 = .max
    private var timers: TimerWheel
    private var isStopping = false
    private var isClosed = false

    private var tickEnd: [() -> Void] = []
    /// Streams with something to write at the end of this tick.
    private var unflushed: [Stream] = []
    /// Streams that were cut off while more could be read, so that one busy socket does not starve the others.
    private var unread: [Stream] = []
    /// Closed streams whose delegates have yet to be told.
    private var closed: [(stream: Stream, delegate: any StreamDelegate, reason: CloseReason)] = []
    /// Queues without an owner: an idle stream holds none.
    private var spareOutboxes: [Outbox] = []

    public init() throws(SystemError) {
        SystemSetup.ignorePipeSignal()
        let remote = try Remote()
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard epoll >= 0 else { throw SystemError.last("epoll_create") }
        self.remote = remote
        unsafe events = .allocate(capacity: Self.eventsMax)
        unsafe readBuffer = .allocate(capacity: Self.readBufferBytes)
        unsafe segments = .allocate(capacity: Self.segmentsMax)
        nowMs = SystemTime.wallMs
        monotonicNs = SystemTime.monotonicNs
        timers = TimerWheel(startingAt: SystemTime.monotonicNs / 1_000_000)
        // Edge-triggered, so that the counter need not be read back: each wake-up is one edge.
        var event = unsafe Self.event(EPOLLIN.rawValue | EPOLLET.rawValue, data: .max)
        guard unsafe epoll_ctl(epoll, EPOLL_CTL_ADD, remote.descriptor, &event) == 0 else {
            throw SystemError.last("epoll_ctl")
        }
    }

    /// Closes every stream and listener, without telling their delegates, and forgets timers, hooks and calls: what
    /// breaks the cycles of a loop whose handlers hold it. A `LoopThread` does it at its end. Nothing can be added
    /// after.
    public func close() {
        remote.detach()
        isClosed = true
        // What is dropped here may call back into the loop, so it is dropped when the loop's own state is in order.
        var sources: [Source] = []
        for index in slots.indices {
            sources.append(slots[index].source)
            slots[index].generation &+= 1
            slots[index].source = .free(next: .max)
        }
        var handlers = TimerWheel(startingAt: timers.elapsed)
        swap(&handlers, &timers)
        let rest = (tickEnd, unflushed, unread, closed, spareOutboxes)
        (tickEnd, unflushed, unread, closed, spareOutboxes) = ([], [], [], [], [])
        for source in sources { source.abandon() }
        withExtendedLifetime((handlers, rest)) {}
    }

    deinit {
        close()
        _ = Glibc.close(epoll)
        unsafe events.deallocate()
        unsafe readBuffer.deallocate()
        unsafe segments.deallocate()
    }

    /// Runs ticks until `stop()`.
    public func run() {
        isStopping = false
        while !isStopping { runOnce() }
    }

    /// Ends `run()` after this tick. On the loop's thread; from elsewhere: `remote.execute { $0.stop() }`.
    public func stop() {
        isStopping = true
    }

    /// One tick, which waits for at most `timeoutMs` when there is nothing to do (-1: for as long as it takes).
    public func runOnce(timeoutMs: Int = -1) {
        preconditionOnLoop()
        let ready = wait(timeoutMs: timeoutMs)
        for index in 0..<ready {
            let (ready, data) = unsafe (events[index].events, events[index].data.u64)
            if data != .max { dispatch(ready, data) }
        }
        readUnread()
        while let handler = timers.popDue(at: monotonicMs) { handler() }
        remote.runPending(on: self)
        finishTick()
    }

    // MARK: Timers

    /// Runs `body` on this loop once, not before `afterMs` has passed.
    @discardableResult
    public func schedule(afterMs: Int, _ body: @escaping () -> Void) -> Timer {
        Timer(loop: self, id: timers.schedule(at: monotonicMs + UInt64(max(0, afterMs)) + 1, body))
    }

    func cancelTimer(_ id: TimerWheel.ID) -> Bool { timers.cancel(id) != nil }
    func isTimerScheduled(_ id: TimerWheel.ID) -> Bool { timers.isScheduled(id) }

    // MARK: Hooks

    /// Runs `body` at the end of this tick, before the streams are written: the place to turn what a tick collected
    /// into one batch.
    public func atTickEnd(_ body: @escaping () -> Void) {
        tickEnd.append(body)
    }

    /// Whether the caller is on this loop's thread.
    public var isCurrent: Bool { pthread_equal(thread, pthread_self()) != 0 }

    /// Readable while this loop has something to do: so one loop can wait inside another, whose handler calls
    /// `runOnce(timeoutMs: 0)`. Timers do not show in it; see `Ticker`.
    public var descriptor: Int32 { epoll }

    /// Makes the calling thread the loop's own. For a loop without a thread that runs it, whose owner has moved.
    public func adopt() { thread = pthread_self() }

    func preconditionOnLoop() {
        precondition(isCurrent, "an event loop is used on its own thread only")
    }

    // MARK: Foreign descriptors

    /// Watches a descriptor that something else owns: a libpq socket, librdkafka's or a child's. Level-triggered:
    /// the handler runs each tick while the descriptor stays ready.
    public func watch(
        _ descriptor: Int32, for interest: Readiness = .read, _ handler: @escaping (Readiness) -> Void
    ) throws(SystemError) -> Registration {
        let registration = Registration(loop: self, descriptor: descriptor, interest: interest, handler: handler)
        registration.slot = try add(descriptor, interest.epollEvents, .registration(registration))
        return registration
    }

    // MARK: Slots

    /// A registered source. epoll hands back the slot and its generation; an event of a source that was closed earlier
    /// in the same tick finds another generation and is dropped, even when the descriptor's number is in use again.
    private struct Slot {
        var source: Source
        var generation: UInt32
    }

    enum Source {
        case stream(Stream)
        case listener(Listener)
        case registration(Registration)
        case free(next: UInt32)

        func abandon() {
            switch self {
            case .stream(let stream): stream.abandon()
            case .listener(let listener): listener.abandon()
            case .registration(let registration): registration.abandon()
            case .free: break
            }
        }
    }

    func add(_ descriptor: Int32, _ interest: UInt32, _ source: Source) throws(SystemError) -> UInt32 {
        guard !isClosed else { throw SystemError(.cancelled, "add to an event loop", message: "the loop has ended") }
        let index: UInt32
        if freeSlot != .max, case .free(let next) = slots[Int(freeSlot)].source {
            index = freeSlot
            freeSlot = next
            slots[Int(index)].source = source
        } else {
            index = UInt32(slots.count)
            slots.append(Slot(source: source, generation: 0))
        }
        var event = unsafe Self.event(interest, data: UInt64(slots[Int(index)].generation) << 32 | UInt64(index))
        guard unsafe epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) == 0 else {
            let error = SystemError.last("epoll_ctl")
            release(index)
            throw error
        }
        return index
    }

    func modify(_ slot: UInt32, _ descriptor: Int32, _ interest: UInt32) {
        var event = unsafe Self.event(interest, data: UInt64(slots[Int(slot)].generation) << 32 | UInt64(slot))
        _ = unsafe epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event)
    }

    /// Forgets a source whose descriptor its owner is about to close, which takes it out of epoll.
    func release(_ slot: UInt32) {
        guard !isClosed else { return }
        slots[Int(slot)].generation &+= 1
        slots[Int(slot)].source = .free(next: freeSlot)
        freeSlot = slot
    }

    /// Forgets a source whose descriptor lives on.
    func remove(_ slot: UInt32, _ descriptor: Int32) {
        // Fails when the owner has closed it already, and then there is nothing to remove.
        _ = epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, nil)
        release(slot)
    }

    private static func event(_ interest: UInt32, data: UInt64) -> epoll_event {
        var event = unsafe epoll_event()
        unsafe event.events = interest
        unsafe event.data.u64 = data
        return unsafe event
    }

    private func dispatch(_ ready: UInt32, _ data: UInt64) {
        let index = Int(truncatingIfNeeded: data & 0xffff_ffff)
        let generation = UInt32(truncatingIfNeeded: data >> 32)
        guard slots[index].generation == generation else { return }
        switch slots[index].source {
        case .stream(let stream): stream.ready(ready)
        case .listener(let listener): listener.ready()
        case .registration(let registration): registration.ready(ready)
        case .free: break
        }
    }

    // MARK: A tick's parts

    private func wait(timeoutMs: Int) -> Int {
        var timeout = timeoutMs
        if isStopping || !unflushed.isEmpty || !unread.isEmpty || !tickEnd.isEmpty || !closed.isEmpty {
            timeout = 0
        } else if let wake = timers.nextWake {
            let now = SystemTime.monotonicNs / 1_000_000
            let ahead = wake > now ? Int(min(wake - now, 1 << 30)) : 0
            timeout = timeout < 0 ? ahead : min(timeout, ahead)
        }
        if timeout != 0, !remote.park() { timeout = 0 }
        let count = unsafe epoll_wait(
            epoll, events, Int32(Self.eventsMax), Int32(clamping: timeout))
        remote.unpark()
        monotonicNs = SystemTime.monotonicNs
        nowMs = SystemTime.wallMs
        return max(0, Int(count))
    }

    private func readUnread() {
        guard !unread.isEmpty else { return }
        let streams = unread
        unread.removeAll(keepingCapacity: true)
        for stream in streams { stream.continueReading() }
    }

    private func finishTick() {
        if !tickEnd.isEmpty {
            let hooks = tickEnd
            tickEnd = []
            for hook in hooks { hook() }
        }
        if !unflushed.isEmpty {
            var streams: [Stream] = []
            swap(&streams, &unflushed)
            for stream in streams { stream.flush() }
            // What delegates wrote meanwhile is in `unflushed` and leaves in the next tick, which follows at once.
            if unflushed.isEmpty {
                streams.removeAll(keepingCapacity: true)
                swap(&streams, &unflushed)
            }
        }
        if !closed.isEmpty {
            let notices = closed
            closed = []
            for notice in notices { notice.delegate.streamClosed(notice.stream, reason: notice.reason) }
        }
    }

    // MARK: For streams

    func flushLater(_ stream: Stream) { unflushed.append(stream) }
    func readLater(_ stream: Stream) { unread.append(stream) }

    func tellClosed(_ stream: Stream, _ delegate: any StreamDelegate, _ reason: CloseReason) {
        closed.append((stream, delegate, reason))
    }

    func takeOutbox() -> Outbox { spareOutboxes.popLast() ?? Outbox() }

    func giveBack(_ outbox: Outbox) {
        if spareOutboxes.count < 256, outbox.isWorthKeeping { spareOutboxes.append(outbox) }
    }
}

/// A scheduled call. Holding it keeps nothing scheduled, and dropping it cancels nothing.
public struct Timer {
    private let loop: EventLoop
    private let id: TimerWheel.ID

    init(loop: EventLoop, id: TimerWheel.ID) {
        self.loop = loop
        self.id = id
    }

    /// Whether the call was still to come. After it has run, or a second time, this does nothing.
    @discardableResult
    public func cancel() -> Bool { loop.cancelTimer(id) }

    public var isScheduled: Bool { loop.isTimerScheduled(id) }
}
