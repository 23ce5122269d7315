/// A client's side of the opening handshake: the request, and whether the answer accepts it (RFC 6455, 4.1).
public struct ClientHandshake: Sendable {
    public let request: [UInt8]
    private let key: String
    private let subprotocols: [String]

    /// - Parameter fields: further header fields, such as `Authorization`.
    public init(
        host: String, target: String, subprotocols: [String] = [], fields: [HTTPResponse.Field] = [],
        using generator: inout some RandomNumberGenerator
    ) {
        key = AcceptKey.fresh(&generator)
        self.subprotocols = subprotocols
        var text = "GET \(target) HTTP/1.1\r\nHost: \(host)\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        text += "Sec-WebSocket-Key: \(key)\r\nSec-WebSocket-Version: 13\r\n"
        if !subprotocols.isEmpty { text += "Sec-WebSocket-Protocol: \(subprotocols.joined(separator: ", "))\r\n" }
        for field in fields { text += "\(field.name): \(field.value)\r\n" }
        request = Array((text + "\r\n").utf8)
    }

    /// The subprotocol that the server chose, if any.
    public func verify(_ reply: HTTPReply) throws(HTTPError) -> String? {
        guard reply.status == 101 else { throw HTTPError(.notAnUpgrade) }
        guard reply.fields.list("connection", contains: "upgrade"),
            reply.fields["upgrade"]?.lowercased() == "websocket",
            reply.fields["sec-websocket-accept"] == AcceptKey.answer(to: key),
            reply.fields.count(of: "sec-websocket-extensions") == 0
        else { throw HTTPError(.badHandshake) }
        guard let chosen = reply.fields["sec-websocket-protocol"] else { return nil }
        guard subprotocols.contains(chosen) else { throw HTTPError(.badHandshake) }
        return chosen
    }
}
