import Glibc
import System

/// The other end of a connection with nothing of ours in it: a blocking socket that does exactly what a test says.
final class RawPeer: Sendable {
    let descriptor: Int32

    /// Connects to a port of this machine.
    init(port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = Self.loopback(port)
        let status = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard status == 0 else { throw SystemError(errno: errno, "connect") }
    }

    deinit { close(descriptor) }

    static func loopback(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return address
    }

    func send(_ bytes: [UInt8]) { _ = unsafe write(descriptor, bytes, bytes.count) }

    func endSending() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// Makes the close a reset instead of an end.
    func resetOnClose() {
        var value = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }

    func setReceiveBuffer(_ bytes: Int32) {
        var value = bytes
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &value, socklen_t(MemoryLayout<Int32>.size))
    }

    /// Up to `max` bytes; none at the peer's end, `nil` after a reset.
    func receive(max: Int = 65_536) -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: max)
        let count = unsafe read(descriptor, &buffer, max)
        return count < 0 ? nil : Array(buffer.prefix(count))
    }

    /// How many bytes were there to take.
    func takeAvailable() -> Int {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        return unsafe max(0, recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT)))
    }

    func receiveToEnd() -> [UInt8]? {
        var all: [UInt8] = []
        while let part = receive() {
            if part.isEmpty { return all }
            all += part
        }
        return nil
    }
}

/// A listening socket that never accepts.
final class DeafListener {
    let descriptor: Int32
    let port: Int

    init(backlog: Int32) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = RawPeer.loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = self.descriptor
        let status = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe bind(descriptor, address, length) | listen(descriptor, backlog)
                    | getsockname(descriptor, address, &length)
            }
        }
        port = Int(UInt16(bigEndian: address.sin_port))
        guard status == 0 else { throw SystemError(errno: errno, "listen") }
    }

    deinit { close(descriptor) }
}

func limitDescriptors(to count: Int) {
    var limit = rlimit(rlim_cur: rlim_t(count), rlim_max: rlim_t(count))
    _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
}

enum ThreadName {
    static var current: String {
        (try? File.text(of: "/proc/thread-self/comm").filter { !$0.isWhitespace }) ?? "?"
    }
}

/// Whether a sanitizer watches, which needs memory of its own.
let isSanitized: Bool = {
    let names = ["__tsan_init", "__asan_init"]
    return names.contains { unsafe dlsym(nil, $0) != nil }
}()
