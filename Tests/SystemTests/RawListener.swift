import Glibc
import System
import TestSupport

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

/// Leaves the process so many descriptors more. The limit is on their numbers, and a process may have been started with
/// numbers far apart.
func leaveDescriptors(_ count: Int) {
    let free = (0..<count).map { _ in dup(0) }
    let end = (free.max() ?? 0) + 1
    for descriptor in free { close(descriptor) }
    var limit = rlimit(rlim_cur: rlim_t(end), rlim_max: rlim_t(end))
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
