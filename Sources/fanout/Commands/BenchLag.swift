import Broker
import KafkaClient
import Lag
import Runtime
import System
import Wire

extension BenchRun {
    static let lag = BenchRun(
        name: "lag",
        summary: "one look of fanout lag at 10,000 partitions and 20 groups; without --kafka at a broker of its own"
    ) { invocation in
        guard invocation.options.string("kafka") == nil else {
            return try look(at: try invocation.kafka(clientID: "fanout-bench"), invocation)
        }
        CurrentProcess.raiseDescriptorLimit()
        let directory = try Directory.createTemporary(prefix: "fanout-bench-lag")
        defer { try? Directory.removeAll(directory) }
        var configuration = BrokerConfiguration(dataDirectory: directory)
        configuration.port = 0
        let server = try BrokerServer(configuration)
        defer {
            server.stop()
            server.run()
        }
        return try look(
            at: KafkaConfiguration(bootstrapServers: "127.0.0.1:\(server.boundPort)", clientID: "fanout-bench"),
            invocation)
    }

    private static func look(at kafka: KafkaConfiguration, _ invocation: Invocation) throws -> ExitCode {
        let prefix = invocation.names.prefix + "bench-lag-" + String(UInt64.random(in: 0 ... .max), radix: 36) + "-"
        let report = try LagBenchmark(kafka, prefix: prefix, clock: invocation.clock, log: invocation.log).run()
        if invocation.options.flag("json") {
            var json = JSONWriter()
            report.write(to: &json)
            Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
        } else {
            var text = """
                \(report.partitions) partitions, \(report.groups) groups: \(report.positions) positions, \
                \(report.waiting) of them with a waiting record whose time was read
                looks   \(report.looksMs.map { "\(Int($0.rounded())) ms" }.joined(separator: ", "))

                """
            for (name, ms) in report.partsMs { text += "  \(Int(ms.rounded())) ms   \(name)\n" }
            for line in report.missing { text += "missing: \(line)\n" }
            Output.standard(text)
        }
        return report.missing.isEmpty ? .success : .failure
    }
}
