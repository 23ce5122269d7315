import Foundation
import Ingest
import Runtime
import System
import Testing
import WebSocket
import Wire

@Suite(.serialized) struct OperationsTests {
    @Test func `an admin sees this server's part, and the metrics of the stages that answer`() throws {
        let stage = try Bench()
        let bench = try Bench {
            $0.stages = [
                ("ingest", Address(host: "127.0.0.1", port: UInt16(stage.server.port))),
                // Nothing listens there.
                ("join", Address(host: "127.0.0.1", port: 1)),
            ]
        }
        let token = bench.token(.random(), scopes: "admin")
        // The server's own announcement goes through the log, and so is there only once it has been read back.
        var object: [String: Any] = [:]
        try bench.wait("the server has heard of itself") {
            guard let reply = try? bench.http("GET", "/v1/ops", token: token), reply.status == 200 else { return false }
            object = (try? JSONSerialization.jsonObject(with: Data(reply.body))) as? [String: Any] ?? [:]
            return (object["instances"] as? [[String: Any]])?.isEmpty == false
        }
        let metrics = try #require(object["metrics"] as? [String: String])
        #expect(metrics.keys.sorted() == ["ingest"])
        #expect(metrics["ingest"]?.contains("\nfanout_ingest_sessions 0\n") == true)
        let stages = try #require(object["stages"] as? [String: [String: Any]])
        #expect(stages["ingest"]?["sessions"] as? Int == 0)
    }

    @Test func `a server on all addresses of its machine is announced by the machine's name`() throws {
        let bench = try Bench {
            let given = $0
            $0 = IngestConfiguration(
                instance: $0.instance, listen: Address(host: "0.0.0.0", port: 0),
                pushListen: Address(host: "0.0.0.0", port: 0), pushHost: nil, pushSecret: $0.pushSecret,
                kafka: $0.kafka, tokens: $0.tokens)
            ($0.names, $0.limits) = (given.names, given.limits)
        }
        let user = bench.token(.random())
        let reply = try bench.http("GET", "/v1/endpoint", token: user)
        let url = "ws://\(CurrentProcess.hostName):\(bench.server.port)"
        #expect(String(decoding: reply.body, as: UTF8.self) == #"{"url":"\#(url)"}"#)
    }

    @Test func `nobody else sees it`() throws {
        let bench = try Bench()
        #expect(try bench.http("GET", "/v1/ops").status == 401)
        #expect(try bench.http("GET", "/v1/ops", token: bench.token(.random())).status == 403)
    }
}
