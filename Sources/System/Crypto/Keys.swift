internal import COpenSSL
internal import Glibc

/// How a token or a request is signed. Each key verifies only with the algorithm of its own kind, so a token cannot
/// choose.
public enum SignatureAlgorithm: String, Sendable, CaseIterable {
    case rs256 = "RS256"
    case es256 = "ES256"
    case edDSA = "EdDSA"
}

/// A public key, which verifies signatures. Threads may share it: OpenSSL locks a key, and it is not changed once made.
@safe
public final class PublicKey: @unchecked Sendable {
    public let algorithm: SignatureAlgorithm
    let handle: OpaquePointer

    fileprivate init(owning handle: OpaquePointer) throws(SystemError) {
        do throws(SystemError) {
            algorithm = try unsafe SignatureAlgorithm(of: handle)
        } catch {
            unsafe EVP_PKEY_free(handle)
            throw error
        }
        unsafe self.handle = unsafe handle
    }

    deinit { unsafe EVP_PKEY_free(handle) }

    /// A key in PEM: a public key, or a certificate.
    public convenience init(pem: String) throws(SystemError) {
        let key = unsafe withBIO(Array(pem.utf8)) { bio -> OpaquePointer? in
            guard pem.contains("CERTIFICATE") else { return unsafe PEM_read_bio_PUBKEY(bio, nil, nil, nil) }
            let certificate = unsafe PEM_read_bio_X509(bio, nil, nil, nil)
            defer { unsafe X509_free(certificate) }
            return unsafe X509_get_pubkey(certificate)
        }
        guard let key = unsafe key else { throw OpenSSL.error("read a public key") }
        try unsafe self.init(owning: key)
    }

    /// An RSA key by the numbers of a JWK: modulus and exponent, big-endian.
    public convenience init(rsaModulus modulus: [UInt8], exponent: [UInt8]) throws(SystemError) {
        guard modulus.count >= 256 else {
            throw SystemError(.invalidArgument, "read a public key", message: "RSA keys have at least 2048 bits")
        }
        let build = unsafe OSSL_PARAM_BLD_new()
        defer { unsafe OSSL_PARAM_BLD_free(build) }
        let n = unsafe BN_bin2bn(modulus, Int32(modulus.count), nil)
        let e = unsafe BN_bin2bn(exponent, Int32(exponent.count), nil)
        defer {
            unsafe BN_free(n)
            unsafe BN_free(e)
        }
        _ = unsafe OSSL_PARAM_BLD_push_BN(build, Name.modulus, n)
        _ = unsafe OSSL_PARAM_BLD_push_BN(build, Name.exponent, e)
        try unsafe self.init(owning: keyFromData("RSA", build, OpenSSL.publicKey))
    }

    /// A P-256 key by its point: `04`, x and y, as Web Push sends it.
    public convenience init(p256Point point: [UInt8]) throws(SystemError) {
        let build = unsafe OSSL_PARAM_BLD_new()
        defer { unsafe OSSL_PARAM_BLD_free(build) }
        _ = unsafe OSSL_PARAM_BLD_push_utf8_string(build, Name.group, Name.p256, 0)
        let key: OpaquePointer = try unsafe withLocalBytes(point) { (bytes) throws(SystemError) in
            _ = unsafe OSSL_PARAM_BLD_push_octet_string(build, Name.point, bytes.baseAddress, bytes.count)
            return try unsafe keyFromData("EC", build, OpenSSL.publicKey)
        }
        try unsafe self.init(owning: key)
    }

    /// A P-256 key by the coordinates of a JWK.
    public convenience init(p256X x: [UInt8], y: [UInt8]) throws(SystemError) {
        guard x.count == 32, y.count == 32 else {
            throw SystemError(.invalidArgument, "read a public key", message: "a P-256 coordinate has 32 bytes")
        }
        try self.init(p256Point: [4] + x + y)
    }

