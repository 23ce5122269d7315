import PushLink
import Runtime
import System
import WebSocket
import Wire

/// Which request is answered by what. On the loop's thread only.
final class HTTPRouter {
    unowned let chat: ChatLoop
    private(set) lazy var api = API(chat)
    private let files: StaticFiles?

    init(_ chat: ChatLoop) {
        self.chat = chat
        files = chat.configuration.webRoot.map { StaticFiles($0) }
    }

    /// Answers through `client.respond`, now or later.
    func handle(_ request: HTTPRequest, of client: Client) {
        guard let segments = request.segments else {
            return client.respond(HTTPAnswer.error(400, "bad_request", "malformed path"))
        }
        switch (request.method, segments.first) {
        case ("GET", "v1") where segments == ["v1", "ws"]: upgrade(request, client)
        case (_, "v1"): callAPI(request, segments, client)
        case ("GET", "healthz"), ("HEAD", "healthz"): client.respond(liveness)
        case ("GET", "readyz"), ("HEAD", "readyz"): client.respond(readiness)
        case ("GET", "metrics"):
            let type = "text/plain; version=0.0.4; charset=utf-8"
            client.respond(HTTPResponse(status: 200, type: type, body: chat.shared.registry.render()))
        case ("GET", "demo") where segments == ["demo", "users"]: client.respond(api.demoUsers(request))
        case ("GET", _), ("HEAD", _):
            client.respond(files?.answer(segments) ?? HTTPAnswer.notFound)
        default:
            client.respond(HTTPAnswer.error(405, "method_not_allowed", "not with \(request.method)"))
        }
    }

    private var readiness: HTTPResponse {
        let verdict = chat.shared.health.look()
        return HTTPAnswer.text(verdict.isReady ? 200 : 503, verdict.text)
    }

    private var liveness: HTTPResponse {
        let verdict = chat.shared.health.look()
        return HTTPAnswer.text(verdict.isAlive ? 200 : 503, verdict.isAlive ? "ok\n" : verdict.text)
    }

    // MARK: The API

    private func callAPI(_ request: HTTPRequest, _ segments: [String], _ client: Client) {
        let claims: TokenClaims
        do {
            claims = try authenticate(bearer(of: request))
        } catch {
            return client.respond(HTTPAnswer.unauthorised(error))
        }
        let path = Array(segments.dropFirst())
        wait(client) { self.api.answer(request, path, claims, $0) }
    }

    /// The answer may come in a later tick: until then nothing more is read from the client.
    private func wait(_ client: Client, _ body: (@escaping (HTTPResponse) -> Void) -> Void) {
        client.conversation?.isBusy = true
        body { [weak client] response in client?.respond(response) }
    }

    func bearer(of request: HTTPRequest) -> Substring? {
        guard request.fields.count(of: "authorization") == 1, let value = request.fields["authorization"],
            value.prefix(7).lowercased() == "bearer "
        else { return nil }
        return value.dropFirst(7).drop { $0 == " " }
    }

    func authenticate(_ token: Substring?) throws(TokenError) -> TokenClaims {
        do throws(TokenError) {
            guard let token else { throw .missing }
            let claims = try chat.shared.verifier.verify(token, nowMs: chat.loop.nowMs)
            if chat.shared.revocations.isRevoked(claims.user, issuedAtMs: claims.issuedAtMs) {
                throw .revoked
            }
            return claims
        } catch {
            chat.metrics.failed(error)
            throw error
        }
    }

    // MARK: The handshake

    private static let subprotocol = "fanout.v1"
    private static let tokenPrefix = "bearer."

    private func upgrade(_ request: HTTPRequest, _ client: Client) {
        let handshake: ServerHandshake
        do {
            handshake = try ServerHandshake(request)
        } catch {
            let fields = ServerHandshake.refusalFields(error)
            return client.respond(HTTPAnswer.error(error.status, "bad_handshake", error.description, fields: fields))
        }
        let offered = handshake.subprotocols.first { $0.hasPrefix(Self.tokenPrefix) }
        let subprotocol = handshake.subprotocols.contains(Self.subprotocol) ? Self.subprotocol : nil
        /// A browser's script never sees the status of a refused handshake: only a close code tells it what to do.
        func refuse(_ response: @autoclosure () -> HTTPResponse, _ code: CloseCode, _ reason: String) {
            guard offered != nil else { return client.respond(response()) }
            client.respond(upgrading: handshake.accept(subprotocol: subprotocol), thenClosing: code, reason)
        }
        if let waitMs = chat.admit() ?? (chat.shared.admits() ? nil : Int.random(in: 500...2000)) {
            chat.metrics.refused(.overloaded)
            return refuse(
                HTTPAnswer.overloaded("too many at once, or starting", retryAfterMs: waitMs), .tryAgainLater,
                "\(waitMs)")
        }
        if chat.database?.answers == false {
            // A session cannot start without it: which large chats its user is in is not known.
            let waitMs = Int.random(in: 1000...5000)
            chat.metrics.refused(.overloaded)
            return refuse(
                HTTPAnswer.overloaded("the database does not answer", retryAfterMs: waitMs), .tryAgainLater,
                "\(waitMs)")
        }
        let origins = chat.configuration.origins
        if let origin = handshake.origin, !origins.isEmpty, !origins.contains(origin) {
            return client.respond(HTTPAnswer.error(403, "bad_origin", "this site may not open connections"))
        }
        guard let device = request.query("device").flatMap({ DeviceID($0) }) else {
            return client.respond(HTTPAnswer.error(400, "bad_request", "device=<uuid> is required"))
        }
        do {
            let claims = try authenticate(bearer(of: request) ?? offered?.dropFirst(Self.tokenPrefix.count))
            let limit = chat.configuration.limits.connectionsPerUser
            guard chat.shared.counts.add(.user(claims.user), max: limit) else {
                let answer = HTTPAnswer.error(429, "too_many", "at most \(limit) devices at once")
                return refuse(answer, .tryAgainLater, "\(Int.random(in: 2000...5000))")
            }
            // One window for all: a client that wants it smaller does without.
            let agreement = chat.configuration.limits.deflates ? handshake.deflate : nil
            let deflate = agreement?.serverWindowBits == 15 ? agreement : nil
            let session = Session(claims, device: device, deflates: deflate != nil)
            chat.metrics.sessions.add(1)
            client.upgrade(handshake.accept(subprotocol: subprotocol, deflate: deflate), to: session)
        } catch {
            refuse(HTTPAnswer.unauthorised(error), .unauthorised, error.rawValue)
        }
    }
}

extension Client {
    /// Opens the WebSocket only to say why it is closed.
    func respond(upgrading answer: [UInt8], thenClosing code: CloseCode, _ reason: String) {
        conversation?.isClosing = true
        chat.metrics.closes(code)
        stream?.write(answer)
        stream?.write(Frame.encode(close: code, reason: reason))
        chat.end(self)
    }
}
