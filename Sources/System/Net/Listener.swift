internal import CLinux
internal import Glibc

/// A listening TCP socket on a loop. Several loops may listen on one port with `sharesPort`; the kernel then spreads
/// the connections over them.
public final class Listener {
    /// Connections taken a tick, so that a storm of them does not starve those that are established.
    private static let acceptsPerTick = 64
    /// How long to leave connections in the kernel's queue when the process has no descriptor to spare.
    private static let pauseMs = 100

    /// Where it listens; with port 0 asked for, the port that the kernel chose.
    public let address: SocketAddress
    public var port: Int { Int(address.port) }
    /// Called when accepting had to pause, with the reason: out of descriptors or memory. Waiting connections stay
    /// queued.
    public var onPause: ((SystemError) -> Void)?

    private unowned let loop: EventLoop
    private let descriptor: Int32
    private var slot: UInt32 = .max
    private var onAccept: ((consuming Socket) -> Void)?

    public init(
        on loop: EventLoop, host: String, port: Int, backlog: Int = 4096, sharesPort: Bool = false,
        _ onAccept: @escaping (consuming Socket) -> Void
    ) throws(SystemError) {
        let wanted = try SocketAddress.resolve(host: host, port: port)
        // Both families, where a host that means every interface has both: an IPv6 socket takes IPv4 as well.
        let chosen = wanted.first { host.isEmpty || host == "*" ? $0.isIPv6 : true } ?? wanted[0]
        let socket = try Socket.open(chosen, for: "listen")
        socket.set(SOL_SOCKET, SO_REUSEADDR)
        if sharesPort { socket.set(SOL_SOCKET, SO_REUSEPORT) }
        // Accepted sockets inherit it, which saves a call for each.
        socket.set(Int32(IPPROTO_TCP), TCP_NODELAY)
        guard unsafe chosen.withSockaddr({ unsafe bind(socket.descriptor, $0, $1) }) == 0,
            listen(socket.descriptor, Int32(backlog)) == 0
        else { throw SystemError.last("listen", on: chosen.description) }
        address = Socket.localAddress(of: socket.descriptor) ?? chosen
        self.loop = loop
        self.onAccept = onAccept
        descriptor = socket.release()
        do {
            slot = try loop.add(descriptor, EPOLLIN.rawValue, .listener(self))
        } catch {
            _ = Glibc.close(descriptor)
            throw error
        }
    }

    /// Stops listening. Connections that were accepted live on; those still queued in the kernel are reset.
    public func close() {
        guard onAccept != nil else { return }
        onAccept = nil
        onPause = nil
        loop.release(slot)
        _ = Glibc.close(descriptor)
    }

    func abandon() {
        guard onAccept != nil else { return }
        onAccept = nil
        _ = Glibc.close(descriptor)
    }

    func ready() {
        for _ in 0..<Self.acceptsPerTick {
            guard let onAccept else { return }
            let accepted = accept4(
                descriptor, nil, nil, Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue))
            if accepted >= 0 {
                onAccept(Socket(descriptor: accepted))
                continue
            }
            switch Glibc.errno {
            case EMFILE, ENFILE, ENOBUFS, ENOMEM: return pause(SystemError.last("accept", on: address.description))
            case EINTR, ECONNABORTED, EPROTO, EPERM: continue
            default: return
            }
        }
    }

    private func pause(_ error: SystemError) {
        loop.modify(slot, descriptor, 0)
        loop.schedule(afterMs: Self.pauseMs) { [weak self] in
            guard let self, self.onAccept != nil else { return }
            self.loop.modify(self.slot, self.descriptor, EPOLLIN.rawValue)
        }
        onPause?(error)
    }
}
