internal import CPostgres

/// What went wrong between us and Postgres, with the evidence that the server gave.
public struct PostgresError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        /// No connection could be made.
        case connect
        /// The connection was there and broke: reconnect, and assume nothing about the statement in flight.
        case connectionLost
        /// The server refused the statement; `sqlState` says why. The connection is still good.
        case server
        /// The answer did not come in time. The connection has been closed.
        case timeout
        /// The server's answer is not what the protocol or our code expects.
        case unexpectedAnswer
        /// A connection string or a parameter that cannot be sent.
        case badInput
        /// An earlier statement of the same batch failed, so this one was not run.
        case skipped
        /// Too much is waiting already; nothing was sent.
        case busy
    }

    public var code: Code
    public var message: String
    /// The five characters of Postgres' appendix A, such as `23505` for a unique violation.
    public var sqlState: String?
    /// The name of the statement, or the head of its text.
    public var statement: String?
    public var detail: String?
    public var hint: String?

    public init(
        _ code: Code, _ message: String, sqlState: String? = nil, statement: String? = nil, detail: String? = nil,
        hint: String? = nil
    ) {
        self.code = code
        self.message = message
        self.sqlState = sqlState
        self.statement = statement
        self.detail = detail
        self.hint = hint
    }

    public var description: String {
        var text = message
        if let sqlState { text += " (SQLSTATE \(sqlState))" }
        if let statement { text += " in \(statement)" }
        if let detail { text += "; detail: \(detail)" }
        if let hint { text += "; hint: \(hint)" }
        return text
    }

    /// Whether trying the same again, on a new connection where this one is lost, may succeed: the server is away,
    /// starting, stopping or full, or a transaction lost a race.
    public var isTransient: Bool {
        switch code {
        case .connectionLost, .timeout, .busy: return true
        case .connect:
            // A server that answered with a refusal of credentials or database will refuse again.
            return sqlState.map { !$0.hasPrefix("28") && !$0.hasPrefix("3D") } ?? true
        case .server:
            guard let sqlState else { return false }
            return sqlState.hasPrefix("08") || sqlState.hasPrefix("57P") || sqlState.hasPrefix("53")
                || sqlState.hasPrefix("40") || sqlState == "55P03" || sqlState == "55006"
        case .unexpectedAnswer, .badInput, .skipped: return false
        }
    }

    static let statementShownMax = 80

    static func shown(_ sql: String) -> String {
        let line = sql.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        return line.count <= statementShownMax ? line : line.prefix(statementShownMax) + "…"
    }
}

extension PostgresError {
    /// Reads the error out of a failed result.
    init(result: OpaquePointer, code: Code = .server, statement: String?) {
        func field(_ name: Unicode.Scalar) -> String? {
            unsafe PQresultErrorField(result, Int32(name.value)).map { unsafe String(cString: $0) }
        }
        // The PG_DIAG_… codes of the protocol.
        self.init(
            code, unsafe field("M") ?? String(cString: PQresultErrorMessage(result)).trimmedLine,
            sqlState: field("C"), statement: statement, detail: field("D"), hint: field("H"))
        if message.isEmpty { message = "the server gave no message" }
    }
}

extension String {
    /// libpq ends its messages with a line break, and some have several lines.
    var trimmedLine: String {
        split(whereSeparator: \.isNewline).map { line in
            var line = line.drop(while: \.isWhitespace)
            while line.last?.isWhitespace == true { line.removeLast() }
            return String(line)
        }.joined(separator: "; ")
    }

    /// The text without what stands between double quotes: libpq quotes pieces of a bad connection string, and a
    /// piece may be a password.
    var withoutQuotedPieces: String {
        split(separator: "\"", omittingEmptySubsequences: false).enumerated()
            .map { $0.offset.isMultiple(of: 2) ? String($0.element) : "…" }.joined(separator: "\"")
    }
}

/// A notice, warning or log message that the server sent beside its answers.
public struct PostgresNotice: Sendable, CustomStringConvertible {
    public var severity: String
    public var message: String
    public var sqlState: String?

    public var description: String { "\(severity): \(message)" }
}

/// What a session that listens on a channel is sent by `NOTIFY`.
public struct PostgresNotification: Equatable, Sendable {
    public var channel: String
    public var payload: String
}
