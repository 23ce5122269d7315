import System
import Testing

@Suite struct AddressScopeTests {
    @Test(arguments: [
        "1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "192.167.1.1",
        "223.255.255.1",
        "2606:4700::1111", "2a00:1450::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1",
    ])
    func `addresses of the internet are public`(text: String) throws {
        #expect(try #require(SocketAddress.numeric(host: text, port: 1)).isPublic)
    }

    @Test(arguments: [
        "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
        "2001:db8::1", "2001::1", "2002:7f00:1::1", "fc00::1", "fd12::1", "fe80::1", "ff02::1", "100::1",
    ])
    func `this machine, private networks and what is set aside are not`(text: String) throws {
        #expect(try !#require(SocketAddress.numeric(host: text, port: 1)).isPublic)
    }
}
