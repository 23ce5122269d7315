public import System
import Wire

/// Says to push services who we are (RFC 8292): a token for each of them, signed with a key that browsers were shown when
/// they subscribed. On one thread only.
public final class VAPID {
    /// How long a token is good for; a day is the most that is allowed.
    static let lifetimeMs: Int64 = 12 * 3_600_000
    static let originsMax = 1000

    private let key: PrivateKey
    private let subject: String
    public let publicKey: String
    private var headers: [String: (value: String, untilMs: Int64)] = [:]

    /// - Parameter subject: how the push service reaches whoever runs this: `mailto:…` or `https://…`.
    public init(key: PrivateKey, subject: String) throws(SystemError) {
        guard let point = try key.publicKey.p256Point else {
            throw SystemError(.invalidArgument, "read a VAPID key", message: "VAPID keys are P-256 keys")
        }
        self.key = key
        self.subject = subject
        publicKey = Base64.encode(point, .url)
    }

    /// `Authorization` for requests to this origin, made anew when half of its time is over.
    public func authorization(origin: String, nowMs: Int64) throws(SystemError) -> String {
        if let known = headers[origin], nowMs < known.untilMs { return known.value }
        var json = JSONWriter()
        json.object {
            $0.field("aud", origin)
            $0.field("exp", (nowMs + Self.lifetimeMs) / 1000)
            $0.field("sub", subject)
        }
        let signed = Self.header + "." + Base64.encode(json.bytes, .url)
        let token = signed + "." + Base64.encode(try key.sign(Array(signed.utf8)), .url)
        let value = "vapid t=\(token), k=\(publicKey)"
        // Anybody may subscribe with an origin of their own.
        if headers.count >= Self.originsMax { headers = [:] }
        headers[origin] = (value, nowMs + Self.lifetimeMs / 2)
        return value
    }

    private static let header = Base64.encode(Array(#"{"typ":"JWT","alg":"ES256"}"#.utf8), .url)
}