    /// An Ed25519 key by its 32 bytes: `x` of an OKP JWK.
    public convenience init(ed25519 bytes: [UInt8]) throws(SystemError) {
        guard let key = unsafe EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nil, bytes, bytes.count) else {
            throw OpenSSL.error("read a public key")
        }
        try unsafe self.init(owning: key)
    }

    /// Whether the signature is this key's over the message, in the form of JWS: for ES256 that is r and s, 32 bytes
    /// each.
    public func isValid(_ signature: [UInt8], over message: Span<UInt8>) -> Bool {
        guard let signature = algorithm == .es256 ? ECDSASignature.der(raw: signature) : signature else { return false }
        let context = unsafe EVP_MD_CTX_new()
        defer {
            unsafe EVP_MD_CTX_free(context)
            ERR_clear_error()
        }
        let digest = unsafe algorithm == .edDSA ? nil : EVP_sha256()
        guard unsafe EVP_DigestVerifyInit(context, nil, digest, nil, handle) == 1 else { return false }
        return unsafe message.withUnsafeBufferPointer { message in
            unsafe EVP_DigestVerify(context, signature, signature.count, message.baseAddress, message.count) == 1
        }
    }

    public func isValid(_ signature: [UInt8], over message: [UInt8]) -> Bool {
        isValid(signature, over: message.span)
    }

    /// The point of a P-256 key: `04`, x and y.
    public var p256Point: [UInt8]? {
        guard algorithm == .es256 else { return nil }
        return unsafe octets(of: handle, "pub")
    }

    public var pem: String { unsafe pemText { unsafe PEM_write_bio_PUBKEY($0, handle) } }
}

/// A private key, which signs and agrees on secrets. Threads may share it, as a public key.
@safe
public final class PrivateKey: @unchecked Sendable {
    public let algorithm: SignatureAlgorithm
    private let handle: OpaquePointer

    private init(owning handle: OpaquePointer) throws(SystemError) {
        do throws(SystemError) {
            algorithm = try unsafe SignatureAlgorithm(of: handle)
        } catch {
            unsafe EVP_PKEY_free(handle)
            throw error
        }
        unsafe self.handle = unsafe handle
    }

    deinit { unsafe EVP_PKEY_free(handle) }

    /// An unencrypted private key in PEM.
    public convenience init(pem: String) throws(SystemError) {
        // An empty password, since without one OpenSSL would ask for it on the terminal.
        var password: CChar = 0
        let key = unsafe withBIO(Array(pem.utf8)) { unsafe PEM_read_bio_PrivateKey($0, nil, nil, &password) }
        guard let key = unsafe key else { throw OpenSSL.error("read a private key") }
        try unsafe self.init(owning: key)
    }

    /// A new key; RSA with 2048 bits.
    public static func generate(_ algorithm: SignatureAlgorithm) throws(SystemError) -> PrivateKey {
        let kind =
            switch algorithm {
            case .rs256: EVP_PKEY_RSA
            case .es256: EVP_PKEY_EC
            case .edDSA: EVP_PKEY_ED25519
            }
        let context = unsafe EVP_PKEY_CTX_new_id(kind, nil)
        defer { unsafe EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        var good = unsafe EVP_PKEY_keygen_init(context) == 1
        if algorithm == .es256 {
            good = unsafe good && EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1) == 1
        } else if algorithm == .rs256 {
            good = unsafe good && EVP_PKEY_CTX_set_rsa_keygen_bits(context, 2048) == 1
        }
        good = unsafe good && EVP_PKEY_keygen(context, &key) == 1
        guard good, let key = unsafe key else { throw OpenSSL.error("generate a key") }
        return try unsafe PrivateKey(owning: key)
    }

