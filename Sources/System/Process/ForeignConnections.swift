internal import CLinux
internal import Glibc

/// The TCP connections of another process, cut as by a network that goes away: for tests of what their two ends make of it.
///
/// The kernel lends a descriptor of a process to whoever may trace it (`pidfd_getfd`): root, or, where Yama does not forbid
/// it, the same user. A connection that is shut down through the borrowed descriptor is so for its owner as well.
public enum ForeignConnections {
    /// Cuts every established TCP connection of the process and answers how many; listening sockets stay. Throws
    /// `permissionDenied` where the kernel does not lend.
    public static func cut(of process: Int32) throws(SystemError) -> Int {
        let place = fanout_pidfd_open(process)
        guard place >= 0 else { throw SystemError.last("pidfd_open", on: "\(process)") }
        defer { _ = close(place) }
        var cuts = 0
        for name in try Directory.list("/proc/\(process)/fd") {
            guard let number = Int32(name) else { continue }
            let borrowed = fanout_pidfd_getfd(place, number)
            guard borrowed >= 0 else {
                // Closed since it was listed.
                if errno == EBADF { continue }
                throw SystemError.last("pidfd_getfd", on: "\(process)")
            }
            let socket = Socket(descriptor: borrowed)
            // Only a connection has a peer with an address.
            if socket.peerAddress != nil, shutdown(borrowed, Int32(SHUT_RDWR)) == 0 { cuts += 1 }
        }
        return cuts
    }
}
