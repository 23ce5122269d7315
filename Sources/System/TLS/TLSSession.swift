internal import COpenSSL
internal import CLinux
internal import Glibc

/// One stream's TLS state, on the stream's socket. Reads and writes report as the system calls do: a count, 0 for the
/// peer's end, or -1 with `errno`.
@safe
final class TLSSession {
    enum Step { case done, wait, failed }

    /// One TLS record holds at most this much.
    private static let recordBytes = 16 << 10

    private let ssl: OpaquePointer
    private var failure: SystemError?
    /// Bytes given to a write that OpenSSL could not complete; it insists on being given at least as many again.
    private var retryBytes = 0

    init(_ context: TLSContext, descriptor: Int32, host: String?) throws(SystemError) {
        let handle = context.handle
        guard let ssl = unsafe SSL_new(handle.context) else { throw OpenSSL.error("TLS setup") }
        unsafe self.ssl = unsafe ssl
        _ = unsafe SSL_set_fd(ssl, descriptor)
        if context.isServer {
            unsafe SSL_set_accept_state(ssl)
        } else {
            unsafe SSL_set_connect_state(ssl)
            if let host { try identify(host, verify: context.verifiesPeer) }
        }
    }

    deinit { unsafe SSL_free(ssl) }

    /// Names the host to a server that holds several certificates, and requires the presented one to be the host's.
    private func identify(_ host: String, verify: Bool) throws(SystemError) {
        let isAddress = SocketAddress.numeric(host: host, port: 0) != nil
        if !isAddress {
            var name = Array(host.utf8CString)
            _ = unsafe name.withUnsafeMutableBytes { bytes in
                unsafe SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, Int(TLSEXT_NAMETYPE_host_name), bytes.baseAddress)
            }
        }
        guard verify else { return }
        let status =
            isAddress
            ? unsafe X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host)
            : unsafe SSL_set1_host(ssl, host)
        guard status == 1 else { throw OpenSSL.error("TLS setup", on: host) }
    }

    func handshake() -> Step {
        ERR_clear_error()
        Glibc.errno = 0
        let status = unsafe SSL_do_handshake(ssl)
        if status == 1 { return .done }
        switch unsafe SSL_get_error(ssl, status) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .wait
        default:
            recordFailure("TLS handshake")
            return .failed
        }
    }

    func read(into buffer: UnsafeMutablePointer<UInt8>, max: Int) -> Int {
        ERR_clear_error()
        Glibc.errno = 0
        var count = 0
        let status = unsafe SSL_read_ex(ssl, buffer, max, &count)
        if status == 1 { return count }
        switch unsafe SSL_get_error(ssl, status) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: Glibc.errno = EAGAIN
        case SSL_ERROR_ZERO_RETURN: return 0
        case SSL_ERROR_SYSCALL where Glibc.errno == 0: return 0
        default: recordFailure("receive")
        }
        return -1
    }

    /// Encrypts and sends the next record of the queue.
    func write(_ outbox: Outbox, through loop: EventLoop) -> Int {
        // Writes happen at the end of a tick or at its start, never while a delegate looks at the read buffer.
        let buffer = unsafe loop.readBuffer
        let filled: Int
        if let range = outbox.frontFile {
            filled = unsafe range.file.read(
                into: buffer, offset: range.offset, count: min(range.count, Self.recordBytes))
            // Less than before means that the file was cut off meanwhile; 0 fails the stream.
            if filled <= 0 || filled < retryBytes { return min(filled, 0) }
        } else {
            filled = unsafe outbox.copy(into: buffer, max: Self.recordBytes)
        }
        ERR_clear_error()
        Glibc.errno = 0
        var sent = 0
        let status = unsafe SSL_write_ex(ssl, buffer, filled, &sent)
        if status == 1 {
            retryBytes = 0
            return sent
        }
        switch unsafe SSL_get_error(ssl, status) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE:
            retryBytes = filled
            Glibc.errno = EAGAIN
        default: recordFailure("send")
        }
        return -1
    }

    /// Tells the peer that no more will come. Does not wait for its answer.
    func sendClose() {
        ERR_clear_error()
        _ = unsafe SSL_shutdown(ssl)
    }

    private func recordFailure(_ operation: String) {
        let number = Glibc.errno
        let verification = unsafe SSL_get_verify_result(ssl)
        if verification != Int(X509_V_OK) {
            ERR_clear_error()
            let reason = unsafe String(cString: X509_verify_cert_error_string(verification))
            failure = SystemError(.tls, operation, message: "the peer's certificate is not accepted: \(reason)")
        } else if ERR_peek_error() != 0 {
            failure = OpenSSL.error(operation)
        } else if number != 0 {
            failure = SystemError(errno: number, operation)
        } else {
            failure = SystemError(.connectionClosed, operation, message: "the peer closed the connection")
        }
        Glibc.errno = EPROTO
    }

    /// What the last failed call has recorded.
    func error(peer: String) -> SystemError? {
        guard let failure else { return nil }
        return failure.on(peer)
    }

    /// What ALPN agreed on.
    var applicationProtocol: String? {
        var start: UnsafePointer<UInt8>?
        var length: UInt32 = 0
        unsafe SSL_get0_alpn_selected(ssl, &start, &length)
        guard let start = unsafe start, length > 0 else { return nil }
        return unsafe String(decoding: UnsafeBufferPointer(start: start, count: Int(length)), as: UTF8.self)
    }
}
