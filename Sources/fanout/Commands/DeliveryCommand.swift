import Delivery
import PushLink
import Runtime
import System

extension Command {
    static let delivery = Command(
        name: "delivery",
        summary: "push events to the chat servers that hold their recipients",
        details: """
            Run as many as there is work for: the partitions of chat.deliveries are shared among them. Chat servers are found
            in chat.instances and must be started with the same link secret.
            """,
        options: Option.kafka + [
            Option("link-secret", .string("SECRET"), "shared with the chat servers", isSecret: true),
            Option(
                "name", .string("NAME"),
                "this worker's name: one that is the same after a restart gets its partitions back without a rebalance"),
            Option("link-ca", .string("FILE"), "connect to chat servers by TLS, trusting these certificates"),
            Option.postgres,
            Option("window-size", .size, "recent deliveries kept for devices that reconnect", standard: "64MiB"),
            Option("window-age", .duration, "and for how long", standard: "15m"),
            Option("presence-grace", .duration, "how long a user may be away and count as online", standard: "25s"),
            Option("push-window", .duration, "how long pushes for one user and chat are gathered", standard: "1s"),
            .sessionTimeout, .keepPartitions,
            .metrics,
        ],
        run: { invocation in
            let options = invocation.options
            let secret = Array(try options.require("link-secret").utf8)
            let name = options.string("name") ?? "\(CurrentProcess.hostName)-\(CurrentProcess.id)"
            var configuration = DeliveryConfiguration(
                kafka: try invocation.kafka(clientID: "fanout-delivery"), name: name,
                epoch: UInt64(invocation.clock.wallMs), secret: LinkSecret(secret), clock: invocation.clock)
            configuration.names = invocation.names
            configuration.isMemberStatic = options.has("name")
            if let file = options.string("link-ca") { configuration.tls = try TLSContext(.client(authorityPath: file)) }
            configuration.postgres = options.string("postgres")
            configuration.windowBytesMax = options.bytes("window-size") ?? configuration.windowBytesMax
            configuration.windowAgeMs = options.durationMs("window-age").map(Int64.init) ?? configuration.windowAgeMs
            configuration.presenceGraceMs =
                options.durationMs("presence-grace").map(Int64.init) ?? configuration.presenceGraceMs
            configuration.pushWindowMs =
                options.durationMs("push-window").map(Int64.init) ?? configuration.pushWindowMs
            configuration.sessionTimeoutMs = options.durationMs(Option.sessionTimeout.name)
            configuration.keepsPartitions = options.flag(Option.keepPartitions.name)
            configuration.log = invocation.log
            configuration.metrics = invocation.metrics
            let stage = DeliveryStage(configuration)
            return try invocation.runStage(
                run: { try stage.run() }, health: stage.health, stop: { stage.stop() })
        })
}
