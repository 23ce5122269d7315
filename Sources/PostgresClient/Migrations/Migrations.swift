/// One step of the schema, as it stands in `postgres/NNN_name.sql`.
public struct Migration: Equatable, Sendable {
    public var number: Int
    public var name: String
    public var sql: String

    public init(number: Int, name: String, sql: String) {
        self.number = number
        self.name = name
        self.sql = sql
    }
}

/// Brings a database's schema up to this binary's.
///
/// Which steps a database has had stands in its table `fanout_migrations`, with the hash of each step's text: a step is
/// never changed once it has been applied somewhere, it is followed by another. Each step is one transaction. Several
/// processes may try at once; they take turns.
public enum Migrations {
    /// "fanout" as a number: the advisory lock that says a migration is under way.
    private static let lock: Int64 = 0x6661_6e6f_7574

    /// Applies what is missing and returns it.
    @discardableResult
    public static func apply(
        _ migrations: [Migration] = Schema.migrations, to postgres: inout PostgresConnection
    ) throws(PostgresError) -> [Migration] {
        try postgres.query("SELECT pg_advisory_lock($1)", [.int(lock)])
        let applied: [Migration]
        do throws(PostgresError) {
            applied = try applyLocked(migrations, to: &postgres)
        } catch {
            if postgres.isGood { _ = try? postgres.query("SELECT pg_advisory_unlock($1)", [.int(lock)]) }
            throw error
        }
        try postgres.query("SELECT pg_advisory_unlock($1)", [.int(lock)])
        return applied
    }

    private static func applyLocked(
        _ migrations: [Migration], to postgres: inout PostgresConnection
    ) throws(PostgresError) -> [Migration] {
        // Asked first, because CREATE TABLE needs a right that who only checks may lack.
        if try postgres.query("SELECT to_regclass('fanout_migrations') IS NULL").bool(0, 0) == true {
            try postgres.execute(
                """
                CREATE TABLE fanout_migrations (
                    number int PRIMARY KEY, name text NOT NULL, hash text NOT NULL,
                    applied_at timestamptz NOT NULL DEFAULT now())
                """)
        }
        var applied: [Migration] = []
        let known = try postgres.query("SELECT number, name, hash FROM fanout_migrations ORDER BY number")
        for row in 0..<known.rowCount {
            let number = Int(known.int(row, 0) ?? 0)
            let name = known.text(row, 1) ?? ""
            guard let ours = migrations.first(where: { $0.number == number }) else {
                throw PostgresError(
                    .badInput, "the database has migration \(number) (\(name)), which this fanout does not know",
                    hint: "use the newer fanout that applied it")
            }
            guard try hash(of: ours.sql, by: &postgres) == known.text(row, 2) else {
                throw PostgresError(
                    .badInput, "migration \(number) (\(name)) is not the one that was applied to the database",
                    hint: "a migration is never changed; write the next one")
            }
        }
        let done = (0..<known.rowCount).map { Int(known.int($0, 0) ?? 0) }
        for migration in migrations where !done.contains(migration.number) {
            do throws(PostgresError) {
                try postgres.transaction { transaction throws(PostgresError) in
                    try transaction.execute(migration.sql)
                    try transaction.query(
                        """
                        INSERT INTO fanout_migrations (number, name, hash)
                        VALUES ($1, $2, encode(sha256(convert_to($3, 'UTF8')), 'hex'))
                        """, [.int(Int64(migration.number)), .text(migration.name), .text(migration.sql)])
                }
            } catch {
                var error = error
                error.statement = "migration \(migration.number) (\(migration.name))"
                throw error
            }
            applied.append(migration)
        }
        return applied
    }

    private static func hash(of sql: String, by postgres: inout PostgresConnection) throws(PostgresError) -> String? {
        try postgres.query("SELECT encode(sha256(convert_to($1, 'UTF8')), 'hex')", [.text(sql)]).text(0, 0)
    }
}
