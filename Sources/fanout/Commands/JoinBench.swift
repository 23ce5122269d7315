import KafkaClient
import Runtime
import StreamJoin
import System
import Wire

extension BenchRun {
    static let join = BenchRun(
        name: "join", summary: "the join: from memory, its table, and with --kafka through the log"
    ) { invocation in
        let options = invocation.options
        let seconds = Double(options.durationMs("duration") ?? 5_000) / 1000
        let benchmark = JoinBenchmark(clock: invocation.clock)
        var rows = benchmark.task(members: 2, seconds: seconds)
        rows += benchmark.task(members: 100, seconds: seconds)
        let table = try benchmark.table(
            memberships: 10_000_000, chats: 1_000_000, users: 1_000_000, directory: Environment["TMPDIR"] ?? "/tmp")
        rows += table.rows
        if options.string("kafka") != nil {
            let kafka = try invocation.kafka(clientID: "fanout-bench")
            rows += try benchmark.throughLog(kafka, members: 2, messages: 1_000_000, log: invocation.log)
            rows += try benchmark.throughLog(kafka, members: 100, messages: 100_000, log: invocation.log)
        }
        Output.standard(options.flag("json") ? json(rows, table) : text(rows, table))
        return .success
    }

    static let restore = BenchRun(
        name: "restore", summary: "a join's table, restored from the log of a broker"
    ) { invocation in
        let options = invocation.options
        let rows = try JoinBenchmark(clock: invocation.clock).restore(
            invocation.kafka(clientID: "fanout-bench"), memberships: options.integer("memberships") ?? 10_000_000,
            log: invocation.log)
        Output.standard(options.flag("json") ? json(rows, nil) : text(rows))
        return .success
    }

    static let importing = BenchRun(
        name: "import", summary: "memberships by one transaction, while people talk in other chats"
    ) { invocation in
        let options = invocation.options
        let result = try JoinBenchmark(clock: invocation.clock).importing(
            invocation.kafka(clientID: "fanout-bench"), memberships: options.integer("memberships") ?? 1_000_000,
            members: options.integer("members") ?? 100, rate: options.integer("rate") ?? 500, log: invocation.log)
        func row(_ name: String, _ text: String) -> String { "  " + name.padded(to: 40) + text + "\n" }
        func delay(_ delay: (p50: Double, p99: Double, max: Double)) -> String {
            "p50 \(fixed(delay.p50)) ms, p99 \(fixed(delay.p99)) ms, max \(fixed(delay.max)) ms"
        }
        func mebibytes(_ bytes: Int) -> String { fixed(Double(bytes) / 1_048_576) + " MiB" }
        var text = "\(result.memberships) memberships in one transaction, told after \(fixed(result.seconds)) s\n"
        text += row("messages of other chats before", delay(result.quietMs))
        text += row("meanwhile (\(result.messages))", delay(result.busyMs))
        text += row("records of chat.deliveries", "\(result.records)")
        text += row("the table has grown by", mebibytes(result.tableBytes))
        text += row("resident before", mebibytes(result.residentBefore))
        text += row("at most", mebibytes(result.residentMax))
        text += row("after", mebibytes(result.residentAfter))
        Output.standard(text)
        return .success
    }

    private static func text(_ rows: [JoinBenchmark.Row], _ table: JoinBenchmark.TableResult) -> String {
        var text = text(rows)
        text += "table".padded(to: 50) + "\(table.memberships)".padded(to: 12, alignedRight: true)
        return text + "  \(table.bytes >> 20) MiB, \(fixed(table.bytesPerMembership)) bytes a membership\n"
    }

    private static func text(_ rows: [JoinBenchmark.Row]) -> String {
        var text = ""
        for row in rows {
            text += row.name.padded(to: 50) + "\(row.count)".padded(to: 12, alignedRight: true)
            text += fixed(row.seconds).padded(to: 10, alignedRight: true) + " s"
            text += "\(Int(row.perSecond))".padded(to: 12, alignedRight: true) + " /s"
            text += "\(Int(row.perCPUSecond))".padded(to: 12, alignedRight: true) + " /CPU s  \(row.note)\n"
        }
        return text
    }

    private static func json(_ rows: [JoinBenchmark.Row], _ table: JoinBenchmark.TableResult?) -> String {
        var json = JSONWriter()
        json.object { json in
            json.name("rows")
            json.array { json in
                for row in rows {
                    json.object { json in
                        json.field("name", row.name)
                        json.field("count", row.count)
                        json.field("seconds", row.seconds)
                        json.field("cpu_seconds", row.cpuSeconds)
                    }
                }
            }
            guard let table else { return }
            json.field("memberships", table.memberships)
            json.field("table_bytes", table.bytes)
        }
        return String(decoding: json.bytes, as: UTF8.self) + "\n"
    }

    private static func fixed(_ number: Double) -> String {
        let hundredths = Int((number * 100).rounded())
        return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)"
    }
}
