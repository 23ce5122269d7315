/// A client's wish to speak WebSocket, checked as RFC 6455 (4.2.1) demands.
public struct ServerHandshake: Sendable {
    public let key: String
    /// What the client offers to speak, in its order of preference.
    public let subprotocols: [String]
    public let deflate: DeflateAgreement?
    /// Browsers say which site's script opens the connection.
    public let origin: String?

    public init(_ request: HTTPRequest) throws(HTTPError) {
        guard request.method == "GET", request.minorVersion == 1, request.isUpgrade else {
            throw HTTPError(.notAnUpgrade)
        }
        guard request.body.isEmpty else { throw HTTPError(.badHandshake) }
        guard request.fields.list("sec-websocket-version") == ["13"] else {
            throw HTTPError(.unsupportedWebSocketVersion)
        }
        let keys = request.fields.all("sec-websocket-key")
        guard keys.count == 1, AcceptKey.isWellFormed(keys[0]) else { throw HTTPError(.badHandshake) }
        key = keys[0]
        subprotocols = request.fields.list("sec-websocket-protocol")
        // A repeated offer makes the answer ambiguous (4.1, 10).
        guard Set(subprotocols).count == subprotocols.count else { throw HTTPError(.badHandshake) }
        deflate = DeflateAgreement.choose(among: request.fields.list("sec-websocket-extensions"))
        origin = request.fields["origin"]
    }

    /// The answer after which frames follow.
    public func accept(subprotocol: String?, deflate: DeflateAgreement? = nil) -> [UInt8] {
        var response = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        response += "Sec-WebSocket-Accept: \(AcceptKey.answer(to: key))\r\n"
        if let subprotocol { response += "Sec-WebSocket-Protocol: \(subprotocol)\r\n" }
        if let deflate { response += "Sec-WebSocket-Extensions: \(deflate.header)\r\n" }
        return Array((response + "\r\n").utf8)
    }

    /// What a refusal must carry so that the client knows what would be accepted.
    public static func refusalFields(_ error: HTTPError) -> [HTTPResponse.Field] {
        switch error.code {
        case .unsupportedWebSocketVersion: [.init("Upgrade", "websocket"), .init("Sec-WebSocket-Version", "13")]
        case .notAnUpgrade: [.init("Upgrade", "websocket")]
        default: []
        }
    }
}
