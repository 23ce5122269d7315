import HTTPClient
import System

/// What a chat server counts, as its `/metrics` tells it now.
enum ChatMetrics {
    /// The series without labels that are whole numbers.
    static func read(_ address: SocketAddress, on loop: EventLoop) throws -> [String: Int] {
        let http = try HTTPClient(loop: loop)
        defer { http.close() }
        var answer: Result<HTTPResponse, HTTPError>?
        http.send(HTTPRequest("GET", "http://\(address.host):\(address.port)/metrics")) { answer = $0 }
        while answer == nil { loop.runOnce(timeoutMs: 10) }
        var values: [String: Int] = [:]
        for line in String(decoding: try answer?.get().body ?? [], as: UTF8.self).split(separator: "\n") {
            let parts = line.split(separator: " ")
            if parts.count == 2, let value = Int(parts[1]) { values[String(parts[0])] = value }
        }
        return values
    }
}
