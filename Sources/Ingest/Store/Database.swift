import PostgresClient
import Runtime
import Store
import System

/// One loop's way to Postgres: the questions of `Store`, asked without waiting.
final class Database {
    let pool: PostgresPool
    /// Questions without an answer.
    private(set) var pendingCount = 0

    init(_ connectionString: String, on loop: EventLoop, connections: Int) {
        pool = PostgresPool(Self.settled(connectionString), on: loop, count: connections)
        pool.connect()
    }

    private var wasLastPingLost = false
    /// Whether there is a connection, and the last `ping` was answered: a server that is frozen keeps its connections.
    var answers: Bool { pool.isReady && !wasLastPingLost }

    func ping() {
        pool.query("SELECT 1") { [weak self] result in
            if case .failure = result { self?.wasLastPingLost = true } else { self?.wasLastPingLost = false }
        }
    }

    func rows<Row>(
        _ statement: Store.Statement<Row>, _ body: @escaping (Result<[Row], PostgresError>) -> Void
    ) {
        pendingCount += 1
        pool.query(PostgresStatement(statement.name, statement.sql), statement.parameters) { [weak self] result in
            self?.pendingCount -= 1
            switch consume result {
            case .failure(let error): body(.failure(error))
            case .success(let answer):
                let rows: Result<[Row], PostgresError>
                do throws(PostgresError) { rows = .success(try statement.rows(of: answer)) } catch {
                    rows = .failure(error)
                }
                body(rows)
            }
        }
    }

    func first<Row>(
        _ statement: Store.Statement<Row>, _ body: @escaping (Result<Row?, PostgresError>) -> Void
    ) {
        rows(statement) { body($0.map(\.first)) }
    }

    /// Runs the changes and then asks the question, all in one transaction: the answer sees what the changes did.
    func change<Row>(
        _ changes: [Store.Statement<Never>], then question: Store.Statement<Row>,
        _ body: @escaping (Result<(changed: Int, row: Row?), PostgresError>) -> Void
    ) {
        var batch = PostgresBatch()
        do throws(PostgresError) {
            for change in changes { try batch.add(change.sql, change.parameters) }
            try batch.add(question.sql, question.parameters)
        } catch {
            return body(.failure(error))
        }
        var changed = 0
        var row: Row?
        var failure: PostgresError?
        let last = changes.count
        pendingCount += 1
        pool.channel.run(batch) { index, result in
            guard index == last else {
                changed += result.affectedRows
                return
            }
            do throws(PostgresError) { row = try question.rows(of: result).first } catch { failure = error }
        } done: { [weak self] error in
            self?.pendingCount -= 1
            if let error = error ?? failure { return body(.failure(error)) }
            body(.success((changed, row)))
        }
    }

    /// Plans over a month of partitions are made once a connection, as `StoreConnection.settings` does it.
    static func settled(_ connectionString: String) -> String {
        guard !connectionString.contains("options=") else { return connectionString }
        if connectionString.contains("://") {
            let separator = connectionString.contains("?") ? "&" : "?"
            return connectionString + separator
                + "options=-c%20plan_cache_mode%3Dforce_generic_plan%20-c%20jit%3Doff"
        }
        return connectionString + " options='-c plan_cache_mode=force_generic_plan -c jit=off'"
    }
}
