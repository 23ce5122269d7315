import History
import Runtime
import System
import Wire

extension BenchRun {
    static let history = BenchRun(
        name: "history",
        summary: "reads over a month of messages, and messages stored a second; wants an empty database"
    ) { invocation in
        var benchmark = HistoryBenchmark(
            kafka: try invocation.kafka(clientID: "fanout-bench"), postgres: try invocation.postgres(),
            log: invocation.log, clock: invocation.clock)
        if let messages = invocation.options.integer("messages") {
            benchmark.messageCount = messages
            benchmark.storedCount = max(1, messages / 10)
        }
        if let chats = invocation.options.integer("chats") { benchmark.chatCount = chats }
        let report = try benchmark.run()
        var json = JSONWriter()
        report.write(to: &json)
        Output.standard(
            invocation.options.flag("json") ? String(decoding: json.bytes, as: UTF8.self) + "\n" : report.text)
        return .success
    }
}
