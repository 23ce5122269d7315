import WebSocket
import Wire

/// Answers in JSON.
enum HTTPAnswer {
    static func json(_ status: Int = 200, _ body: (inout JSONWriter) -> Void) -> HTTPResponse {
        var json = JSONWriter()
        json.object(body)
        return raw(json.bytes, status)
    }

    static func raw(_ json: [UInt8], _ status: Int = 200) -> HTTPResponse {
        HTTPResponse(
            status: status, type: "application/json", fields: [.init("Cache-Control", "no-store")], body: json)
    }

    static func error(
        _ status: Int, _ code: String, _ message: String, fields: [HTTPResponse.Field] = []
    ) -> HTTPResponse {
        var response = json(status) {
            $0.name("error")
            $0.object {
                $0.field("code", code)
                $0.field("message", message)
            }
        }
        response.fields += fields
        return response
    }

    static func text(_ status: Int, _ text: String) -> HTTPResponse {
        HTTPResponse(status: status, type: "text/plain; charset=utf-8", body: Array(text.utf8))
    }

    static let empty = HTTPResponse(status: 204)

    static let notFound = error(404, "not_found", "there is no such thing, or it is not yours to see")

    static func unauthorised(_ error: TokenError) -> HTTPResponse {
        self.error(401, "unauthorised", error.rawValue, fields: [.init("WWW-Authenticate", "Bearer")])
    }

    /// Comes back after a time that differs from client to client.
    static func overloaded(_ message: String, retryAfterMs: Int) -> HTTPResponse {
        error(503, "overloaded", message, fields: [.init("Retry-After", "\((retryAfterMs + 999) / 1000)")])
    }
}