    /// A P-256 key by its secret number of 32 bytes, as VAPID keys are written.
    public convenience init(p256Secret secret: [UInt8]) throws(SystemError) {
        let build = unsafe OSSL_PARAM_BLD_new()
        defer { unsafe OSSL_PARAM_BLD_free(build) }
        let number = unsafe BN_bin2bn(secret, Int32(secret.count), nil)
        defer { unsafe BN_clear_free(number) }
        let group = unsafe EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1)
        let point = unsafe EC_POINT_new(group)
        defer {
            unsafe EC_POINT_free(point)
            unsafe EC_GROUP_free(group)
        }
        var encoded = [UInt8](repeating: 0, count: 65)
        let size = encoded.count
        guard secret.count == 32, unsafe BN_is_zero(number) == 0,
            unsafe BN_cmp(number, EC_GROUP_get0_order(group)) < 0,
            unsafe EC_POINT_mul(group, point, number, nil, nil, nil) == 1,
            unsafe EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, &encoded, size, nil) == size
        else { throw SystemError(.invalidArgument, "read a private key", message: "not a P-256 secret of 32 bytes") }
        _ = unsafe OSSL_PARAM_BLD_push_utf8_string(build, Name.group, Name.p256, 0)
        _ = unsafe OSSL_PARAM_BLD_push_BN(build, Name.secret, number)
        let key: OpaquePointer = try unsafe withLocalBytes(encoded) { (bytes) throws(SystemError) in
            _ = unsafe OSSL_PARAM_BLD_push_octet_string(build, Name.point, bytes.baseAddress, bytes.count)
            return try unsafe keyFromData("EC", build, OpenSSL.keyPair)
        }
        try unsafe self.init(owning: key)
    }

    public var publicKey: PublicKey {
        get throws(SystemError) { try PublicKey(pem: unsafe pemText { unsafe PEM_write_bio_PUBKEY($0, handle) }) }
    }

    public var pem: String { unsafe pemText { unsafe PEM_write_bio_PrivateKey($0, handle, nil, nil, 0, nil, nil) } }

    /// The signature in the form of JWS.
    public func sign(_ message: Span<UInt8>) throws(SystemError) -> [UInt8] {
        let context = unsafe EVP_MD_CTX_new()
        defer { unsafe EVP_MD_CTX_free(context) }
        let digest = unsafe algorithm == .edDSA ? nil : EVP_sha256()
        guard unsafe EVP_DigestSignInit(context, nil, digest, nil, handle) == 1 else { throw OpenSSL.error("sign") }
        let signature = unsafe message.withUnsafeBufferPointer { message -> [UInt8]? in
            var count = 0
            guard unsafe EVP_DigestSign(context, nil, &count, message.baseAddress, message.count) == 1 else {
                return nil
            }
            var signature = [UInt8](repeating: 0, count: count)
            guard unsafe EVP_DigestSign(context, &signature, &count, message.baseAddress, message.count) == 1 else {
                return nil
            }
            return Array(signature.prefix(count))
        }
        guard let signature, let form = algorithm == .es256 ? ECDSASignature.raw(der: signature) : signature else {
            throw OpenSSL.error("sign")
        }
        return form
    }

    public func sign(_ message: [UInt8]) throws(SystemError) -> [UInt8] { try sign(message.span) }

    /// The secret that this P-256 key and another's public key share (ECDH): 32 bytes, to be put through a key
    /// derivation.
    public func agree(with peer: PublicKey) throws(SystemError) -> [UInt8] {
        guard algorithm == .es256, peer.algorithm == .es256 else {
            throw SystemError(.invalidArgument, "agree on a secret", message: "both keys have to be P-256 keys")
        }
        let context = unsafe EVP_PKEY_CTX_new(handle, nil)
        defer { unsafe EVP_PKEY_CTX_free(context) }
        var secret = [UInt8](repeating: 0, count: 32)
        var count = secret.count
        guard unsafe EVP_PKEY_derive_init(context) == 1, unsafe EVP_PKEY_derive_set_peer(context, peer.handle) == 1,
            unsafe EVP_PKEY_derive(context, &secret, &count) == 1, count == 32
        else { throw OpenSSL.error("agree on a secret") }
        return secret
    }
}

extension SignatureAlgorithm {
    fileprivate init(of handle: OpaquePointer) throws(SystemError) {
        switch unsafe EVP_PKEY_get_base_id(handle) {
        case EVP_PKEY_RSA:
            guard unsafe EVP_PKEY_get_bits(handle) >= 2048 else {
                throw SystemError(.invalidArgument, "read a key", message: "RSA keys have at least 2048 bits")
            }
            self = .rs256
        case EVP_PKEY_EC:
            guard unsafe EVP_PKEY_get_bits(handle) == 256 else {
                throw SystemError(.invalidArgument, "read a key", message: "EC keys are on the curve P-256")
            }
            self = .es256
        case EVP_PKEY_ED25519: self = .edDSA
        default:
            throw SystemError(.invalidArgument, "read a key", message: "keys are RSA, P-256 or Ed25519")
        }
    }
}

/// ECDSA signatures as JWS has them, two numbers of 32 bytes, and as OpenSSL has them, a DER sequence.
private enum ECDSASignature {
    static func der(raw: [UInt8]) -> [UInt8]? {
        guard raw.count == 64 else { return nil }
        let body = integer(raw[0..<32]) + integer(raw[32..<64])
        return [0x30, UInt8(body.count)] + body
    }

