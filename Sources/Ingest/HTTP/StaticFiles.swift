import System
import WebSocket

/// The files of one directory: the demo client and the operations page. They are few and small, and read each time they are
/// asked for, so that a changed file shows at once.
struct StaticFiles {
    private let root: String
    private static let bytesMax = 4 << 20

    private static let types = [
        "html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8",
        "json": "application/json", "svg": "image/svg+xml", "png": "image/png", "ico": "image/x-icon",
        "woff2": "font/woff2", "txt": "text/plain; charset=utf-8", "webmanifest": "application/manifest+json",
    ]

    init(_ root: String) { self.root = root }

    /// `nil` when there is no such file. Names are plain: no dot at the front, nothing but letters, digits, `.`, `-`, `_`.
    func answer(_ segments: [String]) -> HTTPResponse? {
        var segments = segments
        if segments.isEmpty { segments = ["index.html"] }
        guard segments.count <= 4, segments.allSatisfy(Self.isPlain) else { return nil }
        if !(segments.last?.contains(".") ?? false) { segments[segments.count - 1] += ".html" }
        guard let type = segments.last?.split(separator: ".").last.flatMap({ Self.types[String($0)] }),
            let bytes = try? File.contents(of: root + "/" + segments.joined(separator: "/"), maxBytes: Self.bytesMax)
        else { return nil }
        return HTTPResponse(
            status: 200, type: type,
            fields: [
                .init("Cache-Control", "no-cache"), .init("X-Content-Type-Options", "nosniff"),
                .init("X-Frame-Options", "DENY"), .init("Referrer-Policy", "no-referrer"),
                .init(
                    "Content-Security-Policy",
                    "default-src 'self'; connect-src 'self' ws: wss: https:; img-src 'self' https: data:; "
                        + "frame-ancestors 'none'; base-uri 'none'"),
            ],
            body: bytes)
    }

    private static func isPlain(_ name: String) -> Bool {
        name.utf8.first != 0x2e
            && name.utf8.allSatisfy {
                switch $0 {
                case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f: true
                default: false
                }
            }
    }
}
