internal import CPostgres

/// A connection for code that owns its thread: each call waits for its answer.
///
///     var postgres = try PostgresConnection("postgres://localhost/chat")
///     let rows = try postgres.query("SELECT user_id FROM members WHERE chat_id = $1", [.id(chat)])
///     for row in 0..<rows.rowCount { let user: UserID? = rows.id(row, 0) }
///
/// After an error of code `connectionLost` or `timeout` the connection is of no more use: make another.
public struct PostgresConnection: ~Copyable {
    let handle: PostgresHandle
    /// How long to wait for any answer; negative means as long as it takes. Dead peers are found by TCP keepalives
    /// either way.
    public var answerTimeoutMs = -1
    private var isBroken = false

    /// - Parameter overriding: settings that go before those of the string.
    public init(
        _ connectionString: String, overriding: [(String, String)] = [],
        notices: @escaping @Sendable (PostgresNotice) -> Void = { _ in }
    ) throws(PostgresError) {
        let handle = try PostgresHandle(connectionString, overriding: overriding, start: false, notices: notices)
        guard handle.isGood else { throw handle.connectError() }
        self.handle = handle
    }

    public var isGood: Bool { !isBroken && handle.isGood }
    /// For waiting on it together with other descriptors.
    public var socket: Int32 { handle.socket }
    /// As libpq gives it: 150004 for 15.4.
    public var serverVersion: Int { handle.serverVersion }
    public var backendPID: Int32 { handle.backendPID }
    public var usesTLS: Bool { handle.usesTLS }
    public var database: String { handle.database }

    /// A setting that the server reports on its own, such as `server_version` or `TimeZone`.
    public func parameter(_ name: String) -> String? { handle.parameter(name) }

    /// What came of a `LISTEN` with the answers so far; the server sends it between statements.
    public mutating func nextNotification() -> PostgresNotification? { handle.nextNotification() }

    // MARK: Statements

    /// Runs one statement. Results come in binary unless asked for as text.
    @discardableResult
    public mutating func query(
        _ sql: String, _ parameters: [PostgresValue] = [], binary: Bool = true
    ) throws(PostgresError) -> PostgresResult {
        let encoded = try EncodedParameters(parameters)
        guard handle.send(sql, encoded, binaryResults: binary) else { throw broken(sql) }
        return try finish(PostgresError.shown(sql))
    }

    /// Runs any number of statements in one round trip and, unless they say otherwise, one transaction. Text results;
    /// the last one is returned.
    @discardableResult
    public mutating func execute(_ sql: String) throws(PostgresError) -> PostgresResult {
        guard handle.send(simple: sql) else { throw broken(sql) }
        return try finish(PostgresError.shown(sql))
    }

    public mutating func prepare(_ name: String, _ sql: String, types: [UInt32] = []) throws(PostgresError) {
        guard handle.sendPrepare(name, sql, types: types) else { throw broken(name) }
        _ = try finish(name)
    }

    @discardableResult
    public mutating func query(
        prepared name: String, _ parameters: [PostgresValue] = [], binary: Bool = true
    ) throws(PostgresError) -> PostgresResult {
        let encoded = try EncodedParameters(parameters)
        guard handle.send(prepared: name, encoded, binaryResults: binary) else { throw broken(name) }
        return try finish(name)
    }

    /// Commits what `body` did, or rolls it back when it throws.
    public mutating func transaction<Value>(
        _ begin: String = "BEGIN", _ body: (inout PostgresConnection) throws(PostgresError) -> Value
    ) throws(PostgresError) -> Value {
        try execute(begin)
        do throws(PostgresError) {
            let value = try body(&self)
            let tag = try execute("COMMIT").commandTag
            // A transaction that failed inside and whose error was swallowed answers COMMIT with ROLLBACK.
            guard tag == "COMMIT" else { throw PostgresError(.server, "the transaction had failed", sqlState: "25P02") }
            return value
        } catch {
            if isGood { _ = try? execute("ROLLBACK") }
            throw error
        }
    }

    // MARK: Batches

    /// Sends all statements at once and runs them as one transaction (unless they begin their own): one round trip,
    /// however many. `each` sees every result in order; the first failure is thrown after all have been read.
    public mutating func run(
        _ batch: PostgresBatch, _ each: (Int, borrowing PostgresResult) -> Void = { _, _ in }
    ) throws(PostgresError) {
        if batch.statements.isEmpty { return }
        guard handle.enterPipeline() else { throw broken("a batch") }
        for statement in batch.statements {
            guard statement.send(on: handle) else { throw broken(statement.name) }
        }
        guard handle.pipelineSync() else { throw broken("a batch") }
        var failure: PostgresError?
        for (index, statement) in batch.statements.enumerated() {
            while let result = try receive(statement.name) {
                switch result.status {
                case PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_EMPTY_QUERY:
                    each(index, result)
                case PGRES_PIPELINE_ABORTED:
                    failure = failure ?? PostgresError(.skipped, "not run", statement: statement.name)
                default:
                    failure = failure ?? result.error(statement: statement.name)
                }
            }
        }
        // The sync is a result of its own, with no separator after it.
        if let result = try receive("a batch"), result.status != PGRES_PIPELINE_SYNC {
            throw unexpected("a batch did not end in a sync")
        }
        guard handle.exitPipeline() else { throw broken("a batch") }
        if let failure { throw failure }
    }

