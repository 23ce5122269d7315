import Push
import Runtime
import System
import Wire

extension Command {
    static let push = Command(
        name: "push",
        summary: "notify people who are offline, through a webhook and Web Push",
        operands: "[vapid-key]",
        details: """
            Gathers what people without a session have missed and POSTs one JSON object each to the webhook, signed in the
            header X-Fanout-Signature: t=SECONDS,v1=HMAC-SHA256(secret, "SECONDS." + body). docs/push.md describes it.
              fanout push --kafka 127.0.0.1:9092 --webhook https://example.org/notify --webhook-secret …
            Browsers are told directly when there is a key; 'vapid-key' makes one and prints what browsers need of it:
              fanout push vapid-key --vapid-key vapid.pem
              fanout push --postgres … --vapid-key vapid.pem --vapid-subject mailto:ops@example.org
            """,
        options: Option.kafka + [
            Option(
                "postgres", .string("URL"), "mutes, quiet hours, unread counts and devices are looked up here",
                isSecret: true),
            .webhook,
            .webhookSecret,
            Option("webhook-ca", .string("FILE"), "certificates to trust instead of the system's"),
            Option("webhook-timeout", .duration, "how long a request may take", standard: "15s"),
            Option("vapid-key", .string("FILE"), "a P-256 key in PEM: tells browsers that have subscribed"),
            Option("vapid-subject", .string("URL"), "how push services reach you: mailto:… or https://…"),
            Option("push-ttl", .duration, "how long push services keep what a browser cannot take", standard: "24h"),
            Option(
                "allow-private-endpoints", .flag, "let subscriptions lie on this machine and network; for tests only"),
            Option("window", .duration, "how long messages gather before somebody is told", standard: "5s"),
            Option(
                "per-user", .duration, "at most one notice a person in this time, unless mentioned", standard: "30s"),
            Option("no-preview", .flag, "send no text of messages"),
            Option("concurrency", .integer(1...10_000), "requests at once", standard: "64"),
            Option("batch-max", .integer(1...1000), "notices a request; more than 1 sends an array", standard: "1"),
            Option("attempts-max", .integer(1...100), "tries before a notice goes to chat.push.dead", standard: "8"),
            Option(
                "records-max", .integer(1000...100_000_000), "records in memory before reading stops",
                standard: "1000000"),
            Option("dry-run", .flag, "print what would be sent, send nothing, and leave the group's place alone"),
            .metrics,
        ],
        run: { invocation in
            switch invocation.operands {
            case []: break
            case ["vapid-key"]: return try makeVAPIDKey(invocation)
            default: throw UsageError("expected nothing or 'vapid-key', not '\(invocation.operands[0])'")
            }
            let configuration = try invocation.pushConfiguration()
            if configuration.webhook == nil, configuration.webPush == nil, !configuration.dryRun {
                invocation.log.warning("neither --webhook nor --vapid-key is set: nobody is notified")
            }
            let stage = PushStage(
                configuration, log: invocation.log, metrics: invocation.metrics, clock: invocation.clock)
            return try invocation.runStage(run: { try stage.run() }, health: stage.health, stop: { stage.stop() })
        })

    /// A new key into a file that only its owner can read, and its public half for the browsers.
    private static func makeVAPIDKey(_ invocation: Invocation) throws -> ExitCode {
        let path = try invocation.options.require("vapid-key")
        let key = try PrivateKey.generate(.es256)
        let file = try File(path, .write, create: .exclusive, permissions: 0o600)
        try file.write(Array(key.pem.utf8), at: 0)
        try file.synchronize()
        Output.standard(try VAPID(key: key, subject: "").publicKey + "\n")
        return .success
    }
}

extension Option {
    static let webhook = Option("webhook", .string("URL"), "where notices are POSTed")
    static let webhookSecret = Option("webhook-secret", .string("SECRET"), "signs what is sent", isSecret: true)
}

extension Invocation {
    /// For commands that take `Option.webhook`.
    func webhook() throws -> String? {
        guard let url = options.string("webhook") else { return nil }
        guard url.hasPrefix("http://") || url.hasPrefix("https://") else {
            throw UsageError("--webhook must begin with https:// or http://")
        }
        return url
    }

    fileprivate func pushConfiguration() throws -> PushConfiguration {
        var configuration = PushConfiguration(kafka: try kafka(clientID: "fanout-push"))
        configuration.names = names
        configuration.postgres = options.string("postgres")
        configuration.webhook = try webhook()
        configuration.secret = options.string("webhook-secret")
        configuration.certificateAuthorities = options.string("webhook-ca")
        configuration.timeoutMs = options.durationMs("webhook-timeout") ?? configuration.timeoutMs
        configuration.webPush = try webPushOptions()
        configuration.coalescing.windowMs = Int64(options.durationMs("window") ?? 5000)
        configuration.coalescing.perUserMs = Int64(options.durationMs("per-user") ?? 30_000)
        configuration.showsPreview = !options.flag("no-preview")
        configuration.concurrency = options.integer("concurrency") ?? configuration.concurrency
        configuration.batchMax = options.integer("batch-max") ?? configuration.batchMax
        configuration.retry.attemptsMax = options.integer("attempts-max") ?? configuration.retry.attemptsMax
        configuration.memory.records = options.integer("records-max") ?? configuration.memory.records
        configuration.dryRun = options.flag("dry-run")
        return configuration
    }

    private func webPushOptions() throws -> WebPushOptions? {
        guard let path = options.string("vapid-key") else { return nil }
        guard options.string("postgres") != nil else {
            throw UsageError("--postgres is required with --vapid-key: it has the subscriptions")
        }
        let subject = try options.require("vapid-subject")
        guard subject.hasPrefix("mailto:") || subject.hasPrefix("https://") else {
            throw UsageError("--vapid-subject must begin with mailto: or https://")
        }
        var webPush = WebPushOptions(
            key: try PrivateKey(pem: try File.text(of: path, maxBytes: 64 << 10)), subject: subject)
        webPush.ttlSeconds = (options.durationMs("push-ttl") ?? 86_400_000) / 1000
        webPush.allowsPrivateAddresses = options.flag("allow-private-endpoints")
        return webPush
    }
}
