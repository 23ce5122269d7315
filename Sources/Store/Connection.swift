public import PostgresClient

/// A connection that prepares each statement when it first meets it.
public struct StoreConnection: ~Copyable {
    public var postgres: PostgresConnection
    private var prepared: Set<String> = []

    /// What every connection that runs these statements should begin with. Planning a statement over a month of
    /// partitions takes longer than running it, so plans are made once; which days are touched is decided at run time.
    public static let settings = "SET plan_cache_mode = force_generic_plan; SET jit = off"

    public init(
        _ connectionString: String, notices: @escaping @Sendable (PostgresNotice) -> Void = { _ in }
    ) throws(PostgresError) {
        var made = try PostgresConnection(connectionString, notices: notices)
        try made.execute(Self.settings)
        postgres = made
    }

    public var isGood: Bool { postgres.isGood }

    private mutating func prepare<Row>(_ statement: Statement<Row>) throws(PostgresError) {
        guard !prepared.contains(statement.name) else { return }
        try postgres.prepare(statement.name, statement.sql)
        prepared.insert(statement.name)
    }

    public mutating func rows<Row>(_ statement: Statement<Row>) throws(PostgresError) -> [Row] {
        try prepare(statement)
        return try statement.rows(of: try postgres.query(prepared: statement.name, statement.parameters))
    }

    public mutating func first<Row>(_ statement: Statement<Row>) throws(PostgresError) -> Row? {
        try rows(statement).first
    }

    /// The number of rows changed.
    @discardableResult
    public mutating func run<Row>(_ statement: Statement<Row>) throws(PostgresError) -> Int {
        try prepare(statement)
        return try postgres.query(prepared: statement.name, statement.parameters).affectedRows
    }
}

/// A connection for a thread that outlives it: opened when it is first used, and again after it was lost.
public final class ReconnectingStore {
    private let connectionString: String
    private let setUp: String
    private let notices: @Sendable (PostgresNotice) -> Void
    private var open: StoreConnection?

    /// - Parameter setUp: SQL to begin each connection with.
    public init(
        _ connectionString: String, setUp: String = "", notices: @escaping @Sendable (PostgresNotice) -> Void = { _ in }
    ) {
        self.connectionString = connectionString
        self.setUp = setUp
        self.notices = notices
    }

    public func use<Value>(
        _ body: (inout StoreConnection) throws(PostgresError) -> Value
    ) throws(PostgresError) -> Value {
        var store = try take()
        do throws(PostgresError) {
            let value = try body(&store)
            open = consume store
            return value
        } catch {
            if store.isGood { open = consume store }
            throw error
        }
    }

    public func close() { open = nil }

    private func take() throws(PostgresError) -> StoreConnection {
        if let open = open.take(), open.isGood { return open }
        var made = try StoreConnection(connectionString, notices: notices)
        if !setUp.isEmpty { try made.postgres.execute(setUp) }
        return made
    }
}
