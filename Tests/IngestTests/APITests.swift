import Foundation
@testable import Ingest
import PostgresClient
import PushLink
import Runtime
import System
import TestSupport
import Testing
import WebSocket
import Wire

/// The HTTP API over a real Postgres.
@Suite(.serialized) struct APITests {
    /// A server with a database, and three users.
    private struct Place {
        let bench: Bench
        let database: String
        let admin = UserID.random()
        let anna = UserID.random()
        let ben = UserID.random()
        let eve = UserID.random()

        init(_ change: (inout IngestConfiguration) -> Void = { _ in }) throws {
            database = try PostgresCluster.shared().freshDatabase(migrated: true)
            bench = try Bench(postgres: database, change)
            var postgres = try PostgresConnection(database)
            for (user, name) in [(anna, "Anna"), (ben, "Ben"), (eve, "Eve")] {
                try postgres.query("INSERT INTO users (user_id, name) VALUES ($1, $2)", [.id(user), .text(name)])
            }
            let bench = bench
            try bench.wait("the database is there") { (try? bench.http("GET", "/readyz").status) == 200 }
        }

        func call(
            _ method: String, _ path: String, as user: UserID, _ body: String? = nil, scopes: String = ""
        ) throws -> (status: Int, text: String) {
            let reply = try bench.http(method, path, token: bench.token(user, scopes: scopes), body: body)
            return (reply.status, String(decoding: reply.body, as: UTF8.self))
        }

        func chat(_ body: String, as user: UserID) throws -> String {
            let made = try call("POST", "/v1/chats", as: user, body)
            try #require(made.status == 201 || made.status == 200, "\(made)")
            return try #require(made.text.firstMatch(of: /"chat":"([^"]+)"/).map { String($0.1) })
        }

        /// Stores a message as History would.
        func store(_ chat: String, seq: Int64, from user: UserID, _ text: String) throws {
            var postgres = try PostgresConnection(database)
            let ts = SystemClock().wallMs - 1000 + seq
            try postgres.execute(
                """
                CREATE TABLE IF NOT EXISTS messages_all PARTITION OF messages DEFAULT;
                INSERT INTO messages (chat_id, ts, seq, message_id, sender, kind, body)
                VALUES ('\(chat)', \(ts), \(seq), '\(UUID.random())', '\(user)', 'text', '{"text":"\(text)"}');
                UPDATE members SET joined_at = now() - interval '1 day';
                """)
        }
    }

