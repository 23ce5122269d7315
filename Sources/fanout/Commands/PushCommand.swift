import Push
import Runtime

extension Command {
    static let push = Command(
        name: "push",
        summary: "notify people who are offline through a webhook",
        details: """
            Gathers what people without a session have missed and POSTs one JSON object each to the webhook, signed in the
            header X-Fanout-Signature: t=SECONDS,v1=HMAC-SHA256(secret, "SECONDS." + body). docs/push.md describes it.
              fanout push --kafka 127.0.0.1:9092 --webhook https://example.org/notify --webhook-secret …
            """,
        options: Option.kafka + [
            Option("postgres", .string("URL"), "mutes and quiet hours are looked up here", isSecret: true),
            Option("webhook", .string("URL"), "where notices are POSTed"),
            Option("webhook-secret", .string("SECRET"), "signs what is sent", isSecret: true),
            Option("webhook-ca", .string("FILE"), "certificates to trust instead of the system's"),
            Option("webhook-timeout", .duration, "how long a request may take", standard: "15s"),
            Option("window", .duration, "how long messages gather before somebody is told", standard: "5s"),
            Option(
                "per-user", .duration, "at most one notice a person in this time, unless mentioned", standard: "30s"),
            Option("no-preview", .flag, "send no text of messages"),
            Option("concurrency", .integer(1...10_000), "requests at once", standard: "64"),
            Option("batch-max", .integer(1...1000), "notices a request; more than 1 sends an array", standard: "1"),
            Option("attempts-max", .integer(1...100), "tries before a notice goes to chat.push.dead", standard: "8"),
            Option("dry-run", .flag, "print what would be sent, and send nothing"),
            .metrics,
        ],
        run: { invocation in
            let options = invocation.options
            var configuration = PushConfiguration(kafka: try invocation.kafka(clientID: "fanout-push"))
            configuration.names = invocation.names
            configuration.postgres = options.string("postgres")
            configuration.webhook = options.string("webhook")
            configuration.secret = options.string("webhook-secret")
            configuration.certificateAuthorities = options.string("webhook-ca")
            configuration.timeoutMs = options.durationMs("webhook-timeout") ?? configuration.timeoutMs
            configuration.coalescing.windowMs = Int64(options.durationMs("window") ?? 5000)
            configuration.coalescing.perUserMs = Int64(options.durationMs("per-user") ?? 30_000)
            configuration.showsPreview = !options.flag("no-preview")
            configuration.concurrency = options.integer("concurrency") ?? 64
            configuration.batchMax = options.integer("batch-max") ?? 1
            configuration.retry.attemptsMax = options.integer("attempts-max") ?? 8
            configuration.dryRun = options.flag("dry-run")
            if configuration.webhook == nil, !configuration.dryRun {
                invocation.log.warning("no --webhook is set: nobody is notified")
            }
            let stage = PushStage(
                configuration, log: invocation.log, metrics: invocation.metrics, clock: invocation.clock)
            return try invocation.runStage(run: { try stage.run() }, stop: { stage.stop() })
        })
}
