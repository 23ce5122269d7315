import HTTPClient
import Lag
import Runtime
import System
import Testing

@testable import OneMachine

@Suite struct PortTests {
    @Test func `ports that are chosen together are all different`() throws {
        for _ in 0..<20 {
            var configuration = OneMachineConfiguration(directory: "/", executable: "/")
            (configuration.port, configuration.brokerPort, configuration.postgresPort) = (0, 0, 0)
            let ports = try Ports(configuration)
            let all = [ports.chat, ports.link, ports.broker, ports.postgres] + ports.metrics.values
            #expect(Set(all).count == 4 + Pipeline.metricNames.count, "\(all)")
        }
    }

    @Test func `a port that was asked for twice is told, and not given to both`() throws {
        let claims = try PortClaims()
        defer { claims.release() }
        let port = try claims.claimFree()
        let refusal = #expect(throws: OneMachineError.self) {
            try claims.claim(port, option: "--kafka-port", what: "the broker")
        }
        #expect(
            refusal?.description == "port \(port), meant for the broker, is in use; choose another with --kafka-port")
    }

    @Test func `a port that only root may have is not said to be in use`() {
        let refusal = PortClaims.refusal(
            SystemError(errno: 13, "listen"), "port 80, meant for the chat server,", option: "--port")
        #expect(
            refusal.description
                == "port 80, meant for the chat server, is not open to this user (Permission denied); choose another with --port"
        )
    }

    @Test func `a free port is one that no outgoing connection is given while its service is down`() throws {
        let ephemeral: ClosedRange<UInt16> = 20_000...64_000
        let claims = try PortClaims(ephemeral: ephemeral)
        defer { claims.release() }
        for _ in 0..<50 { #expect(!ephemeral.contains(try claims.claimFree())) }
    }

    @Test func `where every port is ephemeral the kernel chooses`() throws {
        let claims = try PortClaims(ephemeral: 1024...65_535)
        defer { claims.release() }
        #expect(try claims.claimFree() > 0)
    }

    @Test func `another process that says it is ready on the chat server's port is not the chat server`() throws {
        let loop = try EventLoop()
        let address = Address(host: "127.0.0.1", port: 0)
        let health = Health(clock: SystemClock())
        _ = health.condition("itself", failing: nil)
        let stranger = try MetricsServer(on: loop, address: address, metrics: Metrics(), health: health)
        defer { stranger.close() }
        let client = try HTTPClient(loop: loop)
        defer { client.close() }
        var wasAnswered = false
        client.send(HTTPRequest("GET", "http://127.0.0.1:\(stranger.port)/readyz")) { result in
            wasAnswered = (try? result.get())?.status == 200
        }
        let probe = ReadinessProbe(chatPort: UInt16(stranger.port), token: "ours", client: client)
        probe.ask()
        while client.inFlight > 0 { loop.runOnce(timeoutMs: 10) }
        #expect(wasAnswered && !probe.isReady)
    }
}
