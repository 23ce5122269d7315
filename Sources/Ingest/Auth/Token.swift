import System
public import Wire

/// Why a token is not accepted. What the client is told names no more than this.
public enum TokenError: String, Error, Sendable, CaseIterable {
    case missing = "a bearer token is required"
    case malformed = "the token is malformed"
    case wrongAlgorithm = "the token is signed with another algorithm"
    case unknownKey = "the token's key is not known"
    case badSignature = "the token's signature is wrong"
    case expired = "the token has expired"
    case notYetValid = "the token is not valid yet"
    case wrongAudience = "the token is meant for another audience"
    case revoked = "the token has been revoked"
}

/// What a verified token says.
public struct TokenClaims: Sendable, Equatable {
    public var user: UserID
    public var expiresAtMs: Int64
    /// When it was made; a token that does not say so counts as made at the beginning of time, and falls to any revocation.
    public var issuedAtMs: Int64 = 0
    public var scopes: Scopes = []

    public struct Scopes: OptionSet, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }

        /// May create users, change the members of any chat, delete it, and read the operations page.
        public static let admin = Scopes(rawValue: 1)
        /// Is not held to the rate of messages that people are.
        public static let bot = Scopes(rawValue: 2)
    }
}

/// A JWT (RFC 7519) in the compact form of JWS, taken apart but not believed.
struct Token {
    let algorithm: String
    let keyID: String?
    let payload: [UInt8]
    /// `header.payload` as signed.
    let signedText: [UInt8]
    let signature: [UInt8]

    /// A longer one is nothing that a chat client needs.
    static let textMax = 4096

    private enum HeaderField: String, CaseIterable { case alg, kid, typ, crit, b64 }
    private static let headerFields = JSONFields<HeaderField>()

    init(_ text: some StringProtocol) throws(TokenError) {
        let bytes = Array(text.utf8)
        // Base64url stands without padding here (RFC 7515, 2): with it one token would have several spellings.
        guard bytes.count <= Self.textMax, !bytes.contains(UInt8(ascii: "=")) else { throw .malformed }
        let parts = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 3,
            let header = Base64.decode(Array(parts[0]).span, .url),
            let payload = Base64.decode(Array(parts[1]).span, .url),
            let signature = Base64.decode(Array(parts[2]).span, .url), !signature.isEmpty
        else { throw .malformed }
        self.payload = payload
        self.signature = signature
        signedText = Array(bytes[..<(parts[0].count + 1 + parts[1].count)])
        do throws(JSONError) {
            var algorithm: String?
            var keyID: String?
            var reader = JSONReader(header.span)
            try reader.beginObject()
            while let name = try reader.nextField() {
                switch Self.headerFields.find(name, in: header.span) {
                case .alg:
                    // Twice the same name is how two readers are made to see two tokens.
                    guard algorithm == nil else { throw JSONError(.badValue, at: reader.offset) }
                    algorithm = try reader.readText()
                case .kid: keyID = try reader.readText()
                // Extensions that must be understood, and none is.
                case .crit, .b64: throw JSONError(.badValue, at: reader.offset)
                case .typ, nil: try reader.skipValue()
                }
            }
            try reader.finish()
            guard let algorithm else { throw JSONError(.missingField, at: 0) }
            (self.algorithm, self.keyID) = (algorithm, keyID)
        } catch {
            throw .malformed
        }
    }

    private enum ClaimField: String, CaseIterable { case sub, exp, nbf, iat, aud, scope }
    private static let claimFields = JSONFields<ClaimField>()

    /// The claims, checked against the time and the audience.
    func claims(nowMs: Int64, skewMs: Int64, audience: String?) throws(TokenError) -> TokenClaims {
        var user: UserID?
        var expiresAtMs: Int64?
        var notBeforeMs: Int64 = 0
        var isForUs = audience == nil
        var claims = TokenClaims(user: UserID(UUID(high: 0, low: 0)), expiresAtMs: 0)
        var seen: Set<ClaimField> = []
        do throws(JSONError) {
            var reader = JSONReader(payload.span)
            try reader.beginObject()
            while let name = try reader.nextField() {
                let field = Self.claimFields.find(name, in: payload.span)
                if let field, !seen.insert(field).inserted { throw JSONError(.badValue, at: reader.offset) }
                switch field {
                case .sub: user = try reader.readID()
                case .exp: expiresAtMs = try reader.readSeconds()
                case .nbf: notBeforeMs = try reader.readSeconds()
                case .iat: claims.issuedAtMs = try reader.readSeconds()
                case .aud:
                    if try reader.peek() == .array {
                        try reader.beginArray()
                        while try reader.nextElement() { if try reader.readText() == audience { isForUs = true } }
                    } else if try reader.readText() == audience {
                        isForUs = true
                    }
                case .scope:
                    for scope in try reader.readText().split(separator: " ") {
                        if scope == "admin" { claims.scopes.insert(.admin) }
                        if scope == "bot" { claims.scopes.insert(.bot) }
                    }
                case nil: try reader.skipValue()
                }
            }
            try reader.finish()
        } catch {
            throw .malformed
        }
        guard let user, let expiresAtMs else { throw .malformed }
        guard nowMs < expiresAtMs + skewMs else { throw .expired }
        guard nowMs >= notBeforeMs - skewMs else { throw .notYetValid }
        guard isForUs else { throw .wrongAudience }
        (claims.user, claims.expiresAtMs) = (user, expiresAtMs)
        return claims
    }
}

extension JSONReader {
    /// A NumericDate: seconds, possibly with a fraction, as milliseconds.
    @_lifetime(self: copy self)
    mutating func readSeconds() throws(JSONError) -> Int64 {
        let seconds = try readDouble()
        guard seconds >= 0, seconds < 1e12 else { throw JSONError(.numberOutOfRange, at: offset) }
        return Int64(seconds * 1000)
    }
}
