import Foundation
import Ingest
import PostgresClient
import Store
import System
import TestSupport
import Testing
import WebSocket
import Wire

/// How devices say where they are told while they have no session.
@Suite(.serialized) struct PushAPITests {
    private let bench: Bench
    private let database: String
    private let anna = UserID.random()
    private let ben = UserID.random()
    private let phone = DeviceID.random()
    private let laptop = DeviceID.random()

    init() throws {
        let database = try PostgresCluster.shared().freshDatabase(migrated: true)
        self.database = database
        let bench = try Bench(postgres: database) { $0.vapidPublicKey = "BKey" }
        self.bench = bench
        try bench.wait("the database is there") { (try? bench.http("GET", "/readyz").status) == 200 }
    }

    private func call(_ method: String, _ path: String, as user: UserID, _ body: String? = nil) throws -> Int {
        try bench.http(method, path, token: bench.token(user), body: body).status
    }

    /// What a browser's subscription is as JSON.
    private func body(
        _ endpoint: String, p256dh: [UInt8]? = nil, auth: [UInt8] = Crypto.randomBytes(16)
    ) throws -> String {
        let point = try p256dh ?? PrivateKey.generate(.es256).publicKey.p256Point ?? []
        return
            #"{"endpoint":"\#(endpoint)","expirationTime":null,"keys":{"p256dh":"\#(Base64.encode(point, .url))","auth":"\#(Base64.encode(auth, .url))"}}"#
    }

    private func subscriptions(_ users: UserID...) throws -> [[PushDevices.Subscription]] {
        var store = try StoreConnection(database)
        let rows = try store.rows(PushDevices.subscriptions(of: users))
        return users.indices.map { index in rows.filter { $0.place == index + 1 }.map(\.value) }
    }

