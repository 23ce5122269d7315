import Foundation
import KafkaClient
import TestSupport
import Testing
import Wire

@testable import Broker

/// A broker that anyone can write anything to.
@Suite struct HostileInputTests {
    private func request(_ key: Int16, _ version: Int16, _ body: [UInt8]) -> [UInt8] {
        var frame: [UInt8] = []
        frame.appendBigEndian(key)
        frame.appendBigEndian(version)
        frame.appendBigEndian(Int32(77))
        frame.appendText("test")
        if let api = API.byKey[key]?.api, version >= api.flexibleFrom { frame.append(0) }
        frame += body
        var sized: [UInt8] = []
        sized.appendBigEndian(Int32(frame.count))
        return sized + frame
    }

    @Test func `no bytes of any request crash its decoder or make it allocate much`() {
        var random = SeededGenerator.announced("HostileInputTests.decoders")
        for type in API.requests {
            for version in type.api.versions {
                for round in 0..<60 {
                    let count = Int.random(in: 0...200, using: &random)
                    let bytes = (0..<count).map { _ in
                        // Small numbers make lengths and counts that go on a while; large ones lie.
                        round % 2 == 0
                            ? UInt8.random(in: 0...3, using: &random) : UInt8.random(in: 0...255, using: &random)
                    }
                    var reader = RequestReader(bytes.span, flexible: version >= type.api.flexibleFrom)
                    _ = try? type.init(from: &reader, version: version)
                    #expect(reader.position <= count)
                }
            }
        }
    }

    @Test func `counts and lengths that the request cannot hold are refused before anything is allocated`() {
        for bytes: [UInt8] in [
            [0x7f, 0xff, 0xff, 0xff], [0x80, 0, 0, 0], [0xff, 0xff, 0xff, 0xfe], [0, 0, 0, 5, 1],
        ] {
            var reader = RequestReader(bytes.span)
            #expect(throws: BrokerError.self) { _ = try reader.int32Array() }
        }
        for bytes: [UInt8] in [[0xff, 0xff, 0xff, 0xff, 0x0f], [0xff, 0xff, 0xff, 0xff, 0x1f], [0x80], [9, 1]] {
            var reader = RequestReader(bytes.span, flexible: true)
            #expect(throws: BrokerError.self) { _ = try reader.string() }
        }
    }

    @Test func `whatever arrives, that connection is closed and others are served`() throws {
        let kafka = try TestKafka.start()
        guard kafka.isEmbedded else { return }
        var random = SeededGenerator.announced("HostileInputTests.connections")
        let port = try #require(UInt16(kafka.address.split(separator: ":").last ?? ""))
        var attacks: [[UInt8]] = [
            [0xff, 0xff, 0xff, 0xff], [0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 0], [0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7],
            Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), request(9999, 0, []), request(0, 99, []),
            request(1, 17, [UInt8](repeating: 0xff, count: 300)), request(3, 1, [0x7f, 0xff, 0xff, 0xff]),
            request(24, 0, []), request(17, 0, Array("PLAIN".utf8)),
        ]
        for _ in 0..<40 {
            var bytes = (0..<Int.random(in: 1...300, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            // A believable size, so that the decoder sees the rest.
            bytes.insert(contentsOf: [0, 0, UInt8(bytes.count >> 8), UInt8(bytes.count & 0xff)], at: 0)
            attacks.append(bytes)
        }
        for attack in attacks {
            let peer = try RawClient(port: port)
            peer.send(attack)
            peer.finishSending()
            #expect(peer.isClosedByPeer(seconds: 10), "\(attack.prefix(40))")
        }
        let admin = try Admin(KafkaConfiguration(bootstrapServers: kafka.address, clientID: "test"))
        #expect(try admin.metadata().brokers.count == 1)
        _ = admin.close(deadlineMs: 5000)
    }

    @Test func `a request fed byte by byte is answered like one that comes at once`() throws {
        let kafka = try TestKafka.start()
        guard kafka.isEmbedded else { return }
        let port = try #require(UInt16(kafka.address.split(separator: ":").last ?? ""))
        let peer = try RawClient(port: port)
        for byte in request(18, 0, []) { peer.send([byte]) }
        let answer = try #require(peer.receiveFrame(seconds: 10))
        var reader = RequestReader(answer.span)
        #expect(try reader.int32() == 77)
        #expect(try reader.int16() == 0)
        let keys = try reader.array { reader throws(BrokerError) in
            let key = try reader.int16()
            _ = try reader.int16()
            _ = try reader.int16()
            return key
        }
        #expect(keys == API.requests.map { $0.api.key })
        // The version that nobody has yet gets the oldest answer, with an error and the versions to choose from.
        peer.send(request(18, 99, [1, 2, 3]))
        let refusal = try #require(peer.receiveFrame(seconds: 10))
        #expect(Array(refusal[4..<6]) == [0, 35])
        // Two requests in one write are answered in order.
        peer.send(request(18, 0, []) + request(16, 0, []))
        #expect(peer.receiveFrame(seconds: 10)?.count == answer.count)
        #expect(peer.receiveFrame(seconds: 10)?.count == 4 + 2 + 4)
    }
}

/// A socket without a protocol.
final class RawClient {
    struct Failure: Error {}
    private let descriptor: Int32

    init(port: UInt16) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let status = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard status == 0 else { throw Failure() }
        var on: Int32 = 1
        _ = unsafe setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4)
    }

    deinit { close(descriptor) }

    func send(_ bytes: [UInt8]) {
        _ = unsafe bytes.withUnsafeBytes {
            unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
    }

    func finishSending() { shutdown(descriptor, Int32(SHUT_WR)) }

    private func receive(_ count: Int, seconds: Int) -> [UInt8]? {
        var limit = timeval(tv_sec: seconds, tv_usec: 0)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let got = unsafe bytes.withUnsafeMutableBytes {
                unsafe recv(descriptor, $0.baseAddress?.advanced(by: filled), count - filled, 0)
            }
            guard got > 0 else { return nil }
            filled += got
        }
        return bytes
    }

    func receiveFrame(seconds: Int) -> [UInt8]? {
        guard let size = receive(4, seconds: seconds) else { return nil }
        return receive(Int(size.span.bigEndian(at: 0, as: Int32.self)), seconds: seconds)
    }

    /// Reads until the end, which must come.
    func isClosedByPeer(seconds: Int) -> Bool {
        var limit = timeval(tv_sec: seconds, tv_usec: 0)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let got = unsafe buffer.withUnsafeMutableBytes { unsafe recv(descriptor, $0.baseAddress, $0.count, 0) }
            if got == 0 { return true }
            if got < 0 { return errno == ECONNRESET }
        }
    }
}
