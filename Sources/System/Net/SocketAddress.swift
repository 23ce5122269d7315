internal import CLinux
internal import Glibc

/// An IPv4 or IPv6 address with its port, as the kernel takes it.
public struct SocketAddress: Sendable, Hashable, CustomStringConvertible {
    /// The address in network order; IPv4 uses the first four bytes.
    let high: UInt64
    let low: UInt64
    private let scope: UInt32
    public let port: UInt16
    public let isIPv6: Bool

    /// The addresses of a name, in the order to try them. Blocks on the resolver unless `host` is an address itself, so
    /// loops leave it to another thread. An empty host, `*` or `0.0.0.0` means every interface.
    public static func resolve(host: String, port: Int) throws(SystemError) -> [SocketAddress] {
        try resolve(host: host, port: port, flags: host.isEmpty || host == "*" ? AI_PASSIVE : 0)
    }

    /// The address that `host` spells, without asking a resolver; `nil` for a name.
    public static func numeric(host: String, port: Int) -> SocketAddress? {
        try? resolve(host: host, port: port, flags: AI_NUMERICHOST).first
    }

    private static func resolve(host: String, port: Int, flags: Int32) throws(SystemError) -> [SocketAddress] {
        let subject = "\(host):\(port)"
        guard (0...65535).contains(port) else {
            throw SystemError(.invalidArgument, "resolve", on: subject, message: "a port is between 0 and 65535")
        }
        var hints = unsafe addrinfo()
        unsafe hints.ai_flags = flags | AI_NUMERICSERV
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        // Brackets set an IPv6 address apart from its port and are no part of it.
        let bare = host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
        let status = unsafe getaddrinfo(flags & AI_PASSIVE != 0 ? nil : bare, String(port), &hints, &list)
        guard status == 0 else {
            if status == EAI_SYSTEM { throw SystemError.last("resolve", on: subject) }
            let text = unsafe String(cString: gai_strerror(status))
            throw SystemError(.nameNotResolved, "resolve", on: subject, message: text)
        }
        defer { unsafe freeaddrinfo(list) }
        var addresses: [SocketAddress] = []
        var next = unsafe list
        while let entry = unsafe next {
            if let address = unsafe SocketAddress(entry.pointee.ai_addr), !addresses.contains(address) {
                addresses.append(address)
            }
            unsafe next = entry.pointee.ai_next
        }
        guard !addresses.isEmpty else {
            throw SystemError(.nameNotResolved, "resolve", on: subject, message: "no IPv4 or IPv6 address")
        }
        return addresses
    }

    var family: Int32 { isIPv6 ? AF_INET6 : AF_INET }

    init?(_ address: UnsafePointer<sockaddr>?) {
        guard let address = unsafe address else { return nil }
        switch Int32(unsafe address.pointee.sa_family) {
        case AF_INET:
            let raw = unsafe UnsafeRawPointer(address).loadUnaligned(as: sockaddr_in.self)
            high = UInt64(UInt32(bigEndian: raw.sin_addr.s_addr)) << 32
            low = 0
            scope = 0
            port = UInt16(bigEndian: raw.sin_port)
            isIPv6 = false
        case AF_INET6:
            let raw = unsafe UnsafeRawPointer(address).loadUnaligned(as: sockaddr_in6.self)
            let words = unsafe withUnsafeBytes(of: raw.sin6_addr) { bytes in
                (
                    unsafe bytes.loadUnaligned(as: UInt64.self),
                    unsafe bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
                )
            }
            high = UInt64(bigEndian: words.0)
            low = UInt64(bigEndian: words.1)
            scope = raw.sin6_scope_id
            port = UInt16(bigEndian: raw.sin6_port)
            isIPv6 = true
        default: return nil
        }
    }

    func withSockaddr<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        if isIPv6 {
            var raw = sockaddr_in6()
            raw.sin6_family = sa_family_t(AF_INET6)
            raw.sin6_port = port.bigEndian
            raw.sin6_scope_id = scope
            unsafe withUnsafeMutableBytes(of: &raw.sin6_addr) { bytes in
                unsafe bytes.storeBytes(of: high.bigEndian, as: UInt64.self)
                unsafe bytes.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            }
            return unsafe withUnsafeBytes(of: raw) { bytes in
                unsafe body(
                    bytes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
            }
        }
        var raw = sockaddr_in()
        raw.sin_family = sa_family_t(AF_INET)
        raw.sin_port = port.bigEndian
        raw.sin_addr.s_addr = UInt32(truncatingIfNeeded: high >> 32).bigEndian
        return unsafe withUnsafeBytes(of: raw) { bytes in
            unsafe body(
                bytes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
        }
    }

    /// The address without its port.
    public var host: String {
        unsafe withSockaddr { address, length in
            unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(NI_MAXHOST)) { buffer in
                let status = unsafe getnameinfo(
                    address, length, buffer.baseAddress, socklen_t(buffer.count), nil, 0, NI_NUMERICHOST)
                return status == 0 ? unsafe String(cString: buffer.baseAddress.unsafelyUnwrapped) : "?"
            }
        }
    }

    public var description: String { isIPv6 ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
