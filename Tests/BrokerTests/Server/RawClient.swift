import Foundation
import Wire

@testable import Broker

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

    /// A request's frame, its header filled in.
    static func request(_ key: Int16, _ version: Int16, _ body: [UInt8], clientID: String = "test") -> [UInt8] {
        var frame: [UInt8] = []
        frame.appendBigEndian(key)
        frame.appendBigEndian(version)
        frame.appendBigEndian(Int32(77))
        frame.appendText(clientID)
        if let api = API.byKey[key]?.api, version >= api.flexibleFrom { frame.append(0) }
        frame += body
        var sized: [UInt8] = []
        sized.appendBigEndian(Int32(frame.count))
        return sized + frame
    }

    /// A request whose body is written field by field: requests and answers have the same forms.
    static func request(
        _ key: Int16, _ version: Int16, clientID: String = "test", _ fields: (inout ResponseWriter) -> Void
    ) -> [UInt8] {
        let flexible = version >= API.byKey[key]?.api.flexibleFrom ?? .max
        var writer = ResponseWriter(correlationID: 0, flexible: flexible, flexibleHeader: false)
        fields(&writer)
        return request(key, version, Array(writer.bytes.dropFirst(8)), clientID: clientID)
    }

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
