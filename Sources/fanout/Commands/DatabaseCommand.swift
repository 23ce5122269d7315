import PostgresClient
import Runtime
import System

extension Command {
    static let database = Command(
        name: "db",
        summary: "bring the database's schema up to date",
        operands: "migrate",
        details: """
            Applies what is missing of the schema, each step in a transaction of its own. May be run at any time, by
            any number of processes at once; a database that is up to date is left alone.
            """,
        options: [Option.postgres],
        run: { invocation in
            guard invocation.operands == ["migrate"] else { throw UsageError("say what to do: fanout db migrate") }
            let connectionString = try invocation.postgres()
            let log = invocation.log
            var postgres = try PostgresConnection(connectionString) { notice in
                log.debug("postgres", ["notice": "\(notice)"])
            }
            let applied = try Migrations.apply(to: &postgres)
            for migration in applied {
                log.info("applied", ["number": .int(Int64(migration.number)), "name": "\(migration.name)"])
            }
            log.info(
                applied.isEmpty ? "the schema is up to date" : "the schema has been brought up to date",
                ["database": "\(ConnectionString.shown(connectionString))"])
            return .success
        })
}
