import Bench
import Runtime
import System
import Wire

extension Command {
    static let plan = Command(
        name: "plan",
        summary: "how many cores, partitions and bytes a load takes",
        details: """
            Reckons from what was measured on one machine (docs/measurements/pipeline.md): a guide for the first
            order, not a promise. Say the load at its peak. docs/operations.md has worked examples.
            """,
        options: [
            Option("messages", .integer(1...1_000_000_000), "messages sent a second", standard: "1000"),
            Option("members", .integer(1...1_000_000), "members of an average message's chat", standard: "5"),
            Option("users", .integer(1...100_000_000_000), "people with an account", standard: "100000"),
            Option("sessions", .integer(0...100_000_000_000), "devices connected at once; half the people else"),
            Option("chats-per-user", .integer(1...100_000), "chats that a person is in", standard: "50"),
            Option("text-bytes", .integer(1...16_000), "the size of a message's text", standard: "200"),
            Option("replication", .integer(1...9), "copies of each record in the log", standard: "3"),
            Option("busy", .integer(1...100), "how busy a core may be, in percent", standard: "50"),
            Option("json", .flag, "print JSON instead of a table"),
        ],
        run: { invocation in
            let options = invocation.options
            var load = Sizing.Load()
            func take(_ name: String, _ path: WritableKeyPath<Sizing.Load, Double>, scale: Double = 1) {
                if let value = options.integer(name) { load[keyPath: path] = Double(value) * scale }
            }
            take("messages", \.messages)
            take("members", \.members)
            take("users", \.users)
            load.sessions = load.users / 2
            take("sessions", \.sessions)
            take("chats-per-user", \.chatsPerUser)
            take("text-bytes", \.textBytes)
            take("replication", \.replication)
            take("busy", \.busy, scale: 0.01)
            let sizing = Sizing(load)
            var json = JSONWriter()
            sizing.writeJSON(to: &json)
            Output.standard(
                options.flag("json") ? String(decoding: json.bytes, as: UTF8.self) + "\n" : sizing.report)
            return .success
        })
}
