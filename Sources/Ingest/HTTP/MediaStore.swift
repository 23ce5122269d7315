import System
import WebSocket
import Wire

/// An S3-compatible store for media: clients put and get there directly, with links that are signed here (Signature Version 4,
/// presigned) and good for a while.
public struct MediaStore: Sendable {
    /// `https://s3.example.com`, without a path.
    public var endpoint: String
    public var bucket: String
    public var region: String
    public var accessKey: String
    public var secretKey: String
    /// Whether the bucket stands in the path or, as Amazon has it, in the endpoint's name.
    public var isPathStyle = true
    public var bytesMax: Int64 = 100 << 20
    public var putSeconds = 900
    /// Seven days, the most that the signature allows.
    public var getSeconds = 604_800

    public init(endpoint: String, bucket: String, region: String, accessKey: String, secretKey: String) {
        self.endpoint = endpoint
        self.bucket = bucket
        self.region = region
        self.accessKey = accessKey
        self.secretKey = secretKey
    }

    /// A media type in lower case, without parameters; `nil` for what is none.
    static func mediaType(_ text: String) -> String? {
        // Some letters beyond ASCII are ASCII in lower case.
        guard text.utf8.allSatisfy({ $0 < 0x80 }) else { return nil }
        let type = text.lowercased()
        let parts = type.split(separator: "/", omittingEmptySubsequences: false)
        let marks = Array("/+.-".utf8)
        guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty }), type.utf8.count <= 100,
            type.utf8.allSatisfy({ marks.contains($0) || $0 &- 0x30 < 10 || $0 &- 0x61 < 26 })
        else { return nil }
        return type
    }

    /// What a browser shows without running any of it. An allow-list, because nobody knows all that a browser runs.
    private static let shown: Set<String> = [
        "image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/heic", "image/bmp", "text/plain",
        "audio/mpeg", "audio/mp4", "audio/aac", "audio/ogg", "audio/wav", "audio/webm", "video/mp4", "video/webm",
        "video/ogg", "video/quicktime",
    ]

    /// The type and length are signed: the store refuses anything else. Whatever a browser could run in the store's name the
    /// link gives as a file to be saved; that is signed, too.
    func presign(key: String, type: String, bytes: Int64, nowMs: Int64) -> (put: String, get: String) {
        let headers = [("content-length", "\(bytes)"), ("content-type", type)]
        let more = Self.shown.contains(type) ? [] : [("response-content-disposition", "attachment")]
        return (
            url(method: "PUT", key: key, headers: headers, seconds: putSeconds, nowMs: nowMs),
            url(method: "GET", key: key, headers: [], more: more, seconds: getSeconds, nowMs: nowMs)
        )
    }

    /// - Parameter more: parameters whose names come behind `X-Amz-`, in their order.
    func url(
        method: String, key: String, headers: [(String, String)], more: [(String, String)] = [], seconds: Int,
        nowMs: Int64
    ) -> String {
        let time = SignatureTime(wallMs: nowMs)
        let host = endpoint.split(separator: "/").last.map(String.init) ?? endpoint
        let place = isPathStyle ? "/\(PercentCoding.encode(bucket))" : ""
        let path = "\(place)/\(PercentCoding.encode(key, keeping: "/%"))"
        let signed = (headers + [("host", host)]).sorted { $0.0 < $1.0 }
        let names = signed.map(\.0).joined(separator: ";")
        let scope = "\(time.day)/\(region)/s3/aws4_request"
        let parameters = [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"), ("X-Amz-Credential", "\(accessKey)/\(scope)"),
            ("X-Amz-Date", time.stamp), ("X-Amz-Expires", "\(seconds)"), ("X-Amz-SignedHeaders", names),
        ]
        let query = (parameters + more).map { "\($0.0)=\(PercentCoding.encode($0.1))" }.joined(separator: "&")
        let request =
            "\(method)\n\(path)\n\(query)\n" + signed.map { "\($0.0):\($0.1)\n" }.joined()
            + "\n\(names)\nUNSIGNED-PAYLOAD"
        let text = "AWS4-HMAC-SHA256\n\(time.stamp)\n\(scope)\n\(hex(Crypto.sha256(Array(request.utf8))))"
        var secret = Array("AWS4\(secretKey)".utf8)
        for part in [time.day, region, "s3", "aws4_request"] {
            secret = Crypto.hmacSHA256(key: secret, Array(part.utf8))
        }
        return "\(endpoint)\(path)?\(query)&X-Amz-Signature=\(hex(Crypto.hmacSHA256(key: secret, Array(text.utf8))))"
    }

    private func hex(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}
