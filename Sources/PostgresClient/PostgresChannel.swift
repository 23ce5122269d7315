internal import CPostgres
public import System

/// A statement that a channel prepares on each of its connections when it is first used there.
public struct PostgresStatement: Hashable, Sendable {
    public var name: String
    public var sql: String

    public init(_ name: String, _ sql: String) {
        self.name = name
        self.sql = sql
    }
}

/// A connection for code on an event loop: statements are sent as they come, without waiting for each other's answers,
/// and the answers arrive on the loop in the same order. It connects by itself, and again when the connection is lost.
///
///     channel.query(membership, [.id(chat)]) { result in
///         switch consume result {
///         case .success(let rows): …
///         case .failure(let error): …
///         }
///     }
///
/// Each call is a transaction of its own. While there is no connection, calls wait for one, up to their deadline; what was
/// sent when a connection broke fails, since nobody knows whether it was done. All of it on the loop's thread only.
///
/// libpq looks host names up with the blocking resolver: where that is slow, name addresses (`hostaddr`).
public final class PostgresChannel {
    public struct Options: Sendable {
        /// A call that has no answer after this fails, and if it had been sent, the connection is made anew.
        public var answerTimeoutMs = 5_000
        public var connectTimeoutMs = 10_000
        /// Calls that wait or are under way; more fail at once with code `busy`.
        public var callsMax = 10_000
        public var backoffMinMs = 50
        public var backoffMaxMs = 5_000

        public init() {}
    }

    public typealias Answer = (consuming Result<PostgresResult, PostgresError>) -> Void

    private struct Call {
        var batch: PostgresBatch
        var statement: PostgresStatement?
        var deadlineNs: UInt64
        var each: ((Int, consuming PostgresResult) -> Void)?
        var done: (PostgresError?) -> Void
        /// How many answers stand before those of the batch: one when the statement had to be prepared first.
        var prefix = 0
        var next = 0
        var failure: PostgresError?
    }

    private enum State {
        case idle, connecting, ready, closed
    }

    public let connectionString: String
    public let options: Options
    private let loop: EventLoop
    private let notices: @Sendable (PostgresNotice) -> Void
    /// Told when a connection is there (nil), is lost or cannot be made.
    public var onChange: ((PostgresError?) -> Void)?

    private var state = State.idle
    private var handle: PostgresHandle?
    private var registration: Registration?
    private var watched: Int32 = -1
    private var prepared: Set<String> = []
    private var waiting: [Call] = []
    private var sent: [Call] = []
    /// Calls at the front of `sent` that have been answered already.
    private var answered = 0
    private var backoffMs: Int
    private var timer: Timer?
    private var connectDeadlineNs: UInt64 = 0

    public init(
        _ connectionString: String, on loop: EventLoop, _ options: Options = Options(),
        notices: @escaping @Sendable (PostgresNotice) -> Void = { _ in }
    ) {
        self.connectionString = connectionString
        self.loop = loop
        self.options = options
        self.notices = notices
        backoffMs = options.backoffMinMs
    }

    public var isReady: Bool { state == .ready }
    /// Calls without an answer.
    public var pendingCount: Int { waiting.count + sent.count - answered }

    // MARK: Calls

    public func query(
        _ sql: String, _ parameters: [PostgresValue] = [], binary: Bool = true, _ answer: @escaping Answer
    ) {
        var batch = PostgresBatch()
        do throws(PostgresError) {
            try batch.add(sql, parameters, binary: binary)
        } catch {
            return answer(.failure(error))
        }
        submit(batch, nil, answer)
    }

    public func query(
        _ statement: PostgresStatement, _ parameters: [PostgresValue] = [], binary: Bool = true,
        _ answer: @escaping Answer
    ) {
        var batch = PostgresBatch()
        do throws(PostgresError) {
            try batch.add(prepared: statement.name, parameters, binary: binary)
        } catch {
            return answer(.failure(error))
        }
        submit(batch, statement, answer)
    }

    /// Runs the statements as one transaction: all of them, or, with the first error, none.
    public func run(
        _ batch: PostgresBatch, each: @escaping (Int, consuming PostgresResult) -> Void = { _, _ in },
        done: @escaping (PostgresError?) -> Void
    ) {
        submit(Call(batch: batch, statement: nil, deadlineNs: deadline, each: each, done: done))
    }

    private func submit(_ batch: PostgresBatch, _ statement: PostgresStatement?, _ answer: @escaping Answer) {
        var hasAnswered = false
        submit(
            Call(
                batch: batch, statement: statement, deadlineNs: deadline,
                each: { _, result in
                    hasAnswered = true
                    answer(.success(result))
                },
                done: { error in
                    if let error, !hasAnswered { answer(.failure(error)) }
                }))
    }

