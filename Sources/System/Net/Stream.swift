internal import CLinux
internal import Glibc

/// A connected TCP socket on a loop, with or without TLS.
///
/// An idle stream is this object and nothing else: its bytes are read into the loop's buffer, and a queue is attached
/// only while there is something to send. The socket is registered with epoll once, edge-triggered for both directions,
/// so neither a write nor a pause costs an `epoll_ctl`. The loop keeps a stream alive until it is closed, and the
/// stream its delegate; both let go then.
public final class Stream {
    private struct Flags: OptionSet {
        let rawValue: UInt16
        static let open = Flags(rawValue: 1 << 0)
        /// Connected and, with TLS, past the handshake.
        static let established = Flags(rawValue: 1 << 1)
        /// Waits in the loop's list of streams to write.
        static let flushing = Flags(rawValue: 1 << 2)
        /// The socket took less than it was given; an EPOLLOUT edge will come.
        static let blocked = Flags(rawValue: 1 << 3)
        static let paused = Flags(rawValue: 1 << 4)
        /// More may be waiting in the socket than has been read.
        static let readable = Flags(rawValue: 1 << 5)
        /// The peer's end is in the socket, behind what may still be unread.
        static let endWaiting = Flags(rawValue: 1 << 6)
        static let ended = Flags(rawValue: 1 << 7)
        static let closingAfterFlush = Flags(rawValue: 1 << 8)
        /// Our side is shut; what arrives is dropped until the peer's end.
        static let lingering = Flags(rawValue: 1 << 9)
        /// What was queued did not leave at once, and the delegate has not yet heard that it has.
        static let owesDrained = Flags(rawValue: 1 << 10)
    }

    /// Reads of one socket a tick before others have their turn.
    private static let readsPerTick = 8
    /// Bytes of one socket a tick before others have their turn.
    private static let bytesPerFlush = 4 << 20
    /// How long a peer has to answer our end of the stream with its own before we stop listening for it.
    private static let lingerMs = 2000

    /// The loop outlives its open streams: it abandons them when it goes.
    unowned(unsafe) private let owner: EventLoop
    private var loop: EventLoop { unsafe owner }
    private var delegate: (any StreamDelegate)?
    private var outbox: Outbox?
    /// What only some streams have, or only for some time: an address list while connecting, a TLS session, a timer.
    var extra: Extra?
    private(set) var descriptor: Int32
    private var slot: UInt32 = .max
    /// More than this in the queue is refused.
    public var limits: StreamLimits
    private var flags: Flags

    final class Extra {
        var tls: TLSSession?
        var timer: Timer?
        /// Where to connect, the addresses left to try, and the time that each may take.
        var target: Target?
        var addresses: [SocketAddress] = []
        var attemptMs = 0
        /// The peer as messages name it, when it is more than the socket's address.
        var peer = ""
    }

    /// Takes over an accepted socket. With `tls`, data flows once the handshake is done.
    public init(
        _ socket: consuming Socket, on loop: EventLoop, delegate: any StreamDelegate,
        limits: StreamLimits = StreamLimits(),
        tls: TLSContext? = nil
    ) throws(SystemError) {
        unsafe owner = loop
        self.delegate = delegate
        self.limits = limits
        flags = .open
        descriptor = socket.release()
        do {
            slot = try loop.add(descriptor, Self.interest, .stream(self))
            if let tls { try startTLS(tls, peer: "") } else { flags.insert(.established) }
        } catch {
            abandonSocket()
            throw error
        }
    }

    /// A stream that has no socket yet.
    init(connectingOn loop: EventLoop, delegate: any StreamDelegate, limits: StreamLimits) {
        unsafe owner = loop
        self.delegate = delegate
        self.limits = limits
        flags = .open
        descriptor = -1
    }

    private static var interest: UInt32 {
        EPOLLIN.rawValue | EPOLLOUT.rawValue | EPOLLRDHUP.rawValue | EPOLLET.rawValue
    }

    deinit {
        if descriptor >= 0 { _ = Glibc.close(descriptor) }
    }

    // MARK: State

