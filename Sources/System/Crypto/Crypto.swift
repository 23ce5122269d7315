internal import COpenSSL

/// Digests, authentication codes, key derivation and authenticated encryption.
public enum Crypto {
    /// For the WebSocket handshake, which asks for no security of it.
    public static func sha1(_ bytes: Span<UInt8>) -> [UInt8] {
        unsafe digest(bytes, count: Int(SHA_DIGEST_LENGTH)) { unsafe SHA1($0, $1, $2) }
    }

    public static func sha256(_ bytes: Span<UInt8>) -> [UInt8] {
        unsafe digest(bytes, count: Int(SHA256_DIGEST_LENGTH)) { unsafe SHA256($0, $1, $2) }
    }

    public static func hmacSHA256(key: [UInt8], _ message: Span<UInt8>) -> [UInt8] {
        unsafe key.withUnsafeBufferPointer { key in
            unsafe digest(message, count: Int(SHA256_DIGEST_LENGTH)) { start, count, output in
                var length: UInt32 = 0
                // A missing address would mean "the key of the last call"; an empty key is none of our making.
                precondition(key.count > 0, "an empty HMAC key")
                return unsafe HMAC(EVP_sha256(), key.baseAddress, Int32(key.count), start, count, output, &length)
            }
        }
    }

    private static func digest(
        _ bytes: Span<UInt8>, count: Int,
        _ body: (UnsafePointer<UInt8>?, Int, UnsafeMutablePointer<UInt8>?) -> UnsafeMutablePointer<UInt8>?
    ) -> [UInt8] {
        unsafe bytes.withUnsafeBufferPointer { input in
            unsafe [UInt8](unsafeUninitializedCapacity: count) { output, filled in
                let made = unsafe body(input.baseAddress, input.count, output.baseAddress)
                precondition(unsafe made != nil, "a digest failed")
                filled = count
            }
        }
    }

    /// HKDF with SHA-256 (RFC 5869), up to 8160 bytes.
    public static func hkdfSHA256(secret: [UInt8], salt: [UInt8], info: [UInt8], count: Int) -> [UInt8] {
        precondition(count <= 255 * 32, "HKDF yields at most 255 blocks")
        let key = hmacSHA256(key: salt.isEmpty ? [UInt8](repeating: 0, count: 32) : salt, secret.span)
        var output: [UInt8] = []
        var block: [UInt8] = []
        var index: UInt8 = 0
        while output.count < count {
            index += 1
            block = hmacSHA256(key: key, (block + info + [index]).span)
            output += block
        }
        return Array(output.prefix(count))
    }

    /// Bytes that nobody can predict.
    public static func randomBytes(_ count: Int) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            // It fails only when the system has no entropy to give, and then no secret must be made.
            precondition(unsafe RAND_bytes(buffer.baseAddress, Int32(count)) == 1, "no randomness to be had")
            filled = count
        }
    }

    /// Whether two secrets are equal, in a time that does not tell where they differ.
    public static func areEqual(_ left: Span<UInt8>, _ right: Span<UInt8>) -> Bool {
        guard left.count == right.count else { return false }
        var difference: UInt8 = 0
        for index in 0..<left.count { difference |= left[index] ^ right[index] }
        return difference == 0
    }

    public static func sha1(_ bytes: [UInt8]) -> [UInt8] { sha1(bytes.span) }
    public static func sha256(_ bytes: [UInt8]) -> [UInt8] { sha256(bytes.span) }
    public static func hmacSHA256(key: [UInt8], _ message: [UInt8]) -> [UInt8] { hmacSHA256(key: key, message.span) }
    public static func areEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool { areEqual(left.span, right.span) }

    // MARK: AES-128-GCM

    public static let gcmTagBytes = 16

    /// The ciphertext with its tag of 16 bytes behind it. Never use a nonce of 12 bytes twice with one key.
    public static func sealAES128GCM(_ plain: [UInt8], key: [UInt8], nonce: [UInt8], authenticating: [UInt8] = [])
        throws(SystemError) -> [UInt8]
    {
        try gcm(plain, tag: nil, key: key, nonce: nonce, authenticating: authenticating)
    }

    /// The plain text; throws when anything was changed or the key is another.
    public static func openAES128GCM(_ sealed: [UInt8], key: [UInt8], nonce: [UInt8], authenticating: [UInt8] = [])
        throws(SystemError) -> [UInt8]
    {
        guard sealed.count >= gcmTagBytes else {
            throw SystemError(.corrupt, "decrypt", message: "shorter than its tag")
        }
        return try gcm(
            Array(sealed.dropLast(gcmTagBytes)), tag: Array(sealed.suffix(gcmTagBytes)), key: key, nonce: nonce,
            authenticating: authenticating)
    }

    private static func gcm(
        _ input: [UInt8], tag: [UInt8]?, key: [UInt8], nonce: [UInt8], authenticating: [UInt8]
    ) throws(SystemError) -> [UInt8] {
        guard key.count == 16, nonce.count == 12 else {
            throw SystemError(
                .invalidArgument, "encrypt", message: "AES-128-GCM takes a key of 16 and a nonce of 12 bytes")
        }
        let context = unsafe EVP_CIPHER_CTX_new()
        defer { unsafe EVP_CIPHER_CTX_free(context) }
        let encrypting: Int32 = tag == nil ? 1 : 0
        var length: Int32 = 0
        var good = unsafe EVP_CipherInit_ex(context, EVP_aes_128_gcm(), nil, key, nonce, encrypting) == 1
        if !authenticating.isEmpty {
            good =
                unsafe good && EVP_CipherUpdate(context, nil, &length, authenticating, Int32(authenticating.count)) == 1
        }
        var output = [UInt8](repeating: 0, count: input.count + gcmTagBytes)
        good = unsafe good && EVP_CipherUpdate(context, &output, &length, input, Int32(input.count)) == 1
        if var tag {
            good = unsafe good && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, Int32(tag.count), &tag) == 1
        }
        var rest = [UInt8](repeating: 0, count: 16)
        good = unsafe good && EVP_CipherFinal_ex(context, &rest, &length) == 1
        guard good else {
            throw SystemError(
                .corrupt, encrypting == 1 ? "encrypt" : "decrypt",
                message: "the data does not belong to the key, or was changed")
        }
        if tag != nil { return Array(output.prefix(input.count)) }
        var made = [UInt8](repeating: 0, count: gcmTagBytes)
        guard unsafe EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, Int32(made.count), &made) == 1 else {
            throw OpenSSL.error("encrypt")
        }
        return Array(output.prefix(input.count)) + made
    }
}
