import Foundation
import TestSupport
import Testing

/// The client library in Node, as bots use it, on the whole system. `web/tests/real.test.mjs` tells the stories.
@Suite struct NodeClientTests {
    @Test func `bots outlive their server and their tokens, and hear what is refused`() throws {
        let system = try RunningSystem()
        let chat = try #require(system.processes.first { $0.command.contains(" chat ") })
        // Node's own WebSocket too, where it has one to be asked for.
        let own = try WebClientTests.run(["node", "--experimental-websocket", "--eval", "0"]).status == 0
        let (status, text) = try WebClientTests.run(
            [
                "env", "FANOUT_URL=http://127.0.0.1:\(system.chatPort)", "FANOUT_TOKEN_KEY=\(system.tokenKey)",
                "FANOUT_CHAT_PID=\(chat.id)", "node",
            ] + (own ? ["--experimental-websocket"] : [])
                + ["--test", "web/tests/real.test.mjs"])
        #expect(status == 0, "\(text)\n\(system.up.text)")
        #expect(text.contains("# pass 4"), "\(text)")
        #expect(system.stop() == 0)
        RunningSystem.remove(system.directory)
    }
}
