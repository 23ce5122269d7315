import Foundation
import TestSupport
import Testing

@Suite(.serialized) struct ChaosTests {
    @Test func `whatever dies, every member gets every message once and in order, and nobody else does`() throws {
        let system = try RunningSystem(arguments: ["--presence-grace", "2s"])
        defer { RunningSystem.remove(system.directory) }
        let seed = SeededGenerator.freshSeed() >> 1
        let storm = try FanoutProcess.run(
            [
                "bench", "chaos", "--target", "127.0.0.1:\(system.chatPort)", "--up", "\(system.up.pid)",
                "--kafka", system.kafka, "--rounds", "8", "--seed", "\(seed)", "--log-level", "warning",
            ], environment: ["FANOUT_POSTGRES": system.postgres, "FANOUT_TOKEN_KEY": system.tokenKey], seconds: 900)
        print(storm.text)
        #expect(storm.status == 0, "\(storm.text)\n\(system.up.text)")
        #expect(system.stop() == 0)
    }
}
