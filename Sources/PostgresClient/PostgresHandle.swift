internal import CPostgres
internal import Glibc

/// The one owner of a `PGconn`. Everything that libpq can do to a connection goes through here; waiting is left to the
/// callers, who own a thread or sit on an event loop.
@safe
struct PostgresHandle: ~Copyable {
    private let raw: OpaquePointer
    private let notices: NoticeSink

    /// Holds the closure where C can point at it.
    private final class NoticeSink {
        let receive: @Sendable (PostgresNotice) -> Void
        init(_ receive: @escaping @Sendable (PostgresNotice) -> Void) { self.receive = receive }
    }

    /// Ours go before the user's connection string, which may override each. Dead peers are noticed in about half a
    /// minute instead of two hours.
    private static let defaults = [
        ("application_name", "fanout"), ("connect_timeout", "10"), ("keepalives_idle", "10"),
        ("keepalives_interval", "5"), ("keepalives_count", "4"), ("tcp_user_timeout", "30000"),
        ("client_encoding", "UTF8"),
    ]

    /// Connects, blocking, or with `start` only begins to.
    init(
        _ connectionString: String, overriding: [(String, String)] = [], start: Bool,
        notices: @escaping @Sendable (PostgresNotice) -> Void
    ) throws(PostgresError) {
        try ConnectionString.check(connectionString)
        let settings = Self.defaults + [("dbname", connectionString)] + overriding
        var keywords: [UnsafeMutablePointer<CChar>?] = unsafe settings.map { unsafe strdup($0.0) }
        var values: [UnsafeMutablePointer<CChar>?] = unsafe settings.map { unsafe strdup($0.1) }
        defer { unsafe (keywords + values).forEach { unsafe free($0) } }
        unsafe keywords.append(nil)
        unsafe values.append(nil)
        let constantKeywords = unsafe keywords.map { unsafe UnsafePointer($0) }
        let constantValues = unsafe values.map { unsafe UnsafePointer($0) }
        let connection =
            unsafe start
            ? PQconnectStartParams(constantKeywords, constantValues, 1)
            : PQconnectdbParams(constantKeywords, constantValues, 1)
        guard let raw = unsafe connection else { throw PostgresError(.connect, "out of memory") }
        unsafe self.raw = raw
        self.notices = NoticeSink(notices)
        let context = unsafe Unmanaged.passUnretained(self.notices).toOpaque()
        _ = unsafe PQsetNoticeReceiver(
            raw,
            { context, result in
                guard let context = unsafe context, let result = unsafe result else { return }
                let sink = unsafe Unmanaged<NoticeSink>.fromOpaque(context).takeUnretainedValue()
                let error = unsafe PostgresError(result: result, statement: nil)
                // "V" is the severity that is never translated.
                let severity = unsafe PQresultErrorField(result, Int32(UInt8(ascii: "V")))
                sink.receive(
                    PostgresNotice(
                        severity: unsafe severity.map { unsafe String(cString: $0) } ?? "NOTICE",
                        message: error.message, sqlState: error.sqlState))
            }, context)
    }

    deinit { unsafe PQfinish(raw) }

    // MARK: State

    var isGood: Bool { unsafe PQstatus(raw) == CONNECTION_OK }
    var socket: Int32 { unsafe PQsocket(raw) }
    var serverVersion: Int { Int(unsafe PQserverVersion(raw)) }
    var backendPID: Int32 { unsafe PQbackendPID(raw) }
    var database: String { unsafe PQdb(raw).map { unsafe String(cString: $0) } ?? "" }
    var usesTLS: Bool { unsafe PQsslInUse(raw) == 1 }
    var transactionStatus: PGTransactionStatusType { unsafe PQtransactionStatus(raw) }

    func parameter(_ name: String) -> String? {
        unsafe PQparameterStatus(raw, name).map { unsafe String(cString: $0) }
    }

    /// libpq's last message about this connection, without the password should it be in it.
    var message: String {
        let text = unsafe String(cString: PQerrorMessage(raw)).trimmedLine
        let password = unsafe PQpass(raw).map { unsafe String(cString: $0) } ?? ""
        return password.isEmpty ? text : text.replacing(password, with: "…")
    }

    func connectError() -> PostgresError {
        let text = message
        // libpq keeps no result of a failed connect, so the SQLSTATE is told from the words it always uses.
        var sqlState: String?
        if text.contains("password authentication failed") || text.contains("no password supplied") {
            sqlState = "28P01"
        } else if text.contains("no pg_hba.conf entry") || text.contains("role \"") {
            sqlState = "28000"
        } else if text.contains("database \"") && text.contains("does not exist") {
            sqlState = "3D000"
        }
        return PostgresError(.connect, text.isEmpty ? "cannot connect" : text, sqlState: sqlState)
    }

    func lost(_ statement: String?) -> PostgresError {
        let text = message
        return PostgresError(
            .connectionLost, text.isEmpty ? "the connection to Postgres broke" : text, statement: statement)
    }

    /// The next notification that has come with what was read, if any.
    func nextNotification() -> PostgresNotification? {
        guard let raw = unsafe PQnotifies(raw) else { return nil }
        defer { unsafe PQfreemem(raw) }
        return unsafe PostgresNotification(
            channel: String(cString: raw.pointee.relname), payload: String(cString: raw.pointee.extra))
    }

