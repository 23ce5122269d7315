import Foundation
import Ingest
import Runtime
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

    @Test func `nobody else sees it`() throws {
        let bench = try Bench()
        #expect(try bench.http("GET", "/v1/ops").status == 401)
        #expect(try bench.http("GET", "/v1/ops", token: bench.token(.random())).status == 403)
    }
}
