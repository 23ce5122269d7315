import HTTPClient
import System
import Wire

/// One chat's life: its admin sends, adds and removes, one thing after the other, so that at each message the members
/// are known. A change begins only when everything sent before it has reached whom it concerns.
final class ChaosDriver {
    unowned let run: ChaosRun
    let chat: ChatID
    let admin: ChaosDevice
    private(set) var members: Set<UserID>
    private let candidates: [UserID]
    private var metaVersion: Int64 = 0
    private var recent: [MessageID] = []
    private var waitingSinceNs: UInt64 = 0
    private(set) var changes = 0
    private(set) var isIdle = true

    init(_ run: ChaosRun, chat: ChatID, admin: ChaosDevice, members: Set<UserID>, candidates: [UserID]) {
        self.run = run
        self.chat = chat
        self.admin = admin
        self.members = members
        self.candidates = candidates
    }

    func step() {
        guard run.isDriving else {
            isIdle = true
            return
        }
        isIdle = false
        if Int.random(in: 0..<5, using: &run.generator) == 0 {
            change()
        } else {
            send()
            again(afterMs: .random(in: 20...200, using: &run.generator))
        }
    }

    private func again(afterMs: Int) {
        run.loop.schedule(afterMs: afterMs) { [unowned self] in step() }
    }

    private func send() {
        let id = MessageID.random(using: &run.generator)
        var json = JSONWriter()
        json.object {
            $0.field("type", "send")
            $0.field("id", id)
            $0.field("chat", chat)
            $0.field("text", "chaos")
            if metaVersion > 0 { $0.field("meta_version", metaVersion) }
        }
        run.ledger.send(id, chat: chat, members: members)
        recent.append(id)
        if recent.count > 16 { recent.removeFirst() }
        admin.send(id, json.bytes)
    }

    private func change() {
        let user = candidates[Int.random(in: 0..<candidates.count, using: &run.generator)]
        guard user != admin.user else { return again(afterMs: 5) }
        let concerned = members.contains(user) ? [admin.user, user] : [admin.user]
        wait(until: { [unowned self] in
            recent.allSatisfy { id in
                guard let message = run.ledger.sent[id] else { return true }
                if message.refusal != nil { return true }
                return message.seq != nil
                    && concerned.allSatisfy { !message.must.contains($0) || run.ledger.has($0, id) }
            }
        }) { [unowned self] in
            request(members.contains(user) ? "DELETE" : "PUT", user)
        }
    }

    private func wait(until condition: @escaping () -> Bool, _ then: @escaping () -> Void) {
        if condition() { return then() }
        run.loop.schedule(afterMs: 10) { [unowned self] in
            if run.isDriving { wait(until: condition, then) } else { isIdle = true }
        }
    }

    /// Tried until it is answered: both requests may be repeated.
    private func request(_ method: String, _ user: UserID) {
        let url = "http://\(run.target.host):\(run.target.port)/v1/chats/\(chat)/members/\(user)"
        let headers = [
            (name: "Authorization", value: "Bearer \(run.token(for: admin.user))"),
            (name: "Content-Type", value: "application/json"),
        ]
        run.http.send(HTTPRequest(method, url, headers: headers, body: method == "PUT" ? Array("{}".utf8) : [])) {
            [unowned self] result in
            switch result {
            case .success(let response)
            where (200..<300).contains(response.status) || response.status == 404 && method == "DELETE":
                changed(method, user, response.body)
            case .success(let response) where (400..<500).contains(response.status) && response.status != 429:
                run.violate(
                    "\(method) member was answered \(response.status): \(String(decoding: response.body, as: UTF8.self))"
                )
                again(afterMs: 100)
            default: run.loop.schedule(afterMs: 100) { [unowned self] in request(method, user) }
            }
        }
    }

    private enum Field: String, CaseIterable { case metaVersion = "meta_version" }
    private static let fields = JSONFields<Field>()

    private func changed(_ method: String, _ user: UserID, _ body: [UInt8]) {
        if method == "PUT" {
            run.ledger.joins(user, chat: chat)
            members.insert(user)
        } else {
            members.remove(user)
        }
        changes += 1
        if let version = Self.version(body) { metaVersion = max(metaVersion, version) }
        again(afterMs: .random(in: 5...50, using: &run.generator))
    }

    private static func version(_ body: [UInt8]) -> Int64? {
        var version: Int64?
        do throws(JSONError) {
            var reader = JSONReader(body.span)
            try reader.beginObject()
            while let name = try reader.nextField() {
                if fields.find(name, in: body.span) == .metaVersion {
                    version = try reader.readInt()
                } else {
                    try reader.skipValue()
                }
            }
        } catch {
            return nil
        }
        return version
    }
}