    public var isOpen: Bool { flags.contains(.open) }
    public var isEstablished: Bool { flags.contains(.established) && isOpen }
    public var peerAddress: SocketAddress? { descriptor < 0 ? nil : Socket.peerAddress(of: descriptor) }
    public var localAddress: SocketAddress? { descriptor < 0 ? nil : Socket.localAddress(of: descriptor) }
    /// What TLS agreed on with ALPN, once established.
    public var applicationProtocol: String? { extra?.tls?.applicationProtocol }
    public var isEncrypted: Bool { extra?.tls != nil }
    /// What has been written and not yet taken by the socket.
    public var queuedBytes: Int { outbox?.bytes ?? 0 }
    public var queuedFragments: Int { outbox?.count ?? 0 }
    /// The socket is full: what is written now waits for the peer.
    public var isBlocked: Bool { flags.contains(.blocked) }

    // MARK: Writing

    /// Queues bytes, which leave at the end of this tick with everything else written to this stream. The array is
    /// kept, not copied: one array may be written to any number of streams.
    @discardableResult
    public func write(_ bytes: [UInt8]) -> WriteResult {
        write(bytes, 0..<bytes.count)
    }

    @discardableResult
    public func write(_ bytes: [UInt8], _ range: Range<Int>) -> WriteResult {
        precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count, "the range is not in the array")
        guard let outbox = room(for: range.count) else { return refusal }
        if !range.isEmpty { outbox.append(bytes, start: range.lowerBound, end: range.upperBound) }
        return .queued
    }

    /// Queues a copy of bytes: for small ones, of which many share a buffer, and for borrowed ones.
    @discardableResult
    public func write(copying bytes: Span<UInt8>) -> WriteResult {
        guard let outbox = room(for: bytes.count) else { return refusal }
        if !bytes.isEmpty { outbox.append(copying: bytes) }
        return .queued
    }

    /// Queues a range of a file behind what has been written. Without TLS the kernel sends it from its page cache. A
    /// file that turns out shorter fails the stream.
    @discardableResult
    public func sendFile(_ file: SharedFile, offset: Int64, count: Int) -> WriteResult {
        // A file range holds no memory, so it counts as a fragment and not against the bytes.
        guard let outbox = room(for: 0) else { return refusal }
        if count > 0 { outbox.append(file, offset: offset, count: count) }
        return .queued
    }

    private var refusal: WriteResult {
        flags.contains(.open) && !flags.contains(.closingAfterFlush) ? .overflow : .closed
    }

    private func room(for count: Int) -> Outbox? {
        guard flags.contains(.open), !flags.contains(.closingAfterFlush) else { return nil }
        if let outbox {
            guard outbox.memoryBytes + count <= Int(limits.bytes), outbox.count < Int(limits.fragments) else {
                return nil
            }
            markForFlush()
            return outbox
        }
        guard count <= Int(limits.bytes) else { return nil }
        let outbox = loop.takeOutbox()
        self.outbox = outbox
        markForFlush()
        return outbox
    }

    private func markForFlush() {
        guard flags.isDisjoint(with: [.flushing, .blocked]), flags.contains(.established) else { return }
        flags.insert(.flushing)
        loop.flushLater(self)
    }

    /// Sends what the socket takes. At the end of a tick, and when a full socket has room again.
    func flush() {
        flags.remove(.flushing)
        guard flags.contains([.open, .established]), flags.isDisjoint(with: [.blocked, .lingering]) else { return }
        if let outbox {
            guard send(outbox) else { return }
            self.outbox = nil
            outbox.removeAll()
            loop.giveBack(outbox)
        }
        if flags.contains(.closingAfterFlush) { return finishSending() }
        if flags.contains(.owesDrained) {
            flags.remove(.owesDrained)
            delegate?.streamDrained(self)
        }
    }

    /// Whether everything has left.
    private func send(_ outbox: Outbox) -> Bool {
        var budget = Self.bytesPerFlush
        // Who waits until so much has left is told, also when the socket takes all of it in one call: on loopback the peer
        // reads meanwhile.
        if outbox.bytes > budget { flags.insert(.owesDrained) }
        while !outbox.isEmpty {
            guard budget > 0 else {
                markForFlush()
                return false
            }
            let sent: Int
            if let tls = extra?.tls {
                sent = tls.write(outbox, through: loop)
            } else if let range = outbox.frontFile {
                sent = range.file.send(to: descriptor, offset: range.offset, count: min(range.count, budget))
            } else {
                sent = gather(outbox)
            }
            if sent > 0 {
                outbox.advance(by: sent)
                budget -= sent
                continue
            }
            let number = sent == 0 ? 0 : Glibc.errno
            switch number {
            case EINTR: continue
            case EAGAIN:
                flags.formUnion([.blocked, .owesDrained])
                return false
            case 0:
                fail(SystemError(.corrupt, "send", on: peer, message: "the file is shorter than the range to send"))
                return false
            default:
                fail(tlsError ?? SystemError(errno: number, "send", on: peer))
                return false
            }
        }
        return true
    }

    private func gather(_ outbox: Outbox) -> Int {
        let (count, fileFollows) = unsafe outbox.fill(loop.segments, max: EventLoop.segmentsMax)
        var header = unsafe msghdr()
        unsafe header.msg_iov = loop.segments
        unsafe header.msg_iovlen = count
        let more = fileFollows ? Int32(MSG_MORE) : 0
        return unsafe sendmsg(descriptor, &header, Int32(MSG_NOSIGNAL) | more)
    }

    // MARK: Reading

    /// Leaves what arrives in the socket, until its window closes and the peer has to wait.
    public func pauseReading() { flags.insert(.paused) }

    public func resumeReading() {
        guard flags.contains(.paused) else { return }
        flags.remove(.paused)
        if !flags.isDisjoint(with: [.readable, .endWaiting]), isOpen { loop.readLater(self) }
    }

    public var isReadingPaused: Bool { flags.contains(.paused) }

    func continueReading() {
        if isEstablished, flags.contains(.readable) { read() }
    }

    func ready(_ events: UInt32) {
        if !flags.contains(.established) {
            guard proceed(events) else { return }
        }
        if events & EPOLLERR.rawValue != 0 {
            let number = Socket.pendingError(of: descriptor)
            if number != 0 { return fail(SystemError(errno: number, "receive", on: peer)) }
        }
        if events & (EPOLLRDHUP.rawValue | EPOLLHUP.rawValue) != 0 { flags.insert(.endWaiting) }
        // A TLS read may have had to wait until it could write.
        let readEvents = extra?.tls == nil ? EPOLLIN.rawValue : EPOLLIN.rawValue | EPOLLOUT.rawValue
        if events & (readEvents | EPOLLRDHUP.rawValue | EPOLLHUP.rawValue) != 0 {
            flags.insert(.readable)
            if !flags.contains(.paused) { read() }
        }
        if events & EPOLLOUT.rawValue != 0, flags.contains([.open, .blocked]) {
            flags.remove(.blocked)
            flush()
        }
    }

    private func read() {
        guard flags.contains(.open), !flags.contains(.ended) else { return }
        for _ in 0..<Self.readsPerTick {
            let size = EventLoop.readBufferBytes
            // A pointer of its own: borrowing it through the loop crashes the optimizer of Swift 6.3.1.
            let buffer = unsafe loop.readBuffer
            let count: Int
            if let tls = extra?.tls {
                count = unsafe tls.read(into: buffer, max: size)
            } else {
                count = unsafe recv(descriptor, buffer, size, 0)
            }
            if count > 0 {
                // A short read has emptied the socket, unless the peer's end or a TLS record is still to come.
                let isDrained = count < size && extra?.tls == nil && !flags.contains(.endWaiting)
                if isDrained { flags.remove(.readable) }
                if !flags.contains(.lingering) {
                    unsafe delegate?.stream(self, received: Span(_unsafeStart: buffer, count: count))
                    guard flags.contains(.open), !flags.contains(.paused) else { return }
                }
                if isDrained { return }
                continue
            }
            if count == 0 { return receivedEnd() }
            let number = Glibc.errno
            switch number {
            case EINTR: continue
            case EAGAIN:
                flags.remove(.readable)
                // TLS may have had to read before it could write.
                if flags.contains(.blocked), extra?.tls != nil {
                    flags.remove(.blocked)
                    markForFlush()
                }
                return
            default: return fail(tlsError ?? SystemError(errno: number, "receive", on: peer))
            }
        }
        loop.readLater(self)
    }

    private func receivedEnd() {
        flags.insert(.ended)
        flags.remove([.readable, .endWaiting])
        if flags.contains(.lingering) { return finish(.local) }
        delegate?.streamEnded(self)
    }

    // MARK: Becoming established

    /// Takes the socket of one attempt to connect.
    func adopt(_ socket: consuming Socket) throws(SystemError) {
        descriptor = socket.release()
        slot = try loop.add(descriptor, Self.interest, .stream(self))
    }

    /// Gives up the socket of an attempt that failed.
    func dropDescriptor() {
        if slot != .max { loop.release(slot) }
        slot = .max
        if descriptor >= 0 { _ = Glibc.close(descriptor) }
        descriptor = -1
    }

    func establish() {
        flags.insert(.established)
        extra?.timer?.cancel()
        extra?.timer = nil
        extra?.target = nil
        if extra?.tls == nil { extra = nil }
        if outbox != nil { markForFlush() }
        delegate?.streamConnected(self)
    }

    // MARK: Closing

    /// Closes at once; what is queued is dropped.
    public func close() { finish(.local) }

    /// Closes once everything queued has left. Then our side is shut, and the stream lingers until the peer has
    /// answered with its own end or has had time to, because closing a socket with unread bytes resets it and would
    /// take our last bytes from the peer. A peer that has not taken everything after `timeoutMs` is cut off.
    public func closeAfterFlush(timeoutMs: Int = 30_000) {
        guard isOpen, !flags.contains(.closingAfterFlush) else { return }
        guard isEstablished else { return finish(.local) }
        flags.insert(.closingAfterFlush)
        if outbox != nil { setTimer(afterMs: timeoutMs) { $0.finish(.local) } }
        if outbox == nil, !flags.contains(.flushing) {
            flags.insert(.flushing)
            loop.flushLater(self)
        } else {
            markForFlush()
        }
    }

    private func finishSending() {
        extra?.tls?.sendClose()
        if flags.contains(.ended) { return finish(.peer) }
        flags.insert(.lingering)
        _ = shutdown(descriptor, Int32(SHUT_WR))
        setTimer(afterMs: Self.lingerMs) { $0.finish(.local) }
        if flags.contains(.paused) {
            flags.remove(.paused)
            flags.insert(.readable)
            loop.readLater(self)
        }
    }

    private func finish(_ reason: CloseReason) {
        guard isOpen else { return }
        let delegate = self.delegate
        abandonSocket()
        if let delegate { loop.tellClosed(self, delegate, reason) }
    }

    func fail(_ error: SystemError) { finish(.failed(error)) }

    private func abandonSocket() {
        dropDescriptor()
        abandon()
    }

    /// Lets go of everything but the loop.
    func abandon() {
        flags = []
        delegate = nil
        outbox = nil
        extra?.timer?.cancel()
        extra = nil
        if descriptor >= 0 { _ = Glibc.close(descriptor) }
        descriptor = -1
    }

    /// Replaces the stream's one timer: it waits for a connect, a handshake or the peer's end, never for two of them.
    func setTimer(afterMs: Int, _ body: @escaping (Stream) -> Void) {
        let extra = makeExtra()
        extra.timer?.cancel()
        extra.timer = loop.schedule(afterMs: afterMs) { [weak self] in
            if let self { body(self) }
        }
    }

    func makeExtra() -> Extra {
        if let extra { return extra }
        let fresh = Extra()
        extra = fresh
        return fresh
    }

    var peer: String {
        if let peer = extra?.peer, !peer.isEmpty { return peer }
        return peerAddress?.description ?? ""
    }

    private var tlsError: SystemError? { extra?.tls?.error(peer: peer) }
}
