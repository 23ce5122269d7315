import KafkaClient
import Runtime
import System
import Wire

extension BenchRun {
    static let kafka = BenchRun(
        name: "kafka", summary: "the Kafka client beside bare librdkafka, on one broker"
    ) { invocation in
        let configuration = try invocation.kafka(clientID: "fanout-bench")
        let topic = invocation.names.prefix + "bench.kafka." + String(UInt64.random(in: 0 ... .max), radix: 36)
        let count = invocation.options.integer("messages") ?? 500_000
        let bytes = invocation.options.integer("text-bytes") ?? 200
        let admin = try Admin(configuration)
        for outcome in try admin.createTopics([NewTopic(topic, partitions: 1)]) {
            if let error = outcome.error { throw error }
        }
        defer {
            _ = try? admin.deleteTopics([topic])
            admin.close(deadlineMs: 2000)
        }
        let bench = KafkaBenchmark(configuration, topic: topic, messageCount: count, valueBytes: bytes)
        let figures = try bench.run(rounds: 5) { invocation.log.info($0) }
        if invocation.options.flag("json") {
            var json = JSONWriter()
            json.beginObject()
            json.field("produce_per_second", figures.produce)
            json.field("bare_produce_per_second", figures.bareProduce)
            json.field("consume_per_second", figures.consume)
            json.field("bare_consume_per_second", figures.bareConsume)
            json.endObject()
            Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
        } else {
            Output.standard(
                """
                records of \(bytes) bytes/s    KafkaClient   librdkafka   ratio
                produce                  \(column(figures.produce))   \(column(figures.bareProduce))   \(percent(figures.produceRatio))
                consume                  \(column(figures.consume))   \(column(figures.bareConsume))   \(percent(figures.consumeRatio))

                """)
        }
        return .success
    }

    private static func column(_ rate: Double) -> String {
        "\(Int(rate))".padded(to: 11, alignedRight: true)
    }

    private static func percent(_ ratio: Double) -> String { "\(Int((ratio * 100).rounded())) %" }
}
