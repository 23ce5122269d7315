import KafkaClient
import Runtime

/// What the stage says at `/readyz` and `/healthz`.
final class PushHealth {
    /// With no partition it is there to take over.
    let partitions: Health.Condition
    private let webhook: Health.Condition
    /// One of many, and with the others it still tells people.
    private let pushServices: Health.Condition
    /// Without it people are told what the log has, through the webhook.
    private let postgres: Health.Condition
    private let thread: Health.Condition
    private var output: WriteProgress
    private var looks = 0

    static let isNoMember = "the group has not told which partitions it has"

    init(_ health: Health) {
        partitions = health.condition("partitions", failing: Self.isNoMember)
        webhook = health.condition("webhook", failing: nil)
        pushServices = health.condition("push services", failing: nil)
        postgres = health.condition("postgres", failing: nil)
        output = WriteProgress(health)
        thread = health.thread("push")
    }

    /// Each tenth of a second.
    func look(_ dispatcher: Dispatcher, _ dead: DeadLetters) {
        thread.beat()
        if dead.hasProgressed() { output.acknowledged() }
        output.look(isSettled: dead.producer.inFlight == 0)
        if dispatcher.isWebhookAway { webhook.failed("the webhook does not answer") } else { webhook.met() }
        if dispatcher.arePushServicesAway {
            pushServices.impaired("a push service does not answer")
        } else {
            pushServices.met()
        }
        looks += 1
        if looks.isMultiple(of: 20) { dispatcher.askDatabase() }
        if dispatcher.isDatabaseAway {
            postgres.impaired("no connection to Postgres: mutes and quiet hours are not known, nor are browsers")
        } else {
            postgres.met()
        }
    }
}
