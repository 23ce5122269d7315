// What Fanout asks of its database, as values.
//
// Each question is a `Statement`: a name under which a connection prepares it once, its SQL, its parameters, and how a
// row of the answer becomes a value. It knows nothing of connections: a stage that owns its thread runs it on a
// `PostgresConnection` (see `Connection.swift`), the chat server on its non-blocking pool by preparing `sql` under
// `name` and mapping each row with `read`. So the SQL, and the indexes it counts on, stand in one place:
//
//     Accounts.swift        users, chats and members: what the HTTP API reads and changes
//     Membership.swift      who is in which chat, for the join and for sessions
//     ChatMembers.swift     one chat's members, for people
//     MessagePages.swift    pages of history
//     Conversations.swift   the conversation list with unread counts
//     Sync.swift            what a device missed that was away longer than the hot window
//     PushDevices.swift     whom `fanout push` tells, and how
//     LogGenerations.swift  how messages are numbered where a log begins again
//
// The tables are in `postgres/`.
public import PostgresClient

/// One prepared statement with its parameters.
public struct Statement<Row: Sendable>: Sendable {
    /// Unique for the SQL: prepare it under this name once a connection.
    public let name: String
    public let sql: String
    public let parameters: [PostgresValue]
    /// One row of a binary result; nil if it is not what the statement promises.
    public let read: @Sendable (borrowing PostgresResult, Int) -> Row?

    public init(
        _ name: String, _ sql: String, _ parameters: [PostgresValue],
        _ read: @escaping @Sendable (borrowing PostgresResult, Int) -> Row?
    ) {
        self.name = name
        self.sql = sql
        self.parameters = parameters
        self.read = read
    }

    public func rows(of result: borrowing PostgresResult) throws(PostgresError) -> [Row] {
        var rows: [Row] = []
        rows.reserveCapacity(result.rowCount)
        for index in 0..<result.rowCount {
            guard let row = read(result, index) else {
                throw PostgresError(.unexpectedAnswer, "row \(index) has another shape", statement: name)
            }
            rows.append(row)
        }
        return rows
    }
}

extension Statement where Row == Never {
    /// A statement that answers no rows.
    public init(_ name: String, _ sql: String, _ parameters: [PostgresValue]) {
        self.init(name, sql, parameters) { _, _ in nil }
    }
}
