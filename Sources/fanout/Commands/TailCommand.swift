import Lag
import Runtime
import Synchronization
import System
import Wire

extension Command {
    static let tail = Command(
        name: "tail",
        summary: "print a topic's records as they come",
        operands: "TOPIC",
        details: """
              fanout tail messages --from beginning --chat 018f3c1e-6d1a-4a3e-9d1b-2f1b6a5c7d80
              fanout tail deliveries --per-recipient --user 018f3c1e-… --json | jq .event
            TOPIC is a name such as messages or chat.messages.
            """,
        options: Option.kafka + [
            Option(
                "from", .string("now|beginning|OFFSET|TIME"), "TIME is 5m for five minutes ago, or ms since 1970",
                standard: "now"),
            Option("chat", .string("UUID"), "only what names this chat"),
            Option("user", .string("UUID"), "only what names this user"),
            Option("per-recipient", .flag, "deliveries: a line for each recipient"),
            Option("json", .flag, "only the values, one a line"),
            Option("count", .integer(1...Int.max), "end after so many lines"),
        ],
        run: { invocation in
            let options = invocation.options
            guard let name = invocation.operands.first,
                let topic = Topic(rawValue: name) ?? Topic(rawValue: "chat." + name)
            else {
                throw UsageError(
                    "expected a topic: \(Topic.allCases.map { $0.rawValue.dropFirst(5) }.joined(separator: ", "))")
            }
            var query = TailQuery(topic: topic)
            let from = options.string("from") ?? "now"
            if let agoMs = Quantity.durationMs(from) {
                query.from = .time(invocation.clock.wallMs - Int64(agoMs))
            } else if let place = TailQuery.From(from) {
                query.from = place
            } else {
                throw UsageError("--from must be now, beginning, an offset or a time such as 5m, not '\(from)'")
            }
            if let text = options.string("chat") {
                guard let id = ChatID(text) else { throw UsageError("--chat must be a lower-case UUID") }
                query.chat = id
            }
            if let text = options.string("user") {
                guard let id = UserID(text) else { throw UsageError("--user must be a lower-case UUID") }
                query.user = id
            }
            query.isPerRecipient = options.flag("per-recipient")
            query.isJSON = options.flag("json")
            let tail = try Tail(query, kafka: try invocation.kafka(clientID: "fanout-tail"), names: invocation.names)
            defer { tail.close() }
            Signals.block([.terminate, .interrupt])
            let loop = try EventLoop()
            var isEnding = false
            let watch = try Signals.watch([.terminate, .interrupt], on: loop) { _ in isEnding = true }
            defer { watch.cancel() }
            var left = options.integer("count") ?? .max
            while !isEnding, left > 0 {
                try tail.poll { line in
                    guard left > 0 else { return }
                    left -= 1
                    // Nobody reads any more: `| head` has what it wanted.
                    if !Output.standard(line + "\n") { left = 0 }
                } complain: { complaint in
                    _ = Output.error(complaint + "\n")
                }
                loop.runOnce(timeoutMs: 0)
            }
            return .success
        })
}
