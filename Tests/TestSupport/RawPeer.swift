public import Glibc
import System

/// The other end of a connection with nothing of ours in it: a blocking socket that does exactly what a test says.
public final class RawPeer: Sendable {
    public let descriptor: Int32

    /// Connects to a port of this machine.
    public init(port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = Self.loopback(port)
        let status = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard status == 0 else { throw SystemError(errno: errno, "connect") }
        // A test that waits in vain fails instead.
        var limit = timeval(tv_sec: 30, tv_usec: 0)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(descriptor) }

    public static func loopback(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return address
    }

    public func send(_ bytes: [UInt8]) {
        _ = unsafe Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    public func endSending() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// Makes the close a reset instead of an end.
    public func resetOnClose() {
        var value = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }

    public func setReceiveBuffer(_ bytes: Int32) {
        var value = bytes
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &value, socklen_t(MemoryLayout<Int32>.size))
    }

    /// Up to `max` bytes; none at the peer's end, `nil` after a reset or when nothing comes for long.
    public func receive(max: Int = 65_536) -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: max)
        let count = unsafe read(descriptor, &buffer, max)
        return count < 0 ? nil : Array(buffer.prefix(count))
    }

    /// How many bytes were there to take.
    public func takeAvailable() -> Int {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        return unsafe max(0, recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT)))
    }

    public func receiveToEnd() -> [UInt8]? {
        var all: [UInt8] = []
        while let part = receive() {
            if part.isEmpty { return all }
            all += part
        }
        return nil
    }
}
