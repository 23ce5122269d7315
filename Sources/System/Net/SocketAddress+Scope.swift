extension SocketAddress {
    /// Whether the address is one of the whole internet: not this machine, not a private network, not a link, none that
    /// is set aside. What a stranger names and we then call has to be public, or they could reach through us what is
    /// closed to them.
    public var isPublic: Bool {
        guard isIPv6 else { return Self.isPublic(ipv4: UInt32(truncatingIfNeeded: high >> 32)) }
        // An IPv4 address in IPv6's clothes: mapped, or through a translator (64:ff9b::/96).
        if high == 0, low >> 32 == 0xffff || low >> 32 == 0 && low > 0xffff {
            return Self.isPublic(ipv4: UInt32(truncatingIfNeeded: low))
        }
        if high == 0x0064_ff9b_0000_0000, low >> 32 == 0 {
            return Self.isPublic(ipv4: UInt32(truncatingIfNeeded: low))
        }
        // 2002::/16 holds an IPv4 address behind its prefix.
        if high >> 48 == 0x2002 { return Self.isPublic(ipv4: UInt32(truncatingIfNeeded: high >> 16)) }
        // Of all others only 2000::/3 is given out; 2001:db8::/32 is for books, 2001::/32 tunnels through NATs.
        return high >> 61 == 1 && high >> 32 != 0x2001_0db8 && high >> 32 != 0x2001_0000
    }

    private static let setAside: [(network: UInt32, bits: UInt32)] = [
        (0x0000_0000, 8), (0x0a00_0000, 8), (0x6440_0000, 10), (0x7f00_0000, 8), (0xa9fe_0000, 16), (0xac10_0000, 12),
        (0xc000_0000, 24), (0xc000_0200, 24), (0xc058_6300, 24), (0xc0a8_0000, 16), (0xc612_0000, 15),
        (0xc633_6400, 24), (0xcb00_7100, 24), (0xe000_0000, 3),
    ]

    private static func isPublic(ipv4 address: UInt32) -> Bool {
        !setAside.contains { address >> (32 - $0.bits) == $0.network >> (32 - $0.bits) }
    }
}
