public import System
import Synchronization
import Wire

/// How tokens are signed: one algorithm, fixed by configuration and never taken from a token.
public enum TokenKeys: Sendable {
    /// One secret shared with whoever makes the tokens.
    case hs256(secret: [UInt8])
    /// Public keys from a file: a JWK set, or one key in PEM. Read again when the file changes.
    case file(path: String, SignatureAlgorithm)
}

public struct TokenConfiguration: Sendable {
    public var keys: TokenKeys
    /// When given, a token must name it in `aud`.
    public var audience: String?
    /// How far the issuer's clock may be from ours.
    public var skewMs: Int64 = 30_000

    public init(keys: TokenKeys, audience: String? = nil) {
        self.keys = keys
        self.audience = audience
    }
}

/// Decides whether a token is genuine, current and meant for us. Any thread may ask.
public final class TokenVerifier: Sendable {
    private struct PublicKeys: Sendable {
        var byID: [String: PublicKey] = [:]
        /// For tokens without a key id: only when there is no choice.
        var only: PublicKey?
    }

    private enum Keys: Sendable {
        case hs256(secret: [UInt8])
        case published(SignatureAlgorithm)
    }

    private let configuration: TokenConfiguration
    private let keys: Keys
    private let published = Mutex(PublicKeys())
    private let fileStamp = Mutex<[UInt8]>([])

    /// A shorter secret than the hash can be guessed (RFC 7518, 3.2).
    public static let secretBytesMin = 32

    public init(_ configuration: TokenConfiguration) throws(IngestError) {
        self.configuration = configuration
        switch configuration.keys {
        case .hs256(let secret):
            guard secret.count >= Self.secretBytesMin else {
                throw IngestError(.configuration, "the token secret must have at least \(Self.secretBytesMin) bytes")
            }
            keys = .hs256(secret: secret)
        case .file(_, let algorithm):
            keys = .published(algorithm)
            _ = try reload()
        }
    }

    /// Reads the key file again if its content has changed; what is wrong with it is thrown and the old keys stay.
    public func reload() throws(IngestError) -> Bool {
        guard case .file(let path, let algorithm) = configuration.keys else { return false }
        let text: String
        do { text = try File.text(of: path) } catch {
            throw IngestError(.configuration, "cannot read the token keys: \(error)")
        }
        let stamp = Crypto.sha256(Array(text.utf8))
        guard fileStamp.withLock({ $0 }) != stamp else { return false }
        let fresh: PublicKeys
        if text.contains("-----BEGIN") {
            do {
                let key = try PublicKey(pem: text)
                guard key.algorithm == algorithm else {
                    throw IngestError(.configuration, "\(path) holds a key for \(key.algorithm.rawValue)")
                }
                fresh = PublicKeys(only: key)
            } catch let error as IngestError {
                throw error
            } catch {
                throw IngestError(.configuration, "cannot read the token key \(path): \(error)")
            }
        } else {
            let keys = try JWKSet.keys(of: Array(text.utf8), algorithm: algorithm)
            guard !keys.isEmpty else {
                throw IngestError(.configuration, "\(path) holds no key for \(algorithm.rawValue)")
            }
            fresh = PublicKeys(
                byID: Dictionary(keys.compactMap { key in key.id.map { ($0, key.key) } }) { first, _ in first },
                only: keys.count == 1 ? keys[0].key : nil)
        }
        published.withLock { $0 = fresh }
        fileStamp.withLock { $0 = stamp }
        return true
    }

    public func verify(_ text: some StringProtocol, nowMs: Int64) throws(TokenError) -> TokenClaims {
        let token = try Token(text)
        switch keys {
        case .hs256(let secret):
            guard token.algorithm == "HS256" else { throw .wrongAlgorithm }
            let expected = Crypto.hmacSHA256(key: secret, token.signedText)
            guard Crypto.areEqual(expected, token.signature) else { throw .badSignature }
        case .published(let algorithm):
            guard token.algorithm == algorithm.rawValue else { throw .wrongAlgorithm }
            let key = published.withLock { keys in
                // A single key in PEM has no id, so whatever id a token names is not held against it.
                token.keyID.flatMap { keys.byID[$0] } ?? (token.keyID == nil || keys.byID.isEmpty ? keys.only : nil)
            }
            guard let key else { throw .unknownKey }
            guard key.isValid(token.signature, over: token.signedText) else { throw .badSignature }
        }
        return try token.claims(nowMs: nowMs, skewMs: configuration.skewMs, audience: configuration.audience)
    }
}

/// A JWK set (RFC 7517), as far as it holds keys of one algorithm.
enum JWKSet {
    private enum SetField: String, CaseIterable { case keys }
    private static let setFields = JSONFields<SetField>()
    private enum KeyField: String, CaseIterable { case kty, crv, kid, use, alg, n, e, x, y }
    private static let keyFields = JSONFields<KeyField>()

    static func keys(of bytes: [UInt8], algorithm: SignatureAlgorithm) throws(IngestError) -> [(
        id: String?, key: PublicKey
    )] {
        var found: [(id: String?, key: PublicKey)] = []
        do {
            var reader = JSONReader(bytes.span)
            try reader.beginObject()
            while let name = try reader.nextField() {
                guard setFields.find(name, in: bytes.span) == .keys else {
                    try reader.skipValue()
                    continue
                }
                try reader.beginArray()
                while try reader.nextElement() {
                    let place = try reader.skipValue()
                    if let key = try key(Array(bytes[place]), algorithm) { found.append(key) }
                }
            }
            try reader.finish()
        } catch {
            throw IngestError(.configuration, "the JWK set cannot be read: \(error)")
        }
        return found
    }

    /// `nil` for a key of another kind or use.
    private static func key(
        _ bytes: [UInt8], _ algorithm: SignatureAlgorithm
    ) throws -> (id: String?, key: PublicKey)? {
        var values: [KeyField: String] = [:]
        var reader = JSONReader(bytes.span)
        try reader.beginObject()
        while let name = try reader.nextField() {
            if let field = keyFields.find(name, in: bytes.span) {
                values[field] = try reader.readText()
            } else {
                try reader.skipValue()
            }
        }
        if let use = values[.use], use != "sig" { return nil }
        if let given = values[.alg], given != algorithm.rawValue { return nil }
        func number(_ field: KeyField) -> [UInt8] { values[field].flatMap { Base64.decode($0, .url) } ?? [] }
        switch (algorithm, values[.kty], values[.crv]) {
        case (.rs256, "RSA", _):
            return (values[.kid], try PublicKey(rsaModulus: number(.n), exponent: number(.e)))
        case (.es256, "EC", "P-256"):
            return (values[.kid], try PublicKey(p256X: number(.x), y: number(.y)))
        case (.edDSA, "OKP", "Ed25519"):
            guard number(.x).count == 32 else { return nil }
            return (values[.kid], try PublicKey(ed25519: number(.x)))
        default: return nil
        }
    }
}