    // MARK: COPY

    /// Begins `COPY … FROM STDIN`; then `writeCopy` any number of times and `endCopy`.
    public mutating func beginCopyIn(_ sql: String) throws(PostgresError) {
        try begin(sql, expecting: PGRES_COPY_IN)
    }

    /// Passes bytes on in any portions. Blocks while the server is slower.
    public mutating func writeCopy(_ bytes: Span<UInt8>) throws(PostgresError) {
        guard handle.putCopyData(bytes) else { throw broken("COPY") }
    }

    /// The number of rows stored.
    @discardableResult
    public mutating func endCopy() throws(PostgresError) -> Int {
        guard handle.putCopyEnd() else { throw broken("COPY") }
        return try finish("COPY").affectedRows
    }

    /// Gives a COPY up: nothing of it is stored.
    public mutating func failCopy(_ reason: String) throws(PostgresError) {
        guard handle.putCopyEnd(failing: reason) else { throw broken("COPY") }
        do {
            _ = try finish("COPY")
        } catch {
            guard error.code == .server else { throw error }
        }
    }

    /// Begins `COPY … TO STDOUT`; then `readCopy` until it returns `nil`.
    public mutating func beginCopyOut(_ sql: String) throws(PostgresError) {
        try begin(sql, expecting: PGRES_COPY_OUT)
    }

    /// The next message: in text format exactly one row with its line break, in binary one row or header or trailer.
    public mutating func readCopy() throws(PostgresError) -> CopyData? {
        while true {
            switch handle.getCopyData() {
            case .data(let data): return data
            case .nothingYet: try awaitInput("COPY")
            case .ended:
                _ = try finish("COPY")
                return nil
            case .failed: throw broken("COPY")
            }
        }
    }

    mutating func begin(_ sql: String, expecting status: ExecStatusType) throws(PostgresError) {
        guard handle.send(simple: sql) else { throw broken(sql) }
        let name = PostgresError.shown(sql)
        guard let result = try receive(name) else { throw unexpected("no answer to \(name)") }
        if result.status == status { return }
        let failed = result.status == PGRES_FATAL_ERROR || result.status == PGRES_BAD_RESPONSE
        let error =
            failed ? result.error(statement: name) : PostgresError(.badInput, "not the expected COPY", statement: name)
        // The rest of the answer; a COPY in the wrong direction cannot be left in order.
        if failed { while try receive(name) != nil {} } else { isBroken = true }
        throw error
    }

    // MARK: Waiting

    /// Reads all results of one statement and returns the last, or throws the first error.
    mutating func finish(_ statement: String) throws(PostgresError) -> PostgresResult {
        var last: PostgresResult?
        var failure: PostgresError?
        while let result = try receive(statement) {
            switch result.status {
            case PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_EMPTY_QUERY:
                last = consume result
            case PGRES_COPY_IN, PGRES_COPY_OUT, PGRES_COPY_BOTH:
                throw unexpected("COPY must be begun as such")
            default:
                failure = failure ?? result.error(statement: statement)
            }
        }
        if let failure {
            // What the server says while it goes down, or kicks us out, comes as a failed statement.
            guard handle.isGood else {
                isBroken = true
                throw PostgresError(
                    .connectionLost, failure.message, sqlState: failure.sqlState, statement: statement,
                    detail: failure.detail, hint: failure.hint)
            }
            throw failure
        }
        guard let last else { throw unexpected("no result") }
        return last
    }

    private mutating func receive(_ statement: String) throws(PostgresError) -> PostgresResult? {
        while handle.isBusy { try awaitInput(statement) }
        return handle.nextResult()
    }

    private mutating func awaitInput(_ statement: String) throws(PostgresError) {
        guard handle.wait(timeoutMs: answerTimeoutMs) else {
            isBroken = true
            throw PostgresError(.timeout, "no answer within \(answerTimeoutMs) ms", statement: statement)
        }
        // A lost connection leaves a result that says so; finish() reads it.
        guard handle.consumeInput() || !handle.isBusy else { throw broken(statement) }
    }

    mutating func broken(_ statement: String) -> PostgresError {
        isBroken = true
        return handle.lost(PostgresError.shown(statement))
    }

    private mutating func unexpected(_ message: String) -> PostgresError {
        isBroken = true
        return PostgresError(.unexpectedAnswer, message)
    }
}
