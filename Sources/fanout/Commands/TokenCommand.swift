import Ingest
import Runtime
import System
import Wire

extension Command {
    static let token = Command(
        name: "token",
        summary: "make a token for a user, signed with the chat server's key",
        details: """
            For development, and for services that act for users:
              fanout token --user 018f3c1e-6d1a-4a3e-9d1b-2f1b6a5c7d80 --expires 7d
            """,
        options: [
            Option("user", .string("UUID"), "whose token it is"),
            Option("token-key", .string("SECRET"), "the chat server's --token-key", isSecret: true),
            Option("expires", .duration, "how long it is good for", standard: "24h"),
            Option("scope", .choice(["admin", "bot"]), "what it allows besides", isRepeated: true),
            Option("token-audience", .string("NAME"), "whom it is meant for"),
        ],
        run: { invocation in
            let options = invocation.options
            guard let user = UserID(try options.require("user")) else {
                throw UsageError("--user must be a lower-case UUID")
            }
            let secret = Array(try options.require("token-key").utf8)
            guard secret.count >= TokenVerifier.secretBytesMin else {
                throw UsageError("--token-key must have at least \(TokenVerifier.secretBytesMin) bytes")
            }
            Output.standard(
                TokenMint.mint(
                    user: user, secret: secret, nowMs: invocation.clock.wallMs,
                    lifetimeMs: Int64(options.durationMs("expires") ?? 0),
                    scopes: options.strings("scope").joined(separator: " "),
                    audience: options.string("token-audience")) + "\n")
            return .success
        })
}

extension Invocation {
    /// What a bench becomes anybody with, when the chat server's key is this.
    func tokens(_ key: [UInt8]) -> @Sendable (UserID, String) -> String {
        let clock = clock
        return { user, scopes in
            TokenMint.mint(user: user, secret: key, nowMs: clock.wallMs, lifetimeMs: 86_400_000, scopes: scopes)
        }
    }
}