    @Test func `a direct chat of two is one, whoever asks for it`() throws {
        let place = try Place()
        let first = try place.call(
            "POST", "/v1/chats", as: place.anna, #"{"kind":"direct","members":["\#(place.ben)"]}"#)
        let second = try place.call(
            "POST", "/v1/chats", as: place.ben, #"{"kind":"direct","members":["\#(place.anna)"]}"#)
        #expect(first.status == 201 && second.status == 200)
        #expect(first.text == second.text)
        #expect(first.text.contains(#""meta_version":1"#))
        let alone = try place.call(
            "POST", "/v1/chats", as: place.anna, #"{"kind":"direct","members":["\#(place.anna)"]}"#)
        #expect(alone.status == 400)
    }

    @Test func `a group is changed by its admins alone, and answers its version`() throws {
        let place = try Place()
        let chat = try place.chat(#"{"kind":"group","title":"T \"x\"","members":["\#(place.ben)"]}"#, as: place.anna)
        #expect(try place.call("PUT", "/v1/chats/\(chat)/members/\(place.eve)", as: place.ben).status == 403)
        let added = try place.call(
            "PUT", "/v1/chats/\(chat)/members/\(place.eve)", as: place.anna, #"{"role":"admin"}"#)
        #expect(added.status == 200 && added.text == #"{"meta_version":2}"#)
        let left = try place.call("DELETE", "/v1/chats/\(chat)/members/\(place.ben)", as: place.ben)
        #expect(left.text == #"{"meta_version":3}"#)
        #expect(try place.call("GET", "/v1/chats/\(chat)", as: place.ben).status == 404)
        let shown = try place.call("GET", "/v1/chats/\(chat)", as: place.eve)
        #expect(shown.text.contains(#""title":"T \"x\"""#) && shown.text.contains(#""members_count":2"#))
        #expect(shown.text.contains(#""user":"\#(place.anna)","name":"Anna","role":"admin""#))
        #expect(try place.call("PUT", "/v1/chats/\(chat)/members/\(UserID.random())", as: place.anna).status == 422)
        #expect(try place.call("DELETE", "/v1/chats/\(chat)", as: place.ben).status == 404)
        #expect(try place.call("DELETE", "/v1/chats/\(chat)", as: place.anna).status == 204)
        #expect(try place.call("GET", "/v1/chats/\(chat)", as: place.anna).status == 404)
    }

    @Test func `scope admin changes any chat without being in it, reads nothing in it, and leaves a line in the log`()
        throws
    {
        let place = try Place()
        let chat = try place.chat(#"{"kind":"group","title":"T","members":["\#(place.ben)"]}"#, as: place.anna)
        func admin(_ method: String, _ path: String, _ body: String? = nil) throws -> (status: Int, text: String) {
            try place.call(method, path, as: place.admin, body, scopes: "admin")
        }
        let seen = try admin("GET", "/v1/chats/\(chat)")
        #expect(
            seen.status == 200 && seen.text.contains(#""title":"T","meta_version":1,"members_count":2,"members":["#))
        #expect(try admin("GET", "/v1/chats/\(chat)/messages").status == 404)
        #expect(
            try admin("PUT", "/v1/chats/\(chat)/members/\(place.eve)", #"{"role":"admin"}"#)
                == (200, #"{"meta_version":2}"#))
        #expect(try admin("DELETE", "/v1/chats/\(chat)/members/\(place.anna)") == (200, #"{"meta_version":3}"#))
        let direct = try place.chat(#"{"kind":"direct","members":["\#(place.ben)"]}"#, as: place.anna)
        #expect(try admin("PUT", "/v1/chats/\(direct)/members/\(place.eve)").status == 403)
        #expect(try place.call("DELETE", "/v1/chats/\(direct)", as: place.anna).status == 403)
        #expect(try admin("DELETE", "/v1/chats/\(direct)").status == 204)
        #expect(try admin("DELETE", "/v1/chats/\(chat)").status == 204)
        #expect(try admin("GET", "/v1/chats/\(chat)").status == 404)
        #expect(try admin("DELETE", "/v1/chats/\(ChatID.random())").status == 404)
        // Without the scope the same user is a stranger; scope bot is no admin.
        let other = try place.chat(#"{"kind":"group","members":["\#(place.ben)"]}"#, as: place.anna)
        for scopes in ["", "bot"] {
            for (method, path) in [("GET", ""), ("DELETE", ""), ("PUT", "/members/\(place.eve)")] {
                let answer = try place.call(method, "/v1/chats/\(other)\(path)", as: place.admin, scopes: scopes)
                #expect(answer.status == 404, "\(method) \(path) \(scopes)")
            }
        }
    }

    @Test func `a group whose last admin leaves has another one, and the answer names the version of both changes`()
        throws
    {
        let place = try Place()
        let chat = try place.chat(
            #"{"kind":"group","members":["\#(place.ben)","\#(place.eve)"]}"#, as: place.anna)
        let heir = try #require([place.ben, place.eve].min())
        let left = try place.call("DELETE", "/v1/chats/\(chat)/members/\(place.anna)", as: place.anna)
        #expect(left == (200, #"{"meta_version":3}"#))
        let shown = try place.call("GET", "/v1/chats/\(chat)", as: heir)
        #expect(shown.text.contains(#""meta_version":3,"role":"admin""#))
        #expect(try place.call("DELETE", "/v1/chats/\(chat)", as: heir).status == 204)
    }

    @Test func `who is not in a chat cannot tell it from one that is not there`() throws {
        let place = try Place()
        let chat = try place.chat(#"{"kind":"group","members":["\#(place.ben)"]}"#, as: place.anna)
        for id in [chat, ChatID.random().description] {
            for (method, path) in [
                ("GET", "/v1/chats/\(id)"), ("GET", "/v1/chats/\(id)/messages"), ("DELETE", "/v1/chats/\(id)"),
                ("PUT", "/v1/chats/\(id)/members/\(place.eve)"), ("DELETE", "/v1/chats/\(id)/members/\(place.ben)"),
            ] {
                let answer = try place.call(method, path, as: place.eve)
                #expect(answer.status == 404 && answer.text.contains("not_found"), "\(method) \(path)")
            }
        }
    }

    @Test func `conversations are listed newest first, and history comes in pages`() throws {
        let place = try Place()
        let chat = try place.chat(#"{"kind":"group","title":"G","members":["\#(place.ben)"]}"#, as: place.anna)
        for seq in 1...5 as ClosedRange<Int64> { try place.store(chat, seq: seq, from: place.ben, "m\(seq)") }
        func page(_ query: String) throws -> (seqs: [String], more: Bool) {
            let answer = try place.call("GET", "/v1/chats/\(chat)/messages\(query)", as: place.anna)
            try #require(answer.status == 200, "\(answer)")
            return (answer.text.matches(of: /"seq":(\d+)/).map { String($0.1) }, answer.text.contains(#""more":true"#))
        }
        #expect(try page("?limit=2") == (["4", "5"], true))
        #expect(try page("?before=4&limit=2") == (["2", "3"], true))
        #expect(try page("?before=2") == (["1"], false))
        #expect(try page("?after=2&limit=2") == (["3", "4"], true))
        #expect(try page("?after=5") == ([], false))
        #expect(try place.call("GET", "/v1/chats/\(chat)/messages?before=x", as: place.anna).status == 400)
        #expect(try place.call("GET", "/v1/chats/\(chat)/messages?limit=0", as: place.anna).status == 400)
        let direct = try place.chat(#"{"kind":"direct","members":["\#(place.ben)"]}"#, as: place.anna)
        let list = try place.call("GET", "/v1/chats?limit=1", as: place.anna)
        #expect(list.text.contains(direct) && list.text.contains(#""peer":{"user":"\#(place.ben)","name":"Ben"}"#))
        let next = try #require(list.text.firstMatch(of: /"next":"([^"]+)"/).map { String($0.1) })
        let second = try place.call("GET", "/v1/chats?limit=1&page=\(next)", as: place.anna)
        #expect(second.text.contains(chat) && !second.text.contains(direct))
    }

    @Test func `a page of 50 messages of 10,000 CJK characters arrives`() throws {
        let place = try Place()
        let chat = try place.chat(#"{"kind":"group","members":["\#(place.ben)"]}"#, as: place.anna)
        let text = String(repeating: "語", count: 10_000)
        for seq in 1...50 as ClosedRange<Int64> { try place.store(chat, seq: seq, from: place.ben, text) }
        let answer = try place.call("GET", "/v1/chats/\(chat)/messages?limit=50", as: place.anna)
        #expect(answer.status == 200)
        #expect(answer.text.matches(of: /"seq":(\d+)/).compactMap { Int($0.1) } == Array(1...50))
        #expect(answer.text.utf8.count { $0 == 0xe8 } >= 500_000 && answer.text.hasSuffix(#""more":false}"#))
    }

    @Test func `users are made by admins and seen by all`() throws {
        let place = try Place()
        #expect(try place.call("POST", "/v1/users", as: place.anna, #"{"name":"X"}"#).status == 403)
        let made = try place.call(
            "POST", "/v1/users", as: place.admin, #"{"name":"'; DROP TABLE users; --"}"#, scopes: "admin")
        #expect(made.status == 201)
        let user = try #require(made.text.firstMatch(of: /"user":"([^"]+)"/).map { String($0.1) })
        let seen = try place.call("GET", "/v1/users/\(user)", as: place.eve)
        #expect(seen.text == #"{"user":"\#(user)","name":"'; DROP TABLE users; --"}"#)
        #expect(try place.call("GET", "/v1/users/\(UserID.random())", as: place.eve).status == 404)
        #expect(try place.call("POST", "/v1/users", as: place.admin, #"{"name":5}"#, scopes: "admin").status == 400)
        #expect(try place.call("GET", "/v1/ops", as: place.anna).status == 403)
        #expect(try place.call("GET", "/v1/ops", as: place.admin, scopes: "admin").text.contains(#""instances":["#))
    }

    @Test func `a user's status is what Delivery says`() throws {
        let place = try Place()
        let worker = try place.bench.worker()
        let raw = Raw()
        let token = place.bench.token(place.anna)
        raw.connect(
            place.bench,
            Array(
                "GET /v1/users/\(place.ben)/status HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \(token)\r\n\r\n".utf8))
        try place.bench.wait("the owner is asked") { worker.messages.contains(.watch([place.ben])) }
        worker.send(.presence([PresenceNotice(user: place.ben, status: .online, lastSeen: 9)]))
        try place.bench.wait("an answer") { raw.reply != nil }
        let text = String(decoding: raw.reply?.body ?? [], as: UTF8.self)
        #expect(text == #"{"user":"\#(place.ben)","status":"online","last_seen":9}"#)
    }

    @Test func `only members send, with the version that Postgres knows, and removal counts at once`() throws {
        let place = try Place()
        let bench = place.bench
        let worker = try bench.worker()
        let chat = try place.chat(#"{"kind":"group","members":["\#(place.ben)"]}"#, as: place.anna)
        let (ben, eve) = (try bench.device(place.ben), try bench.device(place.eve))
        func send(_ device: Device, _ extra: String = "") {
            device.send(
                #"{"type":"send","id":"\#(MessageID.random())","chat":"\#(chat)","text":"x"\#(extra)}"#)
        }
        // Several at once: what waits for the answer about the chat keeps its order.
        for number in 0..<3 { send(ben, #","reply_to":\#(number)"#) }
        send(eve, #","meta_version":99"#)
        try bench.wait("answers") { ben.frames("sent").count == 3 && eve.frames("error").count == 1 }
        #expect(eve.frames("error")[0].contains("not_member"))
        let records = try bench.records(.incoming, atLeast: 3)
        #expect(records.map { $0.contains(#""meta_version":1"#) } == [true, true, true])
        for (number, record) in records.enumerated() { #expect(record.contains(#""reply_to":\#(number)"#)) }
        // A version that nobody has seen is not believed.
        send(ben, #","meta_version":99"#)
        try bench.wait("sent") { ben.frames("sent").count == 4 }
        let later = try bench.records(.incoming, atLeast: 4)
        #expect(later.allSatisfy { $0.contains(#""meta_version":1"#) })
        try bench.wait("live") { ben.frames("caught_up").count == 1 }
        worker.push(
            #"{"type":"member","chat":"\#(chat)","user":"\#(place.ben)","change":"removed","meta_version":2}"#,
            offset: 300, kind: .member, to: [place.ben])
        try bench.wait("told") { ben.frames("member").count == 1 }
        send(ben)
        try bench.wait("refused") { ben.frames("error").count == 1 }
        #expect(ben.frames("error")[0].contains("not_member"))
    }

    @Test func `who was removed and is a member again is not refused for the removal that is heard of late`() throws {
        let place = try Place()
        let bench = place.bench
        let worker = try bench.worker()
        let chat = try place.chat(#"{"kind":"group","members":["\#(place.ben)"]}"#, as: place.anna)
        let ben = try bench.device(place.ben)
        try bench.wait("live") { ben.frames("caught_up").count == 1 }
        func send(_ version: Int) {
            ben.send(
                #"{"type":"send","id":"\#(MessageID.random())","chat":"\#(chat)","text":"x","meta_version":\#(version)}"#
            )
        }
        #expect(try place.call("DELETE", "/v1/chats/\(chat)/members/\(place.ben)", as: place.anna).status < 300)
        #expect(try place.call("PUT", "/v1/chats/\(chat)/members/\(place.ben)", as: place.anna).status < 300)
        send(3)
        try bench.wait("sent, as Postgres knows") { ben.frames("sent").count == 1 }
        worker.push(
            #"{"type":"member","chat":"\#(chat)","user":"\#(place.ben)","change":"removed","meta_version":2}"#,
            offset: 300, kind: .member, to: [place.ben])
        try bench.wait("told") { ben.frames("member").count == 1 }
        send(3)
        try bench.wait("answered") { ben.frames("sent").count + ben.frames("error").count == 2 }
        #expect(ben.frames("error") == [])
    }

    @Test func `an edit and a deletion go to the log as such; the join knows whose message it is`() throws {
        let place = try Place()
        let bench = place.bench
        let chat = try place.chat(#"{"kind":"group","members":["\#(place.ben)"]}"#, as: place.anna)
        let ben = try bench.device(place.ben)
        ben.send(#"{"type":"edit","id":"\#(MessageID.random())","chat":"\#(chat)","seq":5,"text":"new"}"#)
        ben.send(#"{"type":"delete","id":"\#(MessageID.random())","chat":"\#(chat)","seq":6,"text":"no"}"#)
        try bench.wait("sent") { ben.frames("sent").count == 2 }
        let records = try bench.records(.incoming, atLeast: 2)
        #expect(records[0].contains(#""kind":"edit","text":"new","target":5,"meta_version":1"#))
        #expect(records[1].contains(#""kind":"delete","target":6,"meta_version":1"#))
    }

    @Test func `a session declares its user's large chats when it registers`() throws {
        let place = try Place { $0.limits.largeChat = 2 }
        let worker = try place.bench.worker()
        _ = try place.chat(#"{"kind":"direct","members":["\#(place.ben)"]}"#, as: place.anna)
        let large = try place.chat(#"{"kind":"group","members":["\#(place.ben)","\#(place.eve)"]}"#, as: place.anna)
        let device = try place.bench.device(place.ben)
        try place.bench.wait("live") { device.frames("caught_up").count == 1 }
        #expect(worker.session(of: place.ben)?.largeChats.map(\.description) == [large])
    }

    @Test func `without its database the API says so, and open sessions live on`() throws {
        let cluster = try PostgresCluster()
        let database = try cluster.freshDatabase(migrated: true)
        let bench = try Bench(postgres: database)
        let worker = try bench.worker()
        let user = UserID.random()
        let device = try bench.device(user)
        try bench.wait("live") { device.frames("caught_up").count == 1 }
        try cluster.stop(.immediate)
        worker.push(#"{"type":"message"}"#, offset: 200, to: [user])
        try bench.wait("delivered") { device.frames("message").count == 1 }
        let answer = try bench.http("GET", "/v1/chats", token: bench.token(user))
        #expect(answer.status == 503 && answer.fields["retry-after"] != nil)
        try bench.wait("it says so, and is ready all the same") {
            guard let ready = try? bench.http("GET", "/readyz") else { return false }
            return ready.status == 200 && String(decoding: ready.body, as: UTF8.self).contains("postgres: ")
        }
        let newcomer = try bench.device(UserID.random(), hello: nil)
        #expect(newcomer.status == 503, "no session can start")
        device.send(#"{"type":"send","id":"\#(MessageID.random())","chat":"\#(ChatID.random())","text":"x"}"#)
        try bench.wait("refused for now") { device.frames("error").count == 1 }
        #expect(
            device.frames("error")[0].contains("overloaded") && device.frames("error")[0].contains("retry_after_ms"))
        try cluster.start()
        try bench.wait("it is back") {
            (try? bench.http("GET", "/readyz").body).map { String(decoding: $0, as: UTF8.self) } == "ready\n"
        }
        #expect(try bench.http("GET", "/v1/chats", token: bench.token(user)).status == 200)
    }
}
