import Runtime
import System
import Wire

extension BenchRun {
    static let loop = BenchRun(name: "loop", summary: "the event loop alone: round trips, and one message to many") {
        invocation in
        let durationMs = invocation.options.durationMs("duration") ?? 10_000
        CurrentProcess.raiseDescriptorLimit()
        let runs: [(name: String, result: EchoBenchmark.Result)] = [
            ("round trips, 1 connection", try EchoBenchmark.roundTrips(connections: 1, durationMs: durationMs / 3)),
            ("round trips, 100 connections", try EchoBenchmark.roundTrips(durationMs: durationMs / 3)),
            ("deliveries to 1,000 connections", try EchoBenchmark.deliveries(durationMs: durationMs / 3)),
        ]
        if invocation.options.flag("json") {
            var json = JSONWriter()
            json.array { json in
                for run in runs {
                    json.object { json in
                        json.field("name", run.name)
                        json.field("per_second", run.result.perSecond)
                        json.field("per_server_cpu_second", run.result.perServerCPUSecond)
                    }
                }
            }
            Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
            return .success
        }
        for run in runs {
            let name = run.name.padded(to: 34)
            Output.standard(
                "\(name)\(Int(run.result.perSecond))/s, \(Int(run.result.perServerCPUSecond)) a CPU-second of the server\n"
            )
        }
        return .success
    }
}
