import PostgresClient
import Store
import System
import WebSocket
import Wire

/// How the caller's devices want to be told while they have no session: Web Push subscriptions, and tokens of the bridges
/// behind the webhook. A device speaks for itself: `?device=` names it, as for the WebSocket.
extension API {
    func push(_ request: HTTPRequest, _ name: String, _ user: UserID, _ answer: @escaping Answer) {
        switch (request.method, name) {
        case ("GET", "key"): pushKey(answer)
        case ("PUT", "subscriptions"), ("DELETE", "subscriptions"), ("PUT", "tokens"), ("DELETE", "tokens"):
            guard let device = request.query("device").flatMap({ DeviceID($0) }) else {
                return answer(HTTPAnswer.error(400, "bad_request", "device=<uuid> is required"))
            }
            switch (request.method, name) {
            case ("PUT", "subscriptions"): subscribe(device, user, request.body, answer)
            case ("DELETE", "subscriptions"):
                changePush([PushDevices.removeSubscription(of: device, user)], user, answer)
            case ("PUT", _): putToken(device, user, request.body, answer)
            default:
                let provider = request.query("provider")
                guard provider?.utf8.contains(0) != true else { return answer(HTTPAnswer.notFound) }
                changePush([PushDevices.removeTokens(of: device, provider: provider, user)], user, answer)
            }
        case (_, "key"), (_, "subscriptions"), (_, "tokens"):
            answer(HTTPAnswer.error(405, "method_not_allowed", "not with \(request.method)"))
        default: answer(HTTPAnswer.notFound)
        }
    }

    private func pushKey(_ answer: Answer) {
        guard let key = chat.configuration.vapidPublicKey else {
            return answer(HTTPAnswer.error(501, "not_configured", "no Web Push key is configured"))
        }
        answer(HTTPAnswer.json { $0.field("key", key) })
    }

    private func subscribe(_ device: DeviceID, _ user: UserID, _ bytes: [UInt8], _ answer: @escaping Answer) {
        let body: PushRequestBody
        do {
            body = try PushRequestBody(bytes)
        } catch {
            return answer(HTTPAnswer.error(400, "bad_json", "\(error)"))
        }
        guard let url = body.endpoint, let endpoint = PushEndpoint(url), isAllowed(endpoint) else {
            return answer(
                HTTPAnswer.error(400, "bad_request", "endpoint must be a public https URL of at most 2048 bytes"))
        }
        guard let point = body.p256dh.flatMap({ Base64.decode($0, .url) }), point.count == 65,
            (try? PublicKey(p256Point: point)) != nil, let secret = body.auth.flatMap({ Base64.decode($0, .url) }),
            secret.count == 16
        else {
            return answer(
                HTTPAnswer.error(
                    400, "bad_request", "keys.p256dh must be a P-256 point and keys.auth 16 bytes, in base64url"))
        }
        let subscription = PushDevices.Subscription(device: device, endpoint: url, publicKey: point, secret: secret)
        changePush(PushDevices.put(subscription, of: user), user, answer)
    }

    /// What a name resolves to is looked at when it is called: by then it may be another address.
    private func isAllowed(_ endpoint: PushEndpoint) -> Bool {
        if chat.configuration.allowsPrivateEndpoints { return true }
        // No push service listens at a port of the system's but 443, and others would be spoken to.
        guard endpoint.isEncrypted, endpoint.port == 443 || endpoint.port >= 1024 else { return false }
        let host = endpoint.host.hasSuffix(".") ? String(endpoint.host.dropLast()) : endpoint.host
        if let address = SocketAddress.numeric(host: host, port: Int(endpoint.port)) { return address.isPublic }
        // A name without a dot is one of this network's, and these endings are nobody's on the internet.
        return host.contains(".") && !host.hasSuffix(".")
            && ![".localhost", ".local", ".internal", ".home.arpa"].contains { host.hasSuffix($0) }
    }

    private func putToken(_ device: DeviceID, _ user: UserID, _ bytes: [UInt8], _ answer: @escaping Answer) {
        let body: PushRequestBody
        do {
            body = try PushRequestBody(bytes)
        } catch {
            return answer(HTTPAnswer.error(400, "bad_json", "\(error)"))
        }
        guard let provider = body.provider, let token = body.token, (1...64).contains(provider.utf8.count),
            (1...4096).contains(token.utf8.count), !provider.utf8.contains(0), !token.utf8.contains(0)
        else {
            return answer(
                HTTPAnswer.error(
                    400, "bad_request", "provider (at most 64 bytes) and token (at most 4096) are required"))
        }
        changePush(
            PushDevices.put(PushDevices.Token(device: device, provider: provider, token: token), of: user), user, answer
        )
    }

    private func changePush(_ changes: [Store.Statement<Never>], _ user: UserID, _ answer: @escaping Answer) {
        database(answer)?.change(changes, then: PushDevices.count(of: user)) { result in
            switch result {
            case .success: answer(HTTPAnswer.empty)
            case .failure(let error): self.failed(error, answer)
            }
        }
    }
}

/// What a browser's `PushSubscription` becomes as JSON, or a token of another provider. Other fields are passed over.
struct PushRequestBody {
    private(set) var endpoint: String?
    private(set) var p256dh: String?
    private(set) var auth: String?
    private(set) var provider: String?
    private(set) var token: String?

    private enum Field: String, CaseIterable { case endpoint, keys, provider, token }
    private enum KeyField: String, CaseIterable { case p256dh, auth }
    private static let fields = JSONFields<Field>()
    private static let keyFields = JSONFields<KeyField>()

    init(_ body: [UInt8]) throws(JSONError) {
        var reader = JSONReader(body.span)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: body.span) {
            case .endpoint: endpoint = try reader.readText()
            case .provider: provider = try reader.readText()
            case .token: token = try reader.readText()
            case .keys:
                try reader.beginObject()
                while let name = try reader.nextField() {
                    switch Self.keyFields.find(name, in: body.span) {
                    case .p256dh: p256dh = try reader.readText()
                    case .auth: auth = try reader.readText()
                    case nil: try reader.skipValue()
                    }
                }
            case nil: try reader.skipValue()
            }
        }
        try reader.finish()
    }
}