    private var deadline: UInt64 { loop.monotonicNs + UInt64(options.answerTimeoutMs) * 1_000_000 }

    private func submit(_ call: Call) {
        guard state != .closed else {
            return call.done(PostgresError(.connectionLost, "the channel has been closed"))
        }
        guard pendingCount < options.callsMax else {
            return call.done(PostgresError(.busy, "\(options.callsMax) statements are waiting for the database"))
        }
        if call.batch.count == 0 { return call.done(nil) }
        waiting.append(call)
        arm()
        switch state {
        case .idle: connect()
        case .ready: sendWaiting()
        case .connecting, .closed: break
        }
    }

    /// Connects now rather than with the first call.
    public func connect() {
        guard state == .idle, handle == nil else { return }
        state = .connecting
        connectDeadlineNs = loop.monotonicNs + UInt64(options.connectTimeoutMs) * 1_000_000
        arm()
        do throws(PostgresError) {
            handle = try PostgresHandle(connectionString, start: true, notices: notices)
        } catch {
            return fail(error)
        }
        if handle?.socket ?? -1 < 0 { return fail(handle?.connectError() ?? PostgresError(.connect, "no socket")) }
        watch(.write)
    }

    /// Fails what is pending and ends.
    public func close() {
        guard state != .closed else { return }
        state = .closed
        drop(PostgresError(.connectionLost, "the channel has been closed"), all: true)
        timer?.cancel()
    }

    // MARK: The socket

    /// libpq may take another socket while it connects (the next host, another try without TLS), so each time anew.
    private func watch(_ interest: Readiness) {
        let socket = handle?.socket ?? -1
        if socket == watched, let registration {
            registration.interest = interest
            return
        }
        registration?.cancel()
        registration = nil
        watched = socket
        do {
            registration = try loop.watch(socket, for: interest) { [unowned self] _ in ready() }
        } catch {
            fail(PostgresError(.connect, "\(error)"))
        }
    }

    private func ready() {
        switch state {
        case .connecting: advanceConnecting()
        case .ready: receive()
        case .idle, .closed: break
        }
    }

    private func advanceConnecting() {
        guard let polled = handle?.pollConnect() else { return }
        switch polled {
        case PGRES_POLLING_READING:
            // The socket may be another one under the same number: register it afresh.
            rewatch(.read)
        case PGRES_POLLING_WRITING:
            rewatch(.write)
        case PGRES_POLLING_OK:
            guard handle?.setNonBlocking() == true, handle?.enterPipeline() == true else {
                return fail(handle?.connectError() ?? PostgresError(.connect, "cannot enter pipeline mode"))
            }
            state = .ready
            backoffMs = options.backoffMinMs
            rewatch(.read)
            onChange?(nil)
            sendWaiting()
        default:
            fail(handle?.connectError() ?? PostgresError(.connect, "cannot connect"))
        }
    }

    private func rewatch(_ interest: Readiness) {
        registration?.cancel()
        registration = nil
        watched = -1
        watch(interest)
    }

    private func sendWaiting() {
        guard state == .ready, !waiting.isEmpty else { return }
        for var call in waiting {
            guard send(&call) else { return lose() }
            sent.append(call)
        }
        waiting.removeAll(keepingCapacity: true)
        flush()
    }

    private func send(_ call: inout Call) -> Bool {
        guard handle != nil else { return false }
        if let statement = call.statement, prepared.insert(statement.name).inserted {
            call.prefix = 1
            guard handle!.sendPrepare(statement.name, statement.sql, types: []) else { return false }
        }
        for statement in call.batch.statements {
            guard statement.send(on: handle!) else { return false }
        }
        return handle!.pipelineSync()
    }

    private func flush() {
        switch handle?.flush() {
        case .done: watch(.read)
        case .more: watch([.read, .write])
        case .failed, nil: lose()
        }
    }

    private func receive() {
        guard handle?.consumeInput() == true else { return lose() }
        while state == .ready, answered < sent.count {
            guard let isBusy = handle?.isBusy, !isBusy else { break }
            // Between two statements' answers stands one nil.
            guard let result = handle?.nextResult() else { continue }
            take(result)
        }
        if answered > 0, answered == sent.count || answered > 256 {
            sent.removeFirst(answered)
            answered = 0
        }
        guard state == .ready else { return }
        guard handle?.isGood == true else { return lose() }
        flush()
    }

