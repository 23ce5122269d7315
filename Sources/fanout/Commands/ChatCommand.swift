import Ingest
import Runtime
import System

extension Command {
    static let chat = Command(
        name: "chat",
        summary: "serve devices: WebSockets and the HTTP API",
        details: """
            Any number of processes on any number of machines; Delivery finds them through the log. Tokens are signed
            with one algorithm, fixed here:
              fanout chat --token-key SECRET …                         HS256
              fanout chat --token-keys keys.json --token-algorithm RS256 …
            SIGHUP reads certificates and keys again; SIGTERM sends the devices elsewhere, then ends.
            """,
        options: Option.kafka + [
            Option.postgres, Option.metrics,
            Option("name", .string("NAME"), "this process among all chat servers; by default made of host and port"),
            Option("listen", .address, "the address to serve devices at", standard: "127.0.0.1:8080"),
            Option("public-url", .string("URL"), "where devices reach it, e.g. wss://chat.example.com"),
            Option("tls-certificate", .string("FILE"), "the certificate chain, in PEM"),
            Option("tls-key", .string("FILE"), "its private key, in PEM"),
            Option("link-listen", .address, "the address for Delivery workers", standard: "127.0.0.1:0"),
            Option(
                "link-host", .string("HOST"),
                "the host that workers are told (as listened at; this machine's name for 0.0.0.0)"),
            Option("link-secret", .string("SECRET"), "shared by all workers and chat servers", isSecret: true),
            Option("link-tls-certificate", .string("FILE"), "speak TLS with workers, with this certificate chain"),
            Option("link-tls-key", .string("FILE"), "its private key"),
            Option("token-key", .string("SECRET"), "tokens are signed with this (HS256)", isSecret: true),
            Option("token-keys", .string("FILE"), "tokens are verified with these: a JWK set, or a key in PEM"),
            Option("token-algorithm", .choice(["RS256", "ES256", "EdDSA"]), "how the tokens are signed then"),
            Option("token-audience", .string("NAME"), "tokens must name this in aud"),
            Option(
                "origin", .string("URL"), "a site whose pages may connect; all may when none is named", isRepeated: true
            ),
            Option("web", .string("DIR"), "serve the files of this directory, such as the demo page"),
            Option("demo-users", .string("FILE"), "what GET /demo/users answers; for demos only"),
            Option("stage", .keyValue, "NAME=HOST:PORT of a stage's metrics, for the operations page"),
            Option("loops", .integer(1...256), "threads that serve devices", standard: "1"),
            Option("large-chat", .integer(1...1_000_000), "as given to fanout join", standard: "256"),
            Option("rate", .integer(1...1_000_000), "messages a user may send in 10 s", standard: "10"),
            Option("connections-per-user", .integer(1...100_000), "devices of one user at once", standard: "32"),
            Option(
                "connections-per-address", .integer(1...1_000_000), "connections from one address at once",
                standard: "50000"),
            Option("drain", .duration, "spread the devices over so long when stopping", standard: "5s"),
            Option("media-endpoint", .string("URL"), "an S3-compatible store for media"),
            Option("media-bucket", .string("NAME"), "the bucket there"),
            Option("media-region", .string("NAME"), "its region", standard: "us-east-1"),
            Option("media-access-key", .string("KEY"), "who signs the links", isSecret: true),
            Option("media-secret-key", .string("KEY"), "and with what", isSecret: true),
            Option("vapid-public-key", .string("KEY"), "what 'fanout push vapid-key' printed: GET /v1/push/key"),
            Option("allow-private-endpoints", .flag, "as given to fanout push; for tests only"),
        ],
        run: { invocation in
            let configuration = try invocation.ingestConfiguration()
            let server = try ChatServer(configuration, log: invocation.log, metrics: invocation.metrics)
            return try invocation.runStage(
                run: { try server.run() }, health: server.health, reload: { server.reload() },
                stop: { server.stop() })
        })
}

extension Invocation {
    fileprivate func ingestConfiguration() throws -> IngestConfiguration {
        guard let listen = options.address("listen"), let link = options.address("link-listen") else {
            throw UsageError("--listen and --link-listen are required")
        }
        var configuration = IngestConfiguration(
            instance: options.string("name") ?? "\(CurrentProcess.hostName)-\(CurrentProcess.id)", listen: listen,
            pushListen: link, pushHost: options.string("link-host"),
            pushSecret: Array(try options.require("link-secret").utf8), kafka: try kafka(clientID: "fanout-chat"),
            tokens: try tokenConfiguration())
        configuration.names = names
        configuration.postgres = options.string("postgres")
        configuration.publicURL = options.string("public-url")
        configuration.tls = try tls("tls")
        configuration.pushTLS = try tls("link-tls")
        configuration.origins = options.strings("origin")
        configuration.webRoot = options.string("web")
        configuration.demoUsersFile = options.string("demo-users")
        for (name, value) in options.keyValues("stage") {
            guard let address = Address(value) else { throw UsageError("--stage \(name)=\(value): not HOST:PORT") }
            configuration.stages.append((name, address))
        }
        configuration.loops = options.integer("loops") ?? 1
        configuration.limits.largeChat = options.integer("large-chat") ?? configuration.limits.largeChat
        configuration.limits.messages = options.integer("rate") ?? configuration.limits.messages
        configuration.limits.connectionsPerUser =
            options.integer("connections-per-user") ?? configuration.limits.connectionsPerUser
        configuration.limits.connectionsPerAddress =
            options.integer("connections-per-address") ?? configuration.limits.connectionsPerAddress
        configuration.limits.drainMs = options.durationMs("drain") ?? configuration.limits.drainMs
        if let endpoint = options.string("media-endpoint") {
            configuration.media = MediaStore(
                endpoint: endpoint, bucket: try options.require("media-bucket"),
                region: options.string("media-region") ?? "us-east-1",
                accessKey: try options.require("media-access-key"), secretKey: try options.require("media-secret-key"))
        }
        configuration.vapidPublicKey = options.string("vapid-public-key")
        configuration.allowsPrivateEndpoints = options.flag("allow-private-endpoints")
        return configuration
    }

    private func tokenConfiguration() throws -> TokenConfiguration {
        let audience = options.string("token-audience")
        if let path = options.string("token-keys") {
            guard let algorithm = SignatureAlgorithm(rawValue: try options.require("token-algorithm")) else {
                throw UsageError("--token-algorithm must be RS256, ES256 or EdDSA")
            }
            return TokenConfiguration(keys: .file(path: path, algorithm), audience: audience)
        }
        guard let secret = options.string("token-key") else {
            throw UsageError("--token-key or --token-keys is required, or nobody could come in")
        }
        return TokenConfiguration(keys: .hs256(secret: Array(secret.utf8)), audience: audience)
    }

    private func tls(_ prefix: String) throws -> TLSContext? {
        guard let certificate = options.string(prefix + "-certificate") else { return nil }
        return try TLSContext(
            .server(certificatePath: certificate, keyPath: try options.require(prefix + "-key")))
    }
}
