import Push
import Runtime
import System
import Wire

extension BenchRun {
    static let push = BenchRun(
        name: "push", summary: "people told a second through one process, from a full log to a webhook on this machine"
    ) { invocation in
        let benchmark = PushBenchmark(
            try invocation.kafka(clientID: "fanout-bench"), people: invocation.options.integer("messages") ?? 100_000,
            log: invocation.log, clock: invocation.clock)
        let figures = try benchmark.run(batches: [1, 20])
        if invocation.options.flag("json") {
            var json = JSONWriter()
            json.array { json in
                for figure in figures {
                    json.object {
                        $0.field("notices_a_request", figure.batch)
                        $0.field("notices", figure.notices)
                        $0.field("seconds", figure.seconds)
                        $0.field("notices_per_second", Int(figure.perSecond))
                        $0.field("notices_per_cpu_second", Int(figure.perCPUSecond))
                    }
                }
            }
            Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
        } else {
            Output.standard("notices a request   notices/s   a CPU-second (webhook included)\n")
            for figure in figures {
                Output.standard(
                    "\(figure.batch)".padded(to: 17, alignedRight: true)
                        + "\(Int(figure.perSecond))".padded(to: 12, alignedRight: true)
                        + "\(Int(figure.perCPUSecond))".padded(to: 34, alignedRight: true) + "\n")
            }
        }
        return .success
    }
}