    private func take(_ result: consuming PostgresResult) {
        let status = result.status
        let index = answered
        switch status {
        case PGRES_PIPELINE_SYNC:
            let (done, failure) = (sent[index].done, sent[index].failure)
            sent[index].each = nil
            answered += 1
            done(failure)
        case PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_EMPTY_QUERY:
            let place = sent[index].next - sent[index].prefix
            sent[index].next += 1
            if place >= 0 { sent[index].each?(place, result) }
        case PGRES_PIPELINE_ABORTED:
            sent[index].next += 1
        // A statement whose preparing failed, or was in a transaction that failed, is not there.
        default:
            let place = max(0, sent[index].next - sent[index].prefix)
            let name = sent[index].batch.statements[min(place, sent[index].batch.count - 1)].name
            let error = result.error(statement: name)
            if sent[index].next < sent[index].prefix, let statement = sent[index].statement {
                prepared.remove(statement.name)
            }
            sent[index].next += 1
            sent[index].failure = sent[index].failure ?? error
        }
    }

    // MARK: Failure

    private func lose() {
        fail(handle?.lost(nil) ?? PostgresError(.connectionLost, "the connection to Postgres broke"))
    }

    /// Ends this connection and plans the next.
    private func fail(_ error: PostgresError) {
        guard state != .closed else { return }
        state = .idle
        drop(error, all: false)
        onChange?(error)
        let delay = backoffMs + Int.random(in: 0...backoffMs / 2)
        backoffMs = min(backoffMs * 2, options.backoffMaxMs)
        // `idle` without a handle but with this timer: calls wait for it instead of connecting at once.
        state = .connecting
        loop.schedule(afterMs: delay) { [weak self] in
            guard let self, state == .connecting, handle == nil else { return }
            state = .idle
            connect()
        }
    }

    private func drop(_ error: PostgresError, all: Bool) {
        registration?.cancel()
        registration = nil
        watched = -1
        handle = nil
        prepared = []
        var failed = Array(sent.dropFirst(answered))
        sent = []
        answered = 0
        if all {
            failed += waiting
            waiting = []
        }
        let lost =
            error.code == .connect || error.code == .timeout
            ? error : PostgresError(.connectionLost, error.message, sqlState: error.sqlState)
        for call in failed {
            // What the server says as it goes down comes as the failure of the statement under way.
            var failure = call.failure ?? lost
            if failure.code == .server { failure.code = .connectionLost }
            call.done(failure)
        }
    }

    // MARK: Deadlines

    private func arm() {
        guard timer?.isScheduled != true else { return }
        timer = loop.schedule(afterMs: max(10, min(250, options.answerTimeoutMs / 4))) { [weak self] in self?.sweep() }
    }

    private func sweep() {
        guard state != .closed else { return }
        let now = loop.monotonicNs
        let late = PostgresError(.timeout, "no answer within \(options.answerTimeoutMs) ms")
        if state == .connecting, handle != nil, now > connectDeadlineNs {
            fail(PostgresError(.connect, "no connection within \(options.connectTimeoutMs) ms"))
        } else if answered < sent.count, now > sent[answered].deadlineNs {
            fail(late)
        }
        let overdue = waiting.prefix { now > $0.deadlineNs }
        if !overdue.isEmpty {
            waiting.removeFirst(overdue.count)
            for call in overdue { call.done(late) }
        }
        if pendingCount > 0 || state == .connecting { arm() }
    }
}

/// Several channels to one database, so that a slow statement does not hold all others up.
public final class PostgresPool {
    private let channels: [PostgresChannel]

    public init(
        _ connectionString: String, on loop: EventLoop, count: Int = 4,
        _ options: PostgresChannel.Options = PostgresChannel.Options()
    ) {
        channels = (0..<max(1, count)).map { _ in PostgresChannel(connectionString, on: loop, options) }
    }

    /// The channel with the least to do.
    public var channel: PostgresChannel {
        var best = channels[0]
        for channel in channels.dropFirst() where channel.pendingCount < best.pendingCount { best = channel }
        return best
    }

    public var isReady: Bool { channels.contains { $0.isReady } }

    /// Told of the first channel's connection: there (nil) or lost.
    public var onChange: ((PostgresError?) -> Void)? {
        get { channels[0].onChange }
        set { channels[0].onChange = newValue }
    }

    public func query(
        _ sql: String, _ parameters: [PostgresValue] = [], binary: Bool = true,
        _ answer: @escaping PostgresChannel.Answer
    ) {
        channel.query(sql, parameters, binary: binary, answer)
    }

    public func query(
        _ statement: PostgresStatement, _ parameters: [PostgresValue] = [], binary: Bool = true,
        _ answer: @escaping PostgresChannel.Answer
    ) {
        channel.query(statement, parameters, binary: binary, answer)
    }

    public func connect() { channels.forEach { $0.connect() } }
    public func close() { channels.forEach { $0.close() } }
}