    func pollConnect() -> PostgresPollingStatusType { unsafe PQconnectPoll(raw) }

    func setNonBlocking() -> Bool { unsafe PQsetnonblocking(raw, 1) == 0 }

    // MARK: Statements

    /// The simple protocol: any number of statements, no parameters, text results.
    func send(simple sql: String) -> Bool { unsafe PQsendQuery(raw, sql) == 1 }

    func send(_ sql: String, _ parameters: EncodedParameters, binaryResults: Bool) -> Bool {
        unsafe withPointers(parameters) { pointers in
            unsafe PQsendQueryParams(
                raw, sql, Int32(parameters.offsets.count), parameters.types, pointers, parameters.lengths,
                parameters.formats, binaryResults ? 1 : 0) == 1
        }
    }

    func send(prepared name: String, _ parameters: EncodedParameters, binaryResults: Bool) -> Bool {
        unsafe withPointers(parameters) { pointers in
            unsafe PQsendQueryPrepared(
                raw, name, Int32(parameters.offsets.count), pointers, parameters.lengths, parameters.formats,
                binaryResults ? 1 : 0) == 1
        }
    }

    func sendPrepare(_ name: String, _ sql: String, types: [UInt32]) -> Bool {
        unsafe PQsendPrepare(raw, name, sql, Int32(types.count), types) == 1
    }

    private func withPointers(
        _ parameters: EncodedParameters, _ body: ([UnsafePointer<CChar>?]) -> Bool
    ) -> Bool {
        unsafe parameters.bytes.withUnsafeBytes { bytes in
            let base = unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
            let pointers = unsafe parameters.offsets.map { offset in
                unsafe offset < 0 ? nil : base.map { unsafe $0 + offset }
            }
            return unsafe body(pointers)
        }
    }

    /// The next result that has arrived; `nil` separates one statement's results from the next's. Blocks unless
    /// `isBusy` is false.
    func nextResult() -> PostgresResult? {
        guard let result = unsafe PQgetResult(raw) else { return nil }
        return unsafe PostgresResult(owning: result)
    }

    var isBusy: Bool { unsafe PQisBusy(raw) == 1 }

    /// Takes in what the socket has; false when the connection is gone.
    func consumeInput() -> Bool { unsafe PQconsumeInput(raw) == 1 }

    enum Flush { case done, more, failed }

    func flush() -> Flush {
        switch unsafe PQflush(raw) {
        case 0: .done
        case 1: .more
        default: .failed
        }
    }

    func enterPipeline() -> Bool { unsafe PQenterPipelineMode(raw) == 1 }
    func exitPipeline() -> Bool { unsafe PQexitPipelineMode(raw) == 1 }
    func pipelineSync() -> Bool { unsafe PQpipelineSync(raw) == 1 }

    // MARK: COPY

    func putCopyData(_ bytes: Span<UInt8>) -> Bool {
        unsafe bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return true }
            return unsafe PQputCopyData(
                raw, base.assumingMemoryBound(to: CChar.self), Int32(buffer.count)) == 1
        }
    }

    /// Ends COPY IN; with a reason, as a failure that stores nothing.
    func putCopyEnd(failing reason: String? = nil) -> Bool {
        if let reason { return unsafe PQputCopyEnd(raw, reason) == 1 }
        return unsafe PQputCopyEnd(raw, nil) == 1
    }

    enum CopyInput: ~Copyable {
        case data(CopyData)
        case nothingYet
        case ended
        case failed
    }

    func getCopyData() -> CopyInput {
        var buffer: UnsafeMutablePointer<CChar>?
        let count = unsafe PQgetCopyData(raw, &buffer, 1)
        switch count {
        case 0: return .nothingYet
        case -1: return .ended
        case 1...:
            guard let buffer = unsafe buffer else { return .failed }
            return .data(unsafe CopyData(owning: buffer, count: Int(count)))
        default: return .failed
        }
    }

    /// Waits until the socket can be read (or, if asked, written), or `timeoutMs` have passed. Negative waits forever.
    func wait(writing: Bool = false, timeoutMs: Int) -> Bool {
        var descriptor = pollfd(fd: socket, events: Int16(POLLIN | (writing ? POLLOUT : 0)), revents: 0)
        while true {
            let ready = unsafe poll(&descriptor, 1, Int32(clamping: timeoutMs))
            if ready >= 0 { return ready > 0 }
            if errno != EINTR { return false }
        }
    }
}

/// One message of a COPY: a row of text, a chunk of binary, or a piece of a replication stream.
@safe
public struct CopyData: ~Copyable {
    private let raw: UnsafeMutablePointer<CChar>
    public let count: Int

    init(owning raw: UnsafeMutablePointer<CChar>, count: Int) {
        unsafe self.raw = raw
        self.count = count
    }

    deinit { unsafe PQfreemem(raw) }

    public var bytes: Span<UInt8> {
        @_lifetime(borrow self)
        get {
            let start = unsafe UnsafeRawPointer(raw).assumingMemoryBound(to: UInt8.self)
            let span = unsafe Span(_unsafeStart: start, count: count)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }
}
