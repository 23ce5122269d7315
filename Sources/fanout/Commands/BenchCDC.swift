import CDC
import Runtime
import System
import Wire

extension BenchRun {
    static let cdc = BenchRun(name: "cdc", summary: "row changes from Postgres into Kafka, beside pg_recvlogical") {
        invocation in
        let options = invocation.options
        var wanted = CDCBenchmark.Options()
        wanted.changes = options.integer("changes") ?? wanted.changes
        wanted.transactionRows = options.integer("transaction-rows")
        wanted.rate = min(options.integer("rate") ?? wanted.rate, 100_000)
        wanted.durationMs = options.durationMs("duration") ?? wanted.durationMs
        wanted.binary = options.flag("binary")
        let configuration = CDCConfiguration(
            postgres: try invocation.postgres(), kafka: try invocation.kafka(clientID: "fanout-bench"), routes: [])
        var log = invocation.log
        log.level = max(log.level, .warning)
        let report = try CDCBenchmark(configuration, wanted, log: log, clock: invocation.clock).run()
        var json = JSONWriter()
        report.write(to: &json)
        Output.standard(options.flag("json") ? String(decoding: json.bytes, as: UTF8.self) + "\n" : report.text)
        return report.lost == 0 ? .success : .failure
    }
}
