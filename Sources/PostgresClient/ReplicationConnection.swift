internal import CPostgres
internal import Wire

/// A connection in replication mode: makes slots, and streams what a slot decodes.
public struct ReplicationConnection: ~Copyable {
    private var connection: PostgresConnection

    public init(
        _ connectionString: String, notices: @escaping @Sendable (PostgresNotice) -> Void = { _ in }
    ) throws(PostgresError) {
        // Values must come in one form whatever the server's or the role's settings say.
        connection = try PostgresConnection(
            connectionString,
            overriding: [
                ("replication", "database"),
                ("options", "-c DateStyle=ISO -c IntervalStyle=iso_8601 -c TimeZone=UTC -c extra_float_digits=3"),
            ], notices: notices)
    }

    public var isGood: Bool { connection.isGood }
    public var socket: Int32 { connection.socket }
    public var serverVersion: Int { connection.serverVersion }
    public var backendPID: Int32 { connection.backendPID }

    public struct System: Equatable, Sendable {
        /// Names the cluster: a copy made by pg_basebackup has the same, a restored dump another.
        public var systemID: String
        public var timeline: Int64
        /// The end of what has been flushed.
        public var position: LSN
        public var database: String?
    }

    public mutating func identifySystem() throws(PostgresError) -> System {
        let result = try connection.execute("IDENTIFY_SYSTEM")
        guard result.rowCount == 1, result.columnCount >= 4, let systemID = result.text(0, 0),
            let timeline = result.int(0, 1), let position = result.text(0, 2).flatMap({ LSN($0) })
        else { throw PostgresError(.unexpectedAnswer, "IDENTIFY_SYSTEM was not answered as documented") }
        return System(systemID: systemID, timeline: timeline, position: position, database: result.text(0, 3))
    }

    /// Where each timeline before this one was left, oldest first: a server that was restored from a backup or took over
    /// from another goes on with a new timeline from there.
    public mutating func forks(of timeline: Int64) throws(PostgresError) -> [(timeline: Int64, at: LSN)] {
        // The first has no history.
        guard timeline > 1 else { return [] }
        let result = try connection.execute("TIMELINE_HISTORY \(timeline)")
        guard result.rowCount == 1, result.columnCount >= 2, let content = result.text(0, 1) else {
            throw PostgresError(.unexpectedAnswer, "TIMELINE_HISTORY was not answered as documented")
        }
        // A line each: its number, where it was left, and why.
        return content.split(separator: "\n").compactMap { line in
            let parts = line.split(separator: "\t")
            guard parts.count >= 2, let number = Int64(parts[0].filter(\.isNumber)), let at = LSN(String(parts[1]))
            else { return nil }
            return (number, at)
        }
    }

    public struct CreatedSlot: Equatable, Sendable {
        /// The stream will hold every transaction that commits after this point…
        public var consistentPoint: LSN
        /// …and this snapshot shows every one before it, as long as this connection does nothing else.
        public var snapshotName: String?
    }

    /// - Parameter failover: let standbys take the slot over (Postgres 17 and later).
    public mutating func createSlot(
        _ name: String, plugin: String = "pgoutput", temporary: Bool = false, failover: Bool = false
    ) throws(PostgresError) -> CreatedSlot {
        var sql = "CREATE_REPLICATION_SLOT \(SQL.identifier(name))\(temporary ? " TEMPORARY" : "") LOGICAL \(plugin)"
        if serverVersion >= 150_000 {
            sql += failover && serverVersion >= 170_000 ? " (SNAPSHOT 'export', FAILOVER)" : " (SNAPSHOT 'export')"
        } else {
            sql += " EXPORT_SNAPSHOT"
        }
        let result = try connection.execute(sql)
        guard result.rowCount == 1, result.columnCount >= 3, let point = result.text(0, 1).flatMap({ LSN($0) })
        else { throw PostgresError(.unexpectedAnswer, "CREATE_REPLICATION_SLOT was not answered as documented") }
        return CreatedSlot(consistentPoint: point, snapshotName: result.text(0, 2))
    }

    public mutating func dropSlot(_ name: String) throws(PostgresError) {
        try connection.execute("DROP_REPLICATION_SLOT \(SQL.identifier(name))")
    }

    /// Begins the stream. `from` zero means: from what the slot has confirmed.
    public mutating func start(
        slot: String, from: LSN = .zero, options: [(name: String, value: String)]
    ) throws(PostgresError) {
        let list = options.map { "\(SQL.identifier($0.name)) \(Self.literal($0.value))" }.joined(separator: ", ")
        try connection.begin(
            "START_REPLICATION SLOT \(SQL.identifier(slot)) LOGICAL \(from) (\(list))", expecting: PGRES_COPY_BOTH)
    }

    /// The replication grammar knows no escapes but the doubled quote.
    private static func literal(_ text: String) -> String { "'" + text.replacing("'", with: "''") + "'" }

    public enum Input: ~Copyable {
        case message(CopyData)
        /// All that has arrived has been taken.
        case nothingYet
        /// The server has ended the stream.
        case ended
    }

    /// The next message that has arrived, reading the socket when need be; never waits.
    public mutating func next() throws(PostgresError) -> Input {
        var hasRead = false
        while true {
            switch connection.handle.getCopyData() {
            case .data(let data): return .message(data)
            case .nothingYet:
                if hasRead { return .nothingYet }
                guard connection.handle.consumeInput() else { throw connection.broken("the replication stream") }
                hasRead = true
            case .ended:
                // The result tells an orderly end from an error.
                _ = try connection.finish("the replication stream")
                return .ended
            case .failed: throw connection.broken("the replication stream")
            }
        }
    }

    /// Waits until something arrives, or the time is over.
    public func wait(timeoutMs: Int) -> Bool { connection.handle.wait(timeoutMs: timeoutMs) }

    /// Tells the server how far we are; it may drop the log before `flushed`.
    public mutating func sendStatus(
        written: LSN, flushed: LSN, nowMs: Int64, replyRequested: Bool = false
    ) throws(PostgresError) {
        var message: [UInt8] = []
        message.reserveCapacity(34)
        message.append(UInt8(ascii: "r"))
        message.appendBigEndian(written.value)
        message.appendBigEndian(flushed.value)
        message.appendBigEndian(flushed.value)
        message.appendBigEndian((nowMs - PostgresType.epochMs) * 1000)
        message.append(replyRequested ? 1 : 0)
        try connection.writeCopy(message.span)
        guard connection.handle.flush() != .failed else { throw connection.broken("the replication stream") }
    }
}

/// Quoting, for the few places where a statement cannot take parameters.
public enum SQL {
    public static func identifier(_ name: String) -> String {
        "\"" + name.replacing("\"", with: "\"\"") + "\""
    }

    public static func literal(_ text: String) -> String {
        let quoted = "'" + text.replacing("'", with: "''") + "'"
        // A backslash means itself only in standard_conforming_strings; E'' is the same under either setting.
        return text.contains("\\") ? "E" + quoted.replacing("\\", with: "\\\\") : quoted
    }
}
