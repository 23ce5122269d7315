internal import COpenSSL
internal import CLinux
internal import Glibc
internal import Runtime

/// The certificates and rules that a number of TLS streams share. Threads may share it.
public final class TLSContext: Sendable {
    public enum Role: Sendable {
        /// Presents a certificate chain (PEM, the server's own first) with its private key.
        case server(certificatePath: String, keyPath: String)
        /// Verifies the peer's chain and its host name. Without a path the system's certificate authorities decide.
        case client(authorityPath: String?)
        /// Encrypts without knowing to whom. For tests and for tunnels that are trusted otherwise.
        case unverifiedClient
    }

    public let role: Role
    public let handshakeTimeoutMs: Int
    private let applicationProtocols: [String]
    private let current: Guarded<TLSHandle>

    public init(_ role: Role, applicationProtocols: [String] = ["http/1.1"], handshakeTimeoutMs: Int = 10_000)
        throws(SystemError)
    {
        self.role = role
        self.handshakeTimeoutMs = handshakeTimeoutMs
        self.applicationProtocols = applicationProtocols
        current = Guarded(try TLSHandle(role, applicationProtocols))
    }

    /// Reads the certificate and key again, after they were renewed. New streams use them; when they cannot be read the
    /// old ones stay in use and the error is thrown.
    public func reload() throws(SystemError) {
        let fresh = try TLSHandle(role, applicationProtocols)
        current.withLock { $0 = fresh }
    }

    var handle: TLSHandle { current.withLock { $0 } }

    var isServer: Bool {
        if case .server = role { return true }
        return false
    }

    var verifiesPeer: Bool {
        if case .client = role { return true }
        return false
    }
}

/// One `SSL_CTX`. OpenSSL locks it itself, and it is not changed once made.
@safe
final class TLSHandle: @unchecked Sendable {
    let context: OpaquePointer
    /// The ALPN list as it goes over the wire. The server's callback reads it, so it lives as long as the context.
    private let protocols: UnsafeMutableBufferPointer<UInt8>

    init(_ role: TLSContext.Role, _ applicationProtocols: [String]) throws(SystemError) {
        let isServer = if case .server = role { true } else { false }
        guard let context = unsafe SSL_CTX_new(isServer ? TLS_server_method() : TLS_client_method()) else {
            throw OpenSSL.error("TLS setup")
        }
        unsafe self.context = unsafe context
        let list = applicationProtocols.flatMap { [UInt8($0.utf8.count)] + $0.utf8 }
        unsafe protocols = .allocate(capacity: list.count)
        _ = unsafe protocols.initialize(from: list)

        // Buffers of an idle session go back to the allocator (some 34 KiB); a write may take part of what it was
        // given, and the rest may come again from another address.
        let mode = SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        _ = unsafe SSL_CTX_ctrl(context, SSL_CTRL_MODE, Int(mode), nil)
        _ = unsafe SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(TLS1_2_VERSION), nil)
        // No state is kept a session: TLS 1.3 and 1.2 resume from tickets. A peer that closes without close_notify has
        // ended its stream; what we carry frames its own messages, so a cut shows.
        _ = unsafe SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, Int(SSL_SESS_CACHE_OFF), nil)
        _ = unsafe SSL_CTX_set_options(
            context, OpenSSL.ignoreUnexpectedEnd | OpenSSL.noRenegotiation | OpenSSL.noCompression)
        try configure(role)
        if !list.isEmpty {
            if isServer {
                unsafe SSL_CTX_set_alpn_select_cb(context, selectProtocol, Unmanaged.passUnretained(self).toOpaque())
            } else {
                _ = unsafe SSL_CTX_set_alpn_protos(context, protocols.baseAddress, UInt32(protocols.count))
            }
        }
    }

    deinit {
        unsafe SSL_CTX_free(context)
        unsafe protocols.deallocate()
    }

    private func configure(_ role: TLSContext.Role) throws(SystemError) {
        switch role {
        case .server(let certificatePath, let keyPath):
            guard unsafe SSL_CTX_use_certificate_chain_file(context, certificatePath) == 1 else {
                throw OpenSSL.error("read the TLS certificate", on: certificatePath)
            }
            guard unsafe SSL_CTX_use_PrivateKey_file(context, keyPath, SSL_FILETYPE_PEM) == 1 else {
                throw OpenSSL.error("read the TLS private key", on: keyPath)
            }
            guard unsafe SSL_CTX_check_private_key(context) == 1 else {
                throw SystemError(
                    .tls, "check the TLS private key", on: keyPath,
                    message: "it does not belong to the certificate in \(certificatePath)")
            }
        case .client(let authorityPath):
            unsafe SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
            if let authorityPath {
                guard unsafe SSL_CTX_load_verify_file(context, authorityPath) == 1 else {
                    throw OpenSSL.error("read the certificate authorities", on: authorityPath)
                }
            } else {
                _ = unsafe SSL_CTX_set_default_verify_paths(context)
            }
        case .unverifiedClient:
            unsafe SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nil)
        }
    }

    fileprivate func select(
        _ out: UnsafeMutablePointer<UnsafePointer<UInt8>?>, _ outLength: UnsafeMutablePointer<UInt8>,
        _ offered: UnsafePointer<UInt8>, _ offeredLength: UInt32
    ) -> Int32 {
        var chosen: UnsafeMutablePointer<UInt8>?
        let status = unsafe SSL_select_next_proto(
            &chosen, outLength, protocols.baseAddress, UInt32(protocols.count), offered, offeredLength)
        unsafe out.pointee = UnsafePointer(chosen)
        // A client that offers only what we do not speak goes on without; HTTP/1.1 is what everyone falls back to.
        return status == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK
    }
}

private let selectProtocol: SSL_CTX_alpn_select_cb_func = { _, out, outLength, offered, offeredLength, argument in
    guard let out = unsafe out, let outLength = unsafe outLength, let offered = unsafe offered,
        let argument = unsafe argument
    else { return SSL_TLSEXT_ERR_NOACK }
    let handle = unsafe Unmanaged<TLSHandle>.fromOpaque(argument).takeUnretainedValue()
    return unsafe handle.select(out, outLength, offered, offeredLength)
}
