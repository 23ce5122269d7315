public import System
public import Wire

/// The system under load: where it is, how to become anybody in it.
public struct LoadTarget: Sendable {
    public var address: SocketAddress
    public var postgres: String
    private let tokenKey: [UInt8]

    /// - Parameter tokenKey: the chat server's HS256 key.
    public init(address: SocketAddress, postgres: String, tokenKey: String) {
        self.address = address
        self.postgres = postgres
        self.tokenKey = Array(tokenKey.utf8)
    }

    /// A token for a bot, whom the rate limit does not hold back: a bench measures the pipeline, not its brakes.
    public func token(for user: UserID) -> String {
        var claims = JSONWriter()
        claims.object {
            $0.field("sub", user)
            $0.field("exp", SystemClock().wallMs / 1000 + 86_400)
            $0.field("scope", "bot")
        }
        let head = Base64.encode(Array(#"{"alg":"HS256","typ":"JWT"}"#.utf8), .url)
        let signed = head + "." + Base64.encode(claims.bytes, .url)
        return signed + "." + Base64.encode(Crypto.hmacSHA256(key: tokenKey, Array(signed.utf8)), .url)
    }
}
