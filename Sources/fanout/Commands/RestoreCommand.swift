import History
import Runtime
import System

extension Command {
    static let restore = Command(
        name: "restore",
        summary: "go on after the log or the database was lost",
        operands: "log|database|backup|both",
        details: """
            Say what was lost: log (the database is whole), database (the log is whole), backup (the database is one of a
            backup, from before; the log is whole), or both. Stop the stages first, run fanout topics create, then this,
            then start them. It does what must be done and is not yet, says what that is and what is lost, and may be run
            again. docs/restore.md has the whole procedure.
            """,
        options: Option.kafka + [Option.postgres],
        run: { invocation in
            guard invocation.operands.count == 1, let loss = Restore.Loss(rawValue: invocation.operands[0]) else {
                throw UsageError("say what was lost: fanout restore log, database, backup or both")
            }
            let configuration = HistoryConfiguration(
                kafka: try invocation.kafka(clientID: "fanout-restore"), postgres: try invocation.postgres(),
                names: invocation.names)
            try Restore(configuration, log: invocation.log).run(loss)
            return .success
        })
}