    @Test func `a device has one subscription, renews it, and takes it back`() throws {
        #expect(
            try call("PUT", "/v1/push/subscriptions?device=\(phone)", as: anna, body("https://push.example/1")) == 204)
        #expect(
            try call("PUT", "/v1/push/subscriptions?device=\(laptop)", as: anna, body("https://push.example/2")) == 204)
        let renewed = try body("https://push.example/3")
        #expect(try call("PUT", "/v1/push/subscriptions?device=\(phone)", as: anna, renewed) == 204)
        let kept = try subscriptions(anna)[0]
        #expect(Set(kept.map(\.endpoint)) == ["https://push.example/2", "https://push.example/3"])
        #expect(kept.allSatisfy { $0.publicKey.count == 65 && $0.secret.count == 16 })
        #expect(try call("DELETE", "/v1/push/subscriptions?device=\(phone)", as: ben) == 204, "nobody's but their own")
        #expect(try subscriptions(anna)[0].count == 2)
        #expect(try call("DELETE", "/v1/push/subscriptions?device=\(phone)", as: anna) == 204)
        #expect(try subscriptions(anna)[0].map(\.device) == [laptop])
    }

    @Test func `a browser in which somebody else signs in no longer shows the first one's messages`() throws {
        let same = try body("https://push.example/shared")
        #expect(try call("PUT", "/v1/push/subscriptions?device=\(phone)", as: anna, same) == 204)
        #expect(try call("PUT", "/v1/push/subscriptions?device=\(phone)", as: ben, same) == 204)
        #expect(try subscriptions(anna, ben).map(\.count) == [0, 1])
        let token = #"{"provider":"fcm","token":"t"}"#
        #expect(try call("PUT", "/v1/push/tokens?device=\(phone)", as: anna, token) == 204)
        #expect(try call("PUT", "/v1/push/tokens?device=\(phone)", as: ben, token) == 204)
        var store = try StoreConnection(database)
        let places = try store.rows(PushDevices.tokens(of: [anna, ben])).map(\.place)
        #expect(places == [2])
    }

    @Test func `whatever is no endpoint of the internet's or no key is refused`() throws {
        let good = "https://push.example/1"
        let off = try #require(try PrivateKey.generate(.es256).publicKey.p256Point).map { $0 ^ ($0 == 4 ? 0 : 1) }
        for bad in [
            try body("http://push.example/1"), try body("https://127.0.0.1/"), try body("https://10.1.2.3/"),
            try body("https://[::1]/"), try body("https://localhost/"), try body("https://169.254.169.254/latest"),
            try body("https://localhost./"), try body("https://foo.localhost/"), try body("https://foo.localhost./"),
            try body("https://LOCALHOST/"), try body("https://127.0.0.1./"), try body("https://push.example:22/"),
            try body("https://push.example:1023/"), try body("https://intranet/"), try body("https://push.example../"),
            try body("https://printer.local/"), try body("https://2130706433/"), try body("https://me@push.example/"),
            try body("ftp://push.example/"),
            try body("https://push.example/" + String(repeating: "x", count: 2048)),
            try body(good, p256dh: [4, 5]), try body(good, p256dh: off), try body(good, auth: [1]),
            #"{"endpoint":"https://push.example/1"}"#, #"{"endpoint":5}"#, "[]", "no JSON",
        ] {
            #expect(try call("PUT", "/v1/push/subscriptions?device=\(phone)", as: anna, bad) == 400, "\(bad)")
        }
        #expect(try call("PUT", "/v1/push/subscriptions", as: anna, body(good)) == 400, "which device?")
        #expect(try call("POST", "/v1/push/subscriptions?device=\(phone)", as: anna, body(good)) == 405)
        #expect(try call("PUT", "/v1/push/other?device=\(phone)", as: anna, body(good)) == 404)
        #expect(try bench.http("PUT", "/v1/push/subscriptions?device=\(phone)", body: body(good)).status == 401)
        for bad in [
            #"{"provider":"","token":"t"}"#, #"{"provider":"fcm"}"#, #"{"provider":"fcm","token":"\u0000"}"#,
            #"{"provider":"fcm","token":"\#(String(repeating: "t", count: 4097))"}"#,
        ] {
            #expect(try call("PUT", "/v1/push/tokens?device=\(phone)", as: anna, bad) == 400, "\(bad)")
        }
        #expect(try subscriptions(anna)[0].isEmpty)
        for fine in ["https://push.example.:443/1", "https://localhost.example/1", "https://push.example:8443/1"] {
            #expect(try call("PUT", "/v1/push/subscriptions?device=\(phone)", as: anna, body(fine)) == 204, "\(fine)")
        }
    }

    @Test func `a user's devices are limited, and those unheard of for longest give way`() throws {
        let devices = (0..<23).map { _ in DeviceID.random() }
        for device in devices {
            #expect(
                try call(
                    "PUT", "/v1/push/subscriptions?device=\(device)", as: anna, body("https://push.example/\(device)"))
                    == 204)
        }
        let kept = Set(try subscriptions(anna)[0].map(\.device))
        #expect(kept == Set(devices.suffix(PushDevices.perUserMax)))
    }

    @Test func `tokens are kept by device and provider`() throws {
        for (provider, token) in [("fcm", "a"), ("apns", "b"), ("fcm", "c")] {
            let body = #"{"provider":"\#(provider)","token":"\#(token)"}"#
            #expect(try call("PUT", "/v1/push/tokens?device=\(phone)", as: anna, body) == 204)
        }
        func kept() throws -> Set<String> {
            var store = try StoreConnection(database)
            return Set(try store.rows(PushDevices.tokens(of: [anna])).map { "\($0.value.provider) \($0.value.token)" })
        }
        #expect(try kept() == ["fcm c", "apns b"])
        #expect(try call("DELETE", "/v1/push/tokens?device=\(phone)&provider=fcm", as: anna) == 204)
        #expect(try kept() == ["apns b"])
        #expect(try call("DELETE", "/v1/push/tokens?device=\(phone)", as: anna) == 204)
        #expect(try kept() == [])
    }

    @Test func `browsers learn the key that they subscribe with`() throws {
        let reply = try bench.http("GET", "/v1/push/key", token: bench.token(anna))
        #expect(reply.status == 200 && String(decoding: reply.body, as: UTF8.self) == #"{"key":"BKey"}"#)
    }
}
