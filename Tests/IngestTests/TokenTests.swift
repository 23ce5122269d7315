import Foundation
@testable import Ingest
import System
import Testing
import Wire

@Suite struct TokenTests {
    static let secret = Array("0123456789abcdef0123456789abcdef".utf8)
    let user = UserID.random()
    let nowMs: Int64 = 1_760_000_000_000

    private func part(_ json: String) -> String { Base64.encode(Array(json.utf8), .url) }

    /// A token of any header and claims, signed by any key.
    private func token(_ header: String, _ claims: String, secret: [UInt8] = TokenTests.secret) -> String {
        let text = part(header) + "." + part(claims)
        return text + "." + Base64.encode(Crypto.hmacSHA256(key: secret, Array(text.utf8)), .url)
    }

    private func verify(_ token: String, audience: String? = nil) -> TokenError? {
        do {
            let verifier = try TokenVerifier(
                TokenConfiguration(keys: .hs256(secret: Self.secret), audience: audience))
            _ = try verifier.verify(token, nowMs: nowMs)
            return nil
        } catch {
            return error as? TokenError
        }
    }

    private let hs256 = #"{"alg":"HS256","typ":"JWT"}"#
    private var good: String { #"{"sub":"\#(user)","exp":1760000100}"# }

    @Test func `a token that the server's own key signed says who one is`() throws {
        let verifier = try TokenVerifier(TokenConfiguration(keys: .hs256(secret: Self.secret)))
        let token = TokenMint.mint(
            user: user, secret: Self.secret, nowMs: nowMs, lifetimeMs: 60_000, scopes: "bot admin other")
        let claims = try verifier.verify(token, nowMs: nowMs)
        #expect(
            claims
                == TokenClaims(
                    user: user, expiresAtMs: nowMs + 60_000, issuedAtMs: nowMs, scopes: [.bot, .admin]))
    }

    @Test func `the algorithm is the server's, whatever the token says`() {
        #expect(verify(token(#"{"alg":"none"}"#, good)) == .wrongAlgorithm)
        #expect(verify(part(#"{"alg":"none"}"#) + "." + part(good) + ".") == .malformed)
        #expect(verify(token(#"{"alg":"hs256"}"#, good)) == .wrongAlgorithm)
        #expect(verify(token(#"{"alg":"HS512"}"#, good)) == .wrongAlgorithm)
        #expect(verify(token(#"{"alg":"RS256"}"#, good)) == .wrongAlgorithm)
        #expect(verify(token(#"{"alg":"HS256","alg":"none"}"#, good)) == .malformed)
        #expect(verify(token(#"{"alg":"HS256","crit":["exp"]}"#, good)) == .malformed)
        #expect(verify(token(#"{"typ":"JWT"}"#, good)) == .malformed)
    }

    @Test func `a public key is no secret: HS256 over an RSA key's PEM is refused`() throws {
        let key = try PrivateKey.generate(.rs256)
        let pem = try key.publicKey.pem
        let path = NSTemporaryDirectory() + "key-\(UUID.random()).pem"
        try File.replaceAtomically(path, with: pem)
        defer { try? File.remove(path) }
        let verifier = try TokenVerifier(TokenConfiguration(keys: .file(path: path, .rs256)))
        #expect(throws: TokenError.wrongAlgorithm) {
            try verifier.verify(token(hs256, good, secret: Array(pem.utf8)), nowMs: nowMs)
        }
        #expect(throws: TokenError.badSignature) {
            try verifier.verify(token(#"{"alg":"RS256"}"#, good, secret: Array(pem.utf8)), nowMs: nowMs)
        }
    }

