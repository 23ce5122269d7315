import History
import Runtime
import System
import Wire

extension BenchRun {
    static let history = BenchRun(
        name: "history", summary: "messages stored a second, and what reading them takes"
    ) { invocation in
        var benchmark = HistoryBenchmark(
            kafka: try invocation.kafka(clientID: "fanout-bench"), postgres: try invocation.postgres(),
            log: invocation.log, clock: invocation.clock)
        if let messages = invocation.options.integer("messages") { benchmark.messageCount = messages }
        if let chats = invocation.options.integer("chats") { benchmark.chatCount = chats }
        let report = try benchmark.run()
        if invocation.options.flag("json") {
            var json = JSONWriter()
            json.beginObject()
            for (name, value) in report.rows { json.field(name, value) }
            json.endObject()
            Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
        } else {
            Output.standard(
                report.rows.map { name, value in
                    name + String(repeating: " ", count: max(1, 36 - name.utf8.count))
                        + "\((value * 100).rounded() / 100)\n"
                }.joined())
        }
        return .success
    }
}
