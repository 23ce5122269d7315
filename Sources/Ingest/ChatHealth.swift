import KafkaClient
import Runtime

/// What a loop of the chat server says at `/readyz` and `/healthz`. On the loop's thread only.
final class ChatHealth {
    private let postgres: Health.Condition
    private let thread: Health.Condition
    private var log: WriteProgress
    private var hasDatabase = false

    /// - Parameter name: which loop, where there are several.
    init(_ health: Health, name: String, hasDatabase: Bool) {
        postgres = health.condition(
            "postgres\(name)", failing: hasDatabase ? "no connection to Postgres yet: no session can start" : nil)
        // Each second the server announces itself, so that there is always something that the log has to acknowledge.
        log = WriteProgress(health, name: "log\(name)")
        thread = health.thread("chat\(name)")
    }

    func acknowledged() { log.acknowledged() }

    func look(_ writer: LogWriter, _ database: Database?) {
        thread.beat()
        log.look(isSettled: writer.isSettled)
        guard let database else { return }
        if database.answers {
            hasDatabase = true
            postgres.met()
        } else if hasDatabase {
            // Known sessions send and receive, and no other server could start a session either.
            postgres.impaired("Postgres does not answer: no new sessions, no API; open sessions go on")
        }
    }
}
