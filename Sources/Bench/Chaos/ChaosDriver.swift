import HTTPClient
import System
import Wire

/// One chat's life: members send, and its admin adds and removes, all the time and without waiting for each other. Who is
/// in at a message is the log's to say; the driver only guesses, so some who send are out by then, and are told so.
final class ChaosDriver {
    unowned let run: ChaosRun
    let chat: ChatID
    let admin: ChaosDevice
    private var guess: Set<UserID>
    private let candidates: [UserID]
    private(set) var changes = 0
    private(set) var isChanging = false

    init(_ run: ChaosRun, chat: ChatID, admin: ChaosDevice, members: Set<UserID>, candidates: [UserID]) {
        self.run = run
        self.chat = chat
        self.admin = admin
        self.guess = members
        self.candidates = candidates
    }

    func start() {
        sendSoon()
        changeSoon()
    }

    private func sendSoon() {
        run.loop.schedule(afterMs: .random(in: 40...400, using: &run.generator)) { [unowned self] in
            guard run.isDriving else { return }
            let senders = candidates.filter { guess.contains($0) }
            if let sender = senders.randomElement(using: &run.generator) { run.device(of: sender)?.send(to: chat) }
            sendSoon()
        }
    }

    private func changeSoon() {
        run.loop.schedule(afterMs: .random(in: 100...1500, using: &run.generator)) { [unowned self] in
            guard run.isDriving, let user = candidates.filter({ $0 != admin.user }).randomElement(using: &run.generator)
            else { return }
            isChanging = true
            request(guess.contains(user) ? "DELETE" : "PUT", user)
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
                isChanging = false
                changeSoon()
            default: run.loop.schedule(afterMs: 100) { [unowned self] in request(method, user) }
            }
        }
    }

    private func changed(_ method: String, _ user: UserID, _ body: [UInt8]) {
        if method == "PUT" { guess.insert(user) } else { guess.remove(user) }
        changes += 1
        isChanging = false
        if let version = Self.version(body) {
            admin.learn(version, of: chat)
            // Whoever knows of the change may rely on it with the very next message.
            if run.isDriving, Bool.random(using: &run.generator) { admin.send(to: chat) }
        }
        changeSoon()
    }

    private enum Field: String, CaseIterable { case metaVersion = "meta_version" }
    private static let fields = JSONFields<Field>()

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
