internal import PostgresClient
internal import Runtime
internal import Store
internal import Wire

/// Looks, before positions are taken from a database, whether it is complete, and whether it is the one that it was.
///
/// A restore puts tables back one by one and their keys last. Whoever writes positions into it meanwhile finds each of them
/// twice afterwards, and the restore fails.
final class DatabaseGuard {
    private let log: Log
    private var known: Store.DatabaseIdentity?
    private var told: [String] = []

    init(_ log: Log) { self.log = log }

    var hasSeenComplete: Bool { known != nil }

    /// Errors that tables, columns or keys are missing, which a restore makes good.
    func isAboutSchema(_ error: PostgresError) -> Bool {
        hasSeenComplete && ["42P01", "42703", "42P10", "3D000", "3F000"].contains(error.sqlState)
    }

    /// Whether it may be used now.
    func look(at store: inout StoreConnection) throws(PostgresError) -> Bool {
        let missing = try store.rows(DatabaseCheck.missing)
        guard missing.isEmpty else {
            if missing != told {
                log.error(
                    "the database is not complete (is it being restored?); nothing is stored until it is",
                    ["missing": .string(missing.joined(separator: ", "))])
            }
            told = missing
            return false
        }
        if !told.isEmpty { log.info("the database is complete") }
        told = []
        let identity = try DatabaseCheck.identity(of: &store)
        if let known, known != identity {
            log.error(
                "the database is not the one that it was: it was restored, or another has taken its place; going on from its positions",
                ["was": "\(known)", "now": "\(identity)"])
        }
        known = identity
        return true
    }
}
