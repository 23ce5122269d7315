import PostgresClient
import PushLink
import Store
import System
import WebSocket
import Wire

/// Users and their presence.
extension API {
    func createUser(_ body: RequestBody, _ claims: TokenClaims, _ answer: @escaping Answer) {
        guard claims.scopes.contains(.admin) else {
            return answer(HTTPAnswer.error(403, "forbidden", "scope admin is required"))
        }
        guard let name = body.name, !name.isEmpty, name.utf8.count <= 200, !name.utf8.contains(0) else {
            return answer(HTTPAnswer.error(400, "bad_request", "a name of at most 200 bytes is required"))
        }
        rows(Accounts.putUser(body.user ?? UserID.random(), name: name), answer) { rows in
            guard let user = rows.first else { return answer(HTTPAnswer.notFound) }
            answer(HTTPAnswer.json(201) { user.write(to: &$0) })
        }
    }

    func user(_ user: UserID, _ answer: @escaping Answer) {
        rows(Accounts.user(user), answer) { rows in
            guard let user = rows.first else { return answer(HTTPAnswer.notFound) }
            answer(HTTPAnswer.json { user.write(to: &$0) })
        }
    }

    /// Delivery knows, and is asked over the link; whoever has no owner there now cannot be told of.
    func status(of user: UserID, _ answer: @escaping Answer) {
        var isAnswered = false
        func once(_ response: HTTPResponse) {
            guard !isAnswered else { return }
            isAnswered = true
            answer(response)
        }
        chat.presence.look(user) { notice in
            once(
                HTTPAnswer.json {
                    $0.field("user", notice.user)
                    $0.field("status", notice.status == .online ? "online" : "offline")
                    $0.field("last_seen", notice.lastSeen)
                })
        }
        chat.loop.schedule(afterMs: 2000) {
            once(HTTPAnswer.overloaded("presence is not known now", retryAfterMs: Int.random(in: 500...2000)))
        }
    }
}

extension Accounts.User {
    func write(to json: inout JSONWriter) {
        json.field("user", user)
        json.field("name", name)
    }
}
