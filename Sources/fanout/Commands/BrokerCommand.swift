import Broker
import Runtime
import System

extension Command {
    static let broker = Command(
        name: "broker",
        summary: "a durable single-node log that speaks the Kafka protocol",
        details: """
            For one machine and for tests; a cluster uses Apache Kafka. There is no authentication: it listens on loopback
            unless told otherwise.
              fanout broker --data /var/lib/fanout/broker --listen 127.0.0.1:9092
              kcat -b 127.0.0.1:9092 -L
            """,
        options: [
            Option("data", .string("DIR"), "where everything is kept; made when missing"),
            Option("listen", .address, "the address to serve", standard: "127.0.0.1:9092"),
            Option("advertise", .address, "the address that clients are told, when it is another"),
            Option(
                "fsync", .string("always|group|interval:MS|never"),
                "when a record counts as kept: with group, acks=all waits for the disk, together with what arrives meanwhile",
                standard: "group"),
            Option("insecure-listen", .flag, "allow an address that is not loopback, on a network that is trusted"),
            Option("partitions", .integer(0...10_000), "of topics made by being used; 0 makes none", standard: "0"),
            Option("journal-size", .size, "the journal is checkpointed at this size", standard: "64MiB"),
            Option("retention-check", .duration, "how often old segments are looked for", standard: "30s"),
            Option("request-size-max", .size, "a larger request closes its connection", standard: "32MiB"),
            .metrics,
        ],
        run: { invocation in
            let options = invocation.options
            var configuration = BrokerConfiguration(dataDirectory: try options.require("data"))
            if let address = options.address("listen") {
                configuration.host = address.host
                configuration.port = Int(address.port)
            }
            if let address = options.address("advertise") {
                configuration.advertisedHost = address.host
                configuration.advertisedPort = Int(address.port)
            }
            let fsync = options.string("fsync") ?? "group"
            guard let mode = BrokerConfiguration.Fsync(fsync) else {
                throw UsageError("--fsync \(fsync): not always, group, interval:MS or never")
            }
            configuration.fsync = mode
            configuration.allowsInsecureListen = options.flag("insecure-listen")
            configuration.defaultPartitions = Int32(clamping: options.integer("partitions") ?? 0)
            configuration.journalBytes = options.bytes("journal-size") ?? configuration.journalBytes
            configuration.retentionCheckMs = options.durationMs("retention-check") ?? configuration.retentionCheckMs
            configuration.requestBytesMax = options.bytes("request-size-max") ?? configuration.requestBytesMax
            // Before the broker's threads start, so that they inherit it.
            Signals.block([.terminate, .interrupt, .hangup])
            let server = try BrokerServer(configuration, log: invocation.log, metrics: invocation.metrics)
            invocation.log.info(
                "serving", ["host": .string(configuration.host), "port": .int(Int64(server.boundPort))])
            return try invocation.runStage(run: { server.run() }, health: server.health, stop: { server.stop() })
        })
}
