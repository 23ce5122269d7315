import PostgresClient
import PushLink
import Store
import Runtime
import System
import WebSocket
import Wire

/// The HTTP API. Each call is answered exactly once; what the caller may not see is answered as if it were not there.
final class API {
    unowned let chat: ChatLoop
    typealias Answer = (HTTPResponse) -> Void

    init(_ chat: ChatLoop) { self.chat = chat }

    func answer(_ request: HTTPRequest, _ path: [String], _ claims: TokenClaims, _ answer: @escaping Answer) {
        let user = claims.user
        let ids = path.map { UUID($0) }
        func uuid(_ index: Int) -> UUID? { index < ids.count ? ids[index] : nil }
        let body: RequestBody
        do {
            body = try RequestBody(request.body)
        } catch {
            return answer(HTTPAnswer.error(400, "bad_json", "\(error)"))
        }
        switch (request.method, path.first, path.count) {
        case ("GET", "chats", 1): conversations(of: user, request, answer)
        case ("POST", "chats", 1): createChat(by: user, body, answer)
        case ("GET", "chats", 2): with(uuid(1), answer) { self.conversation(ChatID($0), claims, answer) }
        case ("DELETE", "chats", 2): with(uuid(1), answer) { self.deleteChat(ChatID($0), by: claims, answer) }
        case ("GET", "chats", 3) where path[2] == "messages":
            with(uuid(1), answer) { self.messages(of: ChatID($0), user, request, answer) }
        case (let method, "chats", 4) where path[2] == "members" && (method == "PUT" || method == "DELETE"):
            guard let member = uuid(3) else { return answer(HTTPAnswer.notFound) }
            with(uuid(1), answer) {
                self.changeMember(ID(member), of: ChatID($0), by: claims, isRemoval: method == "DELETE", body, answer)
            }
        case ("POST", "users", 1): createUser(body, claims, answer)
        case ("GET", "users", 2): with(uuid(1), answer) { self.user(UserID($0), answer) }
        case ("GET", "users", 3) where path[2] == "status":
            with(uuid(1), answer) { self.status(of: UserID($0), answer) }
        case ("GET", "endpoint", 1): endpoint(answer)
        case ("POST", "media", 1): media(body, user, answer)
        case ("GET", "ops", 1): operations(claims, answer)
        case (_, "push", 2): push(request, path[1], user, answer)
        case (_, "chats", _), (_, "users", _), (_, "endpoint", 1), (_, "media", 1), (_, "ops", 1):
            answer(HTTPAnswer.error(405, "method_not_allowed", "not with \(request.method)"))
        default: answer(HTTPAnswer.notFound)
        }
    }

    // MARK: What every call needs

    private func with(_ uuid: UUID?, _ answer: Answer, _ body: (UUID) -> Void) {
        if let uuid { body(uuid) } else { answer(HTTPAnswer.notFound) }
    }

    /// The database, or the answer that there is none.
    func database(_ answer: Answer) -> Database? {
        if let database = chat.database { return database }
        answer(HTTPAnswer.error(501, "not_configured", "this server has no database"))
        return nil
    }

    func failed(_ error: PostgresError, _ answer: Answer) {
        chat.log.warning("an API call failed", ["error": .init(error)])
        guard error.isTransient || error.code == .busy else {
            return answer(HTTPAnswer.error(500, "internal", "the call failed"))
        }
        answer(HTTPAnswer.overloaded("the database does not answer", retryAfterMs: Int.random(in: 500...2000)))
    }

    /// Goes on with the rows, or answers what went wrong.
    func rows<Row>(_ statement: Store.Statement<Row>, _ answer: @escaping Answer, _ body: @escaping ([Row]) -> Void) {
        guard let database = database(answer) else { return }
        database.rows(statement) { result in
            switch result {
            case .success(let rows): body(rows)
            case .failure(let error): self.failed(error, answer)
            }
        }
    }

    /// Goes on with where the caller stands in the chat; to all others the chat is not there.
    func standing(
        _ user: UserID, in chat: ChatID, _ answer: @escaping Answer, _ body: @escaping (Membership.Standing) -> Void
    ) {
        rows(Membership.standing(of: user, in: chat), answer) { rows in
            if let standing = rows.first { body(standing) } else { answer(HTTPAnswer.notFound) }
        }
    }

