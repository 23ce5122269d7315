internal import CLinux
internal import Glibc

/// Becoming established: the non-blocking connect, address by address, and the TLS handshake.
extension Stream {
    /// Connects without blocking the loop. The delegate hears `streamConnected`, or `streamClosed` with the last
    /// address's error. What is written before is sent then. Names are resolved on a thread of their own; the addresses
    /// are tried in order, each for its share of `timeoutMs`.
    public static func connect(
        host: String, port: Int, on loop: EventLoop, delegate: any StreamDelegate,
        limits: StreamLimits = StreamLimits(),
        timeoutMs: Int = 10_000, tls: TLSContext? = nil
    ) -> Stream {
        let stream = Stream(connectingOn: loop, delegate: delegate, limits: limits)
        let target = Target(host: host, port: port, timeoutMs: timeoutMs, tls: tls)
        if let address = SocketAddress.numeric(host: host, port: port) {
            stream.begin(target, .success([address]))
        } else {
            let bound = LoopBound(stream, on: loop)
            let remote = loop.remote
            stream.setTimer(afterMs: timeoutMs) { $0.fail(target.timedOut("resolve")) }
            _ = Thread.start(name: "resolve") {
                let result = Result { () throws(SystemError) in
                    try SocketAddress.resolve(host: host, port: port)
                }
                remote.execute { loop in bound.value(on: loop).begin(target, result) }
            }
        }
        return stream
    }

    /// Connects to an address that is known. `source` is the address of this machine to connect from, where it matters:
    /// the kernel takes long to find a port when most of an address's are in use or were a minute ago.
    public static func connect(
        to address: SocketAddress, from source: SocketAddress? = nil, on loop: EventLoop, delegate: any StreamDelegate,
        limits: StreamLimits = StreamLimits(), timeoutMs: Int = 10_000, tls: TLSContext? = nil
    ) -> Stream {
        let stream = Stream(connectingOn: loop, delegate: delegate, limits: limits)
        let target = Target(
            host: address.host, port: Int(address.port), source: source, timeoutMs: timeoutMs, tls: tls)
        stream.begin(target, .success([address]))
        return stream
    }

    struct Target: Sendable {
        let host: String
        let port: Int
        var source: SocketAddress?
        let timeoutMs: Int
        let tls: TLSContext?

        var description: String { "\(host):\(port)" }

        func timedOut(_ operation: String) -> SystemError {
            SystemError(.timedOut, operation, on: description, message: "no answer within \(timeoutMs) ms")
        }
    }

    private func begin(_ target: Target, _ resolved: Result<[SocketAddress], SystemError>) {
        guard isOpen else { return }
        let extra = makeExtra()
        extra.target = target
        extra.peer = target.description
        switch resolved {
        case .failure(let error): fail(error)
        case .success(let addresses):
            extra.addresses = addresses
            extra.attemptMs = max(1, target.timeoutMs / max(1, addresses.count))
            connectNext(after: SystemError(.nameNotResolved, "connect", on: target.description, message: "no address"))
        }
    }

    /// Tries the next address; when none is left, fails with what the last one said.
    private func connectNext(after error: SystemError) {
        dropDescriptor()
        guard let extra, let target = extra.target, !extra.addresses.isEmpty else { return fail(error) }
        let address = extra.addresses.removeFirst()
        do throws(SystemError) {
            let socket = try Socket.open(address, for: "connect")
            socket.set(Int32(IPPROTO_TCP), TCP_NODELAY)
            if let source = target.source {
                // The port is found when the peer is known, so that it need be free towards that one only.
                socket.set(Int32(IPPROTO_IP), IP_BIND_ADDRESS_NO_PORT)
                guard unsafe source.withSockaddr({ unsafe Glibc.bind(socket.descriptor, $0, $1) }) == 0 else {
                    throw SystemError.last("bind", on: source.description)
                }
            }
            let status = unsafe address.withSockaddr { unsafe Glibc.connect(socket.descriptor, $0, $1) }
            guard status == 0 || Glibc.errno == EINPROGRESS else {
                throw SystemError.last("connect", on: target.description)
            }
            // Also when it has connected at once: epoll reports a writable socket, and the delegate hears it from
            // there.
            try adopt(socket)
            setTimer(afterMs: extra.attemptMs) { $0.connectNext(after: target.timedOut("connect")) }
        } catch {
            connectNext(after: error)
        }
    }

    /// An event before the stream is established. Whether the stream is established now.
    func proceed(_ events: UInt32) -> Bool {
        guard let extra else { return false }
        if let tls = extra.tls { return shakeHands(tls) }
        let number = Socket.pendingError(of: descriptor)
        if number != 0 {
            connectNext(after: SystemError(errno: number, "connect", on: extra.peer))
            return false
        }
        guard events & (EPOLLOUT.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0 else { return false }
        if let context = extra.target?.tls {
            do throws(SystemError) {
                try startTLS(context, peer: extra.peer)
            } catch {
                fail(error)
            }
            return false
        }
        establish()
        return isOpen
    }

    /// Starts the handshake on a connected socket; the peer has `handshakeTimeoutMs` of the context to complete it.
    func startTLS(_ context: TLSContext, peer: String) throws(SystemError) {
        let extra = makeExtra()
        if !peer.isEmpty { extra.peer = peer }
        let tls = try TLSSession(context, descriptor: descriptor, host: extra.target?.host)
        extra.tls = tls
        let timeoutMs = context.handshakeTimeoutMs
        setTimer(afterMs: timeoutMs) { stream in
            let message = "the peer did not complete the handshake within \(timeoutMs) ms"
            stream.fail(SystemError(.timedOut, "TLS handshake", on: stream.peer, message: message))
        }
        _ = shakeHands(tls)
    }

    private func shakeHands(_ tls: TLSSession) -> Bool {
        switch tls.handshake() {
        case .wait: return false
        case .done:
            establish()
            return isOpen
        case .failed:
            fail(tls.error(peer: peer) ?? SystemError(.tls, "TLS handshake", on: peer, message: "failed"))
            return false
        }
    }
}