    /// Unsigned big-endian, as short as can be, with a zero before a set top bit.
    private static func integer(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
        var digits = Array(bytes.drop { $0 == 0 })
        if digits.isEmpty || digits[0] & 0x80 != 0 { digits.insert(0, at: 0) }
        return [0x02, UInt8(digits.count)] + digits
    }

    static func raw(der: [UInt8]) -> [UInt8]? {
        // What OpenSSL has just made: a sequence shorter than 128 bytes of two integers.
        guard der.count > 8, der[0] == 0x30, Int(der[1]) == der.count - 2 else { return nil }
        var output: [UInt8] = []
        var place = 2
        for _ in 0..<2 {
            guard place + 2 <= der.count, der[place] == 0x02 else { return nil }
            let end = place + 2 + Int(der[place + 1])
            guard end <= der.count else { return nil }
            let digits = der[(place + 2)..<end].drop { $0 == 0 }
            guard digits.count <= 32 else { return nil }
            output += [UInt8](repeating: 0, count: 32 - digits.count) + digits
            place = end
        }
        return output
    }
}

/// Names of a key's parts. The parameter builder keeps their addresses until it is read, so they are literals, which
/// stay where they are; a Swift string's C form ends with the call that it is passed to.
private enum Name {
    static var modulus: UnsafePointer<CChar> { unsafe pointer("n") }
    static var exponent: UnsafePointer<CChar> { unsafe pointer("e") }
    static var group: UnsafePointer<CChar> { unsafe pointer("group") }
    static var point: UnsafePointer<CChar> { unsafe pointer("pub") }
    static var secret: UnsafePointer<CChar> { unsafe pointer("priv") }
    static var p256: UnsafePointer<CChar> { unsafe pointer("prime256v1") }

    private static func pointer(_ name: StaticString) -> UnsafePointer<CChar> {
        unsafe UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    }
}

private func keyFromData(_ kind: String, _ build: OpaquePointer?, _ selection: Int32) throws(SystemError)
    -> OpaquePointer
{
    let parameters = unsafe OSSL_PARAM_BLD_to_param(build)
    let context = unsafe EVP_PKEY_CTX_new_from_name(nil, kind, nil)
    defer {
        unsafe EVP_PKEY_CTX_free(context)
        unsafe OSSL_PARAM_free(parameters)
    }
    var key: OpaquePointer?
    guard unsafe EVP_PKEY_fromdata_init(context) == 1,
        unsafe EVP_PKEY_fromdata(context, &key, selection, parameters) == 1, let key = unsafe key
    else { throw OpenSSL.error("read a key") }
    return unsafe key
}

private func octets(of key: OpaquePointer, _ name: String) -> [UInt8]? {
    var count = 0
    guard unsafe EVP_PKEY_get_octet_string_param(key, name, nil, 0, &count) == 1 else { return nil }
    var bytes = [UInt8](repeating: 0, count: count)
    let size = bytes.count
    guard unsafe EVP_PKEY_get_octet_string_param(key, name, &bytes, size, &count) == 1 else { return nil }
    return Array(bytes.prefix(count))
}

private func withBIO<Result>(_ bytes: [UInt8], _ body: (OpaquePointer?) -> Result) -> Result {
    unsafe bytes.withUnsafeBytes { buffer in
        let bio = unsafe BIO_new_mem_buf(buffer.baseAddress, Int32(buffer.count))
        defer { _ = unsafe BIO_free(bio) }
        return unsafe body(bio)
    }
}

private func withLocalBytes<Result>(
    _ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws(SystemError) -> Result
) throws(SystemError) -> Result {
    // The parameter builder keeps the address until it has been read, which is inside `body`.
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
    defer { unsafe copy.deallocate() }
    unsafe copy.copyBytes(from: bytes)
    return try unsafe body(UnsafeRawBufferPointer(copy))
}

private func pemText(_ write: (OpaquePointer?) -> Int32) -> String {
    let bio = unsafe BIO_new(BIO_s_mem())
    defer { _ = unsafe BIO_free(bio) }
    guard unsafe write(bio) == 1 else { return "" }
    var bytes = [UInt8](repeating: 0, count: 16 << 10)
    let count = unsafe BIO_read(bio, &bytes, Int32(bytes.count))
    return String(decoding: bytes.prefix(max(0, Int(count))), as: UTF8.self)
}