    /// Goes on with what the caller is in the chat; to who is neither in it nor has scope `admin` it is not there.
    func place(
        of claims: TokenClaims, in chat: ChatID, _ answer: @escaping Answer,
        _ body: @escaping (Membership.Place) -> Void
    ) {
        rows(Membership.place(of: claims.user, in: chat), answer) { rows in
            guard let place = rows.first, place.isMember || claims.scopes.contains(.admin) else {
                return answer(HTTPAnswer.notFound)
            }
            body(place)
        }
    }

    func limit(_ request: HTTPRequest, standard: Int) -> Int? {
        guard let text = request.query("limit") else { return standard }
        guard let number = Int(text), number > 0 else { return nil }
        return min(number, 200)
    }

    // MARK: Endpoint, media, operations

    private func endpoint(_ answer: Answer) {
        let url = chat.shared.directory.leastLoadedURL(nowMs: Int64(chat.loop.monotonicMs)) ?? chat.publicURL
        answer(HTTPAnswer.json { $0.field("url", url) })
    }

    private func media(_ body: RequestBody, _ user: UserID, _ answer: Answer) {
        guard let store = chat.configuration.media else {
            return answer(HTTPAnswer.error(501, "not_configured", "no media store is configured"))
        }
        guard let name = body.name, let type = body.type, let bytes = body.bytes else {
            return answer(HTTPAnswer.error(400, "bad_request", "name, type and bytes are required"))
        }
        guard bytes > 0, bytes <= store.bytesMax else {
            return answer(HTTPAnswer.error(413, "too_large", "media have at most \(store.bytesMax) bytes"))
        }
        guard let type = MediaStore.mediaType(type), !name.isEmpty, name.utf8.count <= 200 else {
            return answer(
                HTTPAnswer.error(
                    400, "bad_request", "name has 1 to 200 bytes, type is a media type without parameters"))
        }
        let key = "\(user)/\(UUID.random())/\(PercentCoding.encode(name))"
        let links = store.presign(key: key, type: type, bytes: bytes, nowMs: chat.loop.nowMs)
        answer(
            HTTPAnswer.json(201) {
                $0.field("put", links.put)
                $0.field("get", links.get)
                $0.field("type", type)
            })
    }

    private func operations(_ claims: TokenClaims, _ answer: @escaping Answer) {
        guard claims.scopes.contains(.admin) else {
            return answer(HTTPAnswer.error(403, "forbidden", "scope admin is required"))
        }
        let chat = chat
        StageMetrics.ask(chat.configuration.stages, on: chat.loop) { texts in
            answer(
                HTTPAnswer.json { json in
                    chat.writeOperations(to: &json)
                    json.name("metrics")
                    json.object {
                        for (name, text) in texts { $0.field(name, text) }
                    }
                })
        }
    }

    /// People to try the demo as, with a token each. Only to who names this server as it is known: a page of somebody else's
    /// whose name was made to resolve to this machine would name itself, and read the tokens.
    func demoUsers(_ request: HTTPRequest) -> HTTPResponse {
        guard Self.isKnown(host: request.fields["host"] ?? "", publicURL: chat.configuration.publicURL) else {
            return HTTPAnswer.error(
                403, "forbidden", "only by an address, as localhost, or by the name in --public-url")
        }
        guard let path = chat.configuration.demoUsersFile, let bytes = try? File.contents(of: path, maxBytes: 1 << 20)
        else { return HTTPAnswer.notFound }
        return HTTPAnswer.raw(bytes)
    }

    /// An address cannot be made to resolve to another.
    static func isKnown(host field: String, publicURL: String?) -> Bool {
        func name(_ authority: Substring) -> String {
            if authority.hasPrefix("[") { return authority.dropFirst().prefix { $0 != "]" }.lowercased() }
            return authority.prefix { $0 != ":" }.lowercased()
        }
        let host = name(field[...])
        let known = publicURL?.firstRange(of: "://").map { publicURL?[$0.upperBound...].prefix { $0 != "/" } ?? "" }
        return host == "localhost" || !host.isEmpty && host == known.map(name)
            || SocketAddress.numeric(host: host, port: 80) != nil
    }
}
