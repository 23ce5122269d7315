import Bench
import KafkaClient
import Runtime
import System
import Wire

extension BenchRun {
    static let broker = BenchRun(
        name: "broker", summary: "any broker through librdkafka: rates, latency of acks=all, memory"
    ) { invocation in
        let configuration = try invocation.kafka(clientID: "fanout-bench")
        let topic = invocation.names.prefix + "bench.broker." + String(UInt64.random(in: 0 ... .max), radix: 36)
        let bytes = invocation.options.integer("text-bytes") ?? 200
        let figures = try BrokerBenchmark(
            configuration, topic: topic, messages: invocation.options.integer("messages") ?? 1_000_000,
            valueBytes: bytes, partitions: 8
        ).run()
        let resident = invocation.options.keyValues("process").compactMap { name, id in
            Int32(id).map { (name: name, bytes: ProcessMeter.residentBytes(of: $0)) }
        }
        if invocation.options.flag("json") {
            var json = JSONWriter()
            json.beginObject()
            json.field("produced_per_second", Int(figures.producedPerSecond))
            json.field("consumed_per_second", Int(figures.consumedPerSecond))
            json.field("latency_p50_us", Int(figures.latencyP50Ms * 1000))
            json.field("latency_p99_us", Int(figures.latencyP99Ms * 1000))
            for process in resident { json.field("resident_bytes_\(process.name)", process.bytes) }
            json.endObject()
            Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
        } else {
            var text = """
                produce, \(bytes) B, acks=all   \(Int(figures.producedPerSecond)) records/s
                consume                  \(Int(figures.consumedPerSecond)) records/s
                one record, acks=all     p50 \(milliseconds(figures.latencyP50Ms)), p99 \(milliseconds(figures.latencyP99Ms))

                """
            for process in resident { text += "resident \(process.name)          \(process.bytes >> 20) MiB\n" }
            Output.standard(text)
        }
        return .success
    }
}

private func milliseconds(_ value: Double) -> String { "\((value * 1000).rounded() / 1000) ms" }
