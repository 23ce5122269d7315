import Push
import Runtime
import System
import Wire

extension BenchRun {
    static let push = BenchRun(
        name: "push",
        summary: "people told a second through one process, to a webhook on this machine; memory while it is away"
    ) { invocation in
        let people = invocation.options.integer("messages") ?? 100_000
        let benchmark = PushBenchmark(
            try invocation.kafka(clientID: "fanout-bench"), people: people, log: invocation.log,
            clock: invocation.clock)
        // First, before anything else has left memory behind that could be used again.
        let backlog = try benchmark.runBacklog(records: 10 * people)
        let figures = try benchmark.run(batches: [1, 20])
        if invocation.options.flag("json") {
            var json = JSONWriter()
            write(figures, backlog, to: &json)
            Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
        } else {
            Output.standard(text(figures, backlog))
        }
        return .success
    }

    private static func write(
        _ figures: [PushBenchmark.Figures], _ backlog: PushBenchmark.Backlog, to json: inout JSONWriter
    ) {
        json.object { json in
            json.name("told")
            json.array { json in
                for figure in figures {
                    json.object {
                        $0.field("notices_a_request", figure.batch)
                        $0.field("notices", figure.notices)
                        $0.field("seconds", figure.seconds)
                        $0.field("notices_per_second", Int(figure.perSecond))
                        $0.field("notices_per_cpu_second", Int(figure.perCPUSecond))
                        $0.field("webhook_cpu_seconds", figure.webhookCPUSeconds)
                    }
                }
            }
            json.name("backlog")
            json.object {
                $0.field("records", backlog.records)
                $0.field("records_held", backlog.held)
                $0.field("people_held", backlog.people)
                $0.field("resident_before", backlog.residentBefore)
                $0.field("resident_after", backlog.residentAfter)
            }
        }
    }

    private static func text(_ figures: [PushBenchmark.Figures], _ backlog: PushBenchmark.Backlog) -> String {
        func right(_ text: String, _ width: Int) -> String { text.padded(to: width, alignedRight: true) }
        var text = "notices a request   notices/s   a CPU-second   CPU seconds: push   webhook\n"
        for figure in figures {
            text += right("\(figure.batch)", 17) + right("\(Int(figure.perSecond))", 12)
            text += right("\(Int(figure.perCPUSecond))", 15)
            text += right("\((figure.cpuSeconds * 100).rounded() / 100)", 20)
            text += right("\((figure.webhookCPUSeconds * 100).rounded() / 100)", 10) + "\n"
        }
        text += "webhook refuses, \(backlog.records) records in the log: "
        text += "\(backlog.held) of \(backlog.people) people held, "
        text += "\(backlog.residentBefore >> 20) MiB resident before, \(backlog.residentAfter >> 20) MiB then\n"
        return text
    }
}
