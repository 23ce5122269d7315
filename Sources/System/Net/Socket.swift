internal import CLinux
internal import Glibc

/// The owner of a socket's descriptor that no `Stream` has adopted yet. It may cross threads; dropping it closes it.
public struct Socket: ~Copyable, Sendable {
    let descriptor: Int32

    init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    deinit { _ = Glibc.close(descriptor) }

    /// Who has connected.
    public var peerAddress: SocketAddress? { Self.peerAddress(of: descriptor) }

    consuming func release() -> Int32 {
        let released = descriptor
        discard self
        return released
    }

    /// A non-blocking TCP socket.
    static func open(_ address: SocketAddress, for operation: String) throws(SystemError) -> Socket {
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(address.family, kind, 0)
        guard descriptor >= 0 else { throw SystemError.last(operation, on: address.description) }
        return Socket(descriptor: descriptor)
    }

    func set(_ level: Int32, _ option: Int32, _ value: Int32 = 1) {
        var value = value
        // None of the options that we set can be refused on a TCP socket that is alive.
        _ = unsafe setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
    }

    static func localAddress(of descriptor: Int32) -> SocketAddress? {
        unsafe address { unsafe getsockname(descriptor, $0, $1) }
    }

    static func peerAddress(of descriptor: Int32) -> SocketAddress? {
        unsafe address { unsafe getpeername(descriptor, $0, $1) }
    }

    private static func address(
        _ call: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
    ) -> SocketAddress? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return unsafe withUnsafeMutableBytes(of: &storage) { bytes in
            let start = unsafe bytes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: sockaddr.self)
            guard unsafe call(start, &length) == 0 else { return nil }
            return unsafe SocketAddress(start)
        }
    }

    /// The error that a connect or the peer has left on the socket; 0 for none.
    static func pendingError(of descriptor: Int32) -> Int32 {
        var number: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        _ = unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &number, &length)
        return number
    }
}
