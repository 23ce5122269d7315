import HTTPClient
public import Runtime
public import System
import Wire

/// Lets demo people talk, over the same protocol as everybody: something to look at for whoever opens the demo page. The
/// first of them is left to the person in front of the screen.
public final class DemoTraffic {
    let loop: EventLoop
    let target: SocketAddress
    private let usersFile: String
    private let http: HTTPClient
    private let log: Log
    private var bots: [Bot] = []

    /// - Parameter usersFile: names, ids and tokens, as the demo page gets them. Read again at each connection, since tokens
    ///   are renewed.
    public init(target: SocketAddress, usersFile: String, log: Log) throws {
        Signals.block([.terminate, .interrupt])
        loop = try EventLoop()
        http = try HTTPClient(loop: loop)
        self.target = target
        self.usersFile = usersFile
        self.log = log
    }

    /// Until a signal ends it.
    public func run() throws {
        let watch = try Signals.watch([.terminate, .interrupt], on: loop) { [loop] _ in loop.stop() }
        defer { watch.cancel() }
        let users = try DemoUser.read(usersFile).map(\.user)
        log.info("demo people talk", ["people": .init(max(0, users.count - 1))])
        bots = users.dropFirst().map { user in
            Bot(self, user: user, others: Set(users.dropFirst()), seed: .random(in: 0 ... .max))
        }
        for bot in bots { bot.connect() }
        loop.run()
        http.close()
    }

    func token(of user: UserID) -> String? { try? DemoUser.read(usersFile).first { $0.user == user }?.token }

    /// Asks for the conversations of a user; an answer that does not come is asked for again at the next event.
    func chats(of user: UserID, _ body: @escaping ([BotMind.Chat]) -> Void) {
        guard let token = token(of: user) else { return }
        let url = "http://\(target.host):\(target.port)/v1/chats?limit=50"
        let request = HTTPRequest("GET", url, headers: [(name: "Authorization", value: "Bearer \(token)")])
        http.send(request) { result in
            guard case .success(let response) = result, response.status == 200,
                let chats = try? DemoUser.chats(response.body.span)
            else { return }
            body(chats)
        }
    }
}

/// One of `/demo/users`.
struct DemoUser {
    let user: UserID
    let token: String

    private enum Field: String, CaseIterable { case user, token }
    private static let fields = JSONFields<Field>()

    static func read(_ path: String) throws -> [DemoUser] {
        let bytes = try File.contents(of: path, maxBytes: 1 << 20)
        let span = bytes.span
        var users: [DemoUser] = []
        var reader = JSONReader(span)
        try reader.beginArray()
        while try reader.nextElement() {
            var (user, token) = (UserID?.none, "")
            try reader.beginObject()
            while let name = try reader.nextField() {
                switch fields.find(name, in: span) {
                case .user: user = try reader.readID()
                case .token: token = try reader.readText()
                case nil: try reader.skipValue()
                }
            }
            if let user { users.append(DemoUser(user: user, token: token)) }
        }
        return users
    }

    private enum ChatField: String, CaseIterable { case chats, chat, kind }
    private static let chatFields = JSONFields<ChatField>()

    /// The answer of `GET /v1/chats`.
    static func chats(_ bytes: Span<UInt8>) throws(JSONError) -> [BotMind.Chat] {
        var chats: [BotMind.Chat] = []
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let name = try reader.nextField() {
            guard chatFields.find(name, in: bytes) == .chats else {
                try reader.skipValue()
                continue
            }
            try reader.beginArray()
            while try reader.nextElement() {
                var (chat, kind) = (ChatID?.none, "")
                try reader.beginObject()
                while let name = try reader.nextField() {
                    switch chatFields.find(name, in: bytes) {
                    case .chat: chat = try reader.readID()
                    case .kind: kind = try reader.readText()
                    default: try reader.skipValue()
                    }
                }
                if let chat { chats.append(.init(id: chat, isDirect: kind == "direct")) }
            }
        }
        return chats
    }
}