    @Test func `a changed letter anywhere breaks the signature`() {
        let token = token(hs256, good)
        #expect(verify(token) == nil)
        for index in token.indices where token[index] != "." {
            var letters = Array(token)
            let place = token.distance(from: token.startIndex, to: index)
            letters[place] = letters[place] == "A" ? "B" : "A"
            #expect(verify(String(letters)) != nil, "letter \(place)")
        }
        #expect(
            verify(self.token(hs256, good, secret: Array("another secret of thirty-two bytes".utf8))) == .badSignature)
    }

    @Test func `time, audience and shape are checked`() {
        #expect(verify(token(hs256, #"{"sub":"\#(user)","exp":1759999960}"#)) == .expired)
        #expect(verify(token(hs256, #"{"sub":"\#(user)","exp":1759999980}"#)) == nil)
        #expect(verify(token(hs256, #"{"sub":"\#(user)"}"#)) == .malformed)
        #expect(verify(token(hs256, #"{"exp":1760000100}"#)) == .malformed)
        #expect(verify(token(hs256, #"{"sub":"bob","exp":1760000100}"#)) == .malformed)
        #expect(verify(token(hs256, #"{"sub":"\#(user)","exp":"never"}"#)) == .malformed)
        #expect(verify(token(hs256, #"{"sub":"\#(user)","exp":1760000100,"exp":1}"#)) == .malformed)
        #expect(verify(token(hs256, #"{"sub":"\#(user)","exp":1760000100,"nbf":1760000040}"#)) == .notYetValid)
        #expect(verify(token(hs256, #"{"sub":"\#(user)","exp":1760000100,"nbf":1760000020}"#)) == nil)
        #expect(verify(token(hs256, good), audience: "chat") == .wrongAudience)
        #expect(verify(token(hs256, #"{"sub":"\#(user)","exp":1760000100,"aud":"chat"}"#), audience: "chat") == nil)
        #expect(
            verify(token(hs256, #"{"sub":"\#(user)","exp":1760000100,"aud":["x","chat"]}"#), audience: "chat") == nil)
        #expect(
            verify(token(hs256, #"{"sub":"\#(user)","exp":1760000100,"aud":["x"]}"#), audience: "chat")
                == .wrongAudience)
    }

    @Test(arguments: ["", ".", "..", "a.b.c", "a.b", "a.b.c.d", "====.====.====", String(repeating: "a", count: 5000)])
    func `what is no token is malformed`(text: String) {
        #expect(verify(text) == .malformed)
    }

    @Test func `a padded spelling of a good token is no token`() {
        let parts = [#"{"alg":"HS256"}"#, #"{"sub":"\#(user)","exp":1760000100 }"#].map {
            Base64.encode(Array($0.utf8), .url)
        }
        let padded = parts.map { $0 + String(repeating: "=", count: (4 - $0.utf8.count % 4) % 4) }
        #expect(padded != parts)
        func signed(_ parts: [String]) -> String {
            let text = parts.joined(separator: ".")
            return text + "." + Base64.encode(Crypto.hmacSHA256(key: Self.secret, Array(text.utf8)), .url)
        }
        #expect(verify(signed(parts)) == nil)
        #expect(verify(signed(padded)) == .malformed)
        #expect(verify(signed(parts) + "=") == .malformed)
    }

    @Test func `a short secret is refused before anything starts`() {
        #expect(throws: IngestError.self) {
            try TokenVerifier(TokenConfiguration(keys: .hs256(secret: Array("short".utf8))))
        }
    }

    @Test(arguments: SignatureAlgorithm.allCases)
    func `public keys of every kind verify, and a changed file is taken up`(
        algorithm: SignatureAlgorithm
    ) throws {
        func signed(_ key: PrivateKey, kid: String?) throws -> String {
            let header = #"{"alg":"\#(algorithm.rawValue)"\#(kid.map { ",\"kid\":\"\($0)\"" } ?? "")}"#
            let text = part(header) + "." + part(good)
            return text + "." + Base64.encode(try key.sign(Array(text.utf8)), .url)
        }
        let (first, second) = (try PrivateKey.generate(algorithm), try PrivateKey.generate(algorithm))
        let path = NSTemporaryDirectory() + "key-\(UUID.random()).pem"
        defer { try? File.remove(path) }
        try File.replaceAtomically(path, with: try first.publicKey.pem)
        let verifier = try TokenVerifier(TokenConfiguration(keys: .file(path: path, algorithm)))
        #expect(try verifier.verify(try signed(first, kid: "a"), nowMs: nowMs).user == user)
        #expect(throws: TokenError.badSignature) { try verifier.verify(try signed(second, kid: nil), nowMs: nowMs) }
        #expect(try verifier.reload() == false)
        try File.replaceAtomically(path, with: try second.publicKey.pem)
        #expect(try verifier.reload())
        #expect(try verifier.verify(try signed(second, kid: nil), nowMs: nowMs).user == user)
        try File.replaceAtomically(path, with: "nonsense")
        #expect(throws: IngestError.self) { try verifier.reload() }
        #expect(try verifier.verify(try signed(second, kid: nil), nowMs: nowMs).user == user)
    }

    @Test func `a key is found in a JWK set by its id`() throws {
        // RFC 8037, appendix A.
        let set = """
            {"keys":[{"kty":"RSA","kid":"r","n":"AQAB","e":"AQAB"},
            {"kty":"OKP","crv":"Ed25519","kid":"e1","use":"enc","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
            {"kty":"OKP","crv":"Ed25519","kid":"e2","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}
            """
        let keys = try JWKSet.keys(of: Array(set.utf8), algorithm: .edDSA)
        #expect(keys.map(\.id) == ["e2"])
        let text = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        #expect(keys[0].key.isValid(try #require(Base64.decode(signature, .url)), over: Array(text.utf8)))
        #expect(try JWKSet.keys(of: Array(#"{"keys":[]}"#.utf8), algorithm: .rs256).isEmpty)
        #expect(throws: IngestError.self) { try JWKSet.keys(of: Array("[]".utf8), algorithm: .rs256) }
    }
}
