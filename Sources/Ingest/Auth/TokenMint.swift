import System
public import Wire

/// Makes development tokens for `fanout token` and the demo: HS256 with the server's own secret.
public enum TokenMint {
    public static func mint(
        user: UserID, secret: [UInt8], nowMs: Int64, lifetimeMs: Int64, scopes: String = "", audience: String? = nil
    ) -> String {
        var header = JSONWriter()
        header.object {
            $0.field("alg", "HS256")
            $0.field("typ", "JWT")
        }
        var payload = JSONWriter()
        payload.object {
            $0.field("sub", user)
            $0.field("iat", nowMs / 1000)
            $0.field("exp", (nowMs + lifetimeMs) / 1000)
            if let audience { $0.field("aud", audience) }
            if !scopes.isEmpty { $0.field("scope", scopes) }
        }
        let text = Base64.encode(header.bytes, .url) + "." + Base64.encode(payload.bytes, .url)
        return text + "." + Base64.encode(Crypto.hmacSHA256(key: secret, Array(text.utf8)), .url)
    }
}
