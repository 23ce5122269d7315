import PostgresClient
public import Runtime
import System
public import Wire

/// A reconnect storm: many devices lose their connections at once, miss messages meanwhile, and all come back at once
/// with their cursors. Measured is the time until the last of them has every message that it missed.
public final class Storm {
    public struct Options: Sendable {
        public var chats = 190
        public var membersPerChat = 100
        public var messagesPerChat = 5
        /// Handshakes under way at once: more would wait in the kernel's queue.
        public var handshakesMax = 1024

        public init() {}
    }

    public struct Report: Sendable {
        public var devices = 0
        public var missed = 0
        public var seconds = 0.0
        public var slowestHandshakeSeconds = 0.0
        public var retries = 0
        public var lost = 0
        public var repeated = 0
        public var databaseTransactions = 0
        /// What the chat server asked Postgres for those who came back.
        public var largeChatQuestions = 0
        public var historyFills = 0

        public var text: String {
            """
            \(devices) devices were cut off and came back; each had missed \(missed) messages
              all have them     after \(RunReport.rounded(seconds, 2)) s
              last connected    after \(RunReport.rounded(slowestHandshakeSeconds, 2)) s, \(retries) tries more than one each
              lost \(lost)   repeated \(repeated)
              database          \(databaseTransactions) transactions of all stages meanwhile; of them \(largeChatQuestions) questions about large chats, and \(historyFills) devices went to History

            """
        }

        public func write(to json: inout JSONWriter) {
            json.object {
                $0.field("devices", devices)
                $0.field("missed_each", missed)
                $0.field("seconds", seconds)
                $0.field("connected_seconds", slowestHandshakeSeconds)
                $0.field("retries", retries)
                $0.field("lost", lost)
                $0.field("repeated", repeated)
                $0.field("database_transactions", databaseTransactions)
                $0.field("large_chat_questions", largeChatQuestions)
                $0.field("history_fills", historyFills)
            }
        }
    }

    let loop: EventLoop
    let target: LoadTarget
    private let options: Options
    private let population: Population
    private let log: Log
    private var devices: [StormDevice] = []
    private var waiting: [StormDevice] = []
    private var underWay = 0
    fileprivate var ready = 0
    fileprivate var whole = 0
    fileprivate var acknowledged = 0
    fileprivate var repeated = 0
    fileprivate var retries = 0
    fileprivate var expected = 0

    public init(_ options: Options, target: LoadTarget, log: Log) throws {
        (self.options, self.target, self.log) = (options, target, log)
        loop = try EventLoop()
        population = Population(chats: options.chats, membersPerChat: options.membersPerChat)
    }

    public func run() throws -> Report {
        defer { loop.close() }
        try population.make(in: target.postgres)
        devices = (0..<options.chats * options.membersPerChat).map { index in
            let place = (chat: index / options.membersPerChat, member: index % options.membersPerChat)
            return StormDevice(
                self, user: population.user(chat: place.chat, member: place.member),
                source: target.address.source(index))
        }
        log.info("connecting", ["devices": .init(devices.count)])
        connect(devices)
        try wait("devices to connect", seconds: 120) { ready == devices.count }
        // A second device of one member of each chat stays and says what the others will miss.
        let senders = (0..<options.chats).map {
            StormDevice(self, user: population.user(chat: $0, member: 0), source: nil, isCutOff: false)
        }
        connect(senders)
        try wait("senders to connect", seconds: 60) { ready == devices.count + senders.count }
        try say(1, by: senders)
        try wait("everybody to have the first message", seconds: 60) { devices.allSatisfy { $0.messages > 0 } }

        log.info("cutting them off")
        for device in devices { device.cut() }
        ready = senders.count
        try say(options.messagesPerChat, by: senders)
        expected = options.messagesPerChat
        for device in devices { device.messages = 0 }
        (repeated, retries, whole) = (0, 0, 0)

        log.info("all come back")
        var report = Report(devices: devices.count, missed: expected)
        let before = (transactions: try transactions(), metrics: try ChatMetrics.read(target.address, on: loop))
        let start = SystemClock().monotonicNs
        func elapsed() -> Double { Double(SystemClock().monotonicNs - start) / 1e9 }
        connect(devices)
        try? wait("devices to come back", seconds: 60) {
            if report.slowestHandshakeSeconds == 0, ready == devices.count + senders.count {
                report.slowestHandshakeSeconds = elapsed()
            }
            return whole == devices.count
        }
        report.seconds = elapsed()
        // Whatever is repeated comes after.
        try? wait("repeats", seconds: 1) { false }
        report.databaseTransactions = try transactions() - before.transactions
        let after = try ChatMetrics.read(target.address, on: loop)
        func counted(_ name: String) -> Int { (after[name] ?? 0) - (before.metrics[name] ?? 0) }
        report.largeChatQuestions = counted("fanout_ingest_large_chat_questions_total")
        report.historyFills = counted("fanout_ingest_history_fills_total")
        report.lost = devices.reduce(0) { $0 + max(0, expected - $1.messages) }
        (report.repeated, report.retries) = (repeated, retries)
        for device in devices + senders { device.cut() }
        return report
    }

    /// Each sender's chat hears so many messages; returns when the log has them all.
    private func say(_ count: Int, by senders: [StormDevice]) throws {
        acknowledged = 0
        for (chat, sender) in senders.enumerated() {
            for _ in 0..<count { sender.say(in: population.chat(chat)) }
        }
        try wait("the log to take the messages", seconds: 60) { acknowledged >= count * senders.count }
    }

    private func transactions() throws -> Int {
        var connection = try PostgresConnection(target.postgres)
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        return Int(try connection.query(sql).int(0, 0) ?? 0)
    }

    private func wait(_ what: String, seconds: Int, until condition: () -> Bool) throws {
        let deadline = SystemClock().monotonicNs + UInt64(seconds) * 1_000_000_000
        while !condition() {
            guard SystemClock().monotonicNs < deadline else { throw BenchError("waited \(seconds) s for \(what)") }
            loop.runOnce(timeoutMs: 10)
        }
    }

    // MARK: Connecting

    private func connect(_ list: [StormDevice]) {
        waiting = list.reversed()
        connectNext()
    }

    private func connectNext() {
        while underWay < options.handshakesMax, let device = waiting.popLast() {
            underWay += 1
            device.connect()
        }
    }

    fileprivate func ended(_ device: StormDevice, isIn: Bool) {
        underWay -= 1
        if isIn {
            ready += 1
        } else {
            retries += 1
            // As the server asks: a little later, each at another time.
            loop.schedule(afterMs: Int.random(in: 50...500)) { [unowned self] in
                waiting.append(device)
                connectNext()
            }
        }
        connectNext()
    }
}

/// A device that keeps its cursor.
private final class StormDevice {
    private unowned let storm: Storm
    private let user: UserID
    private let source: SocketAddress?
    private let isCutOff: Bool
    private let device = DeviceID.random()
    private var token = ""
    private var socket: DeviceSocket?
    private var cursor: [UInt8] = []
    private var lastSeq: Int64 = -1
    private var isWhole = false
    private var isCaughtUp = false
    var messages = 0

    init(_ storm: Storm, user: UserID, source: SocketAddress?, isCutOff: Bool = true) {
        (self.storm, self.user, self.source, self.isCutOff) = (storm, user, source, isCutOff)
    }

    func connect() {
        if token.isEmpty { token = storm.target.token(for: user) }
        (isCaughtUp, isWhole) = (false, false)
        var random = SystemRandomNumberGenerator()
        let socket = DeviceSocket(
            to: storm.target.address, from: source, device: device, token: token,
            cursor: cursor.isEmpty ? nil : String(decoding: cursor, as: UTF8.self), on: storm.loop, timeoutMs: 30_000,
            using: &random)
        socket.onText = { [unowned self] in take($0) }
        socket.onClose = { [unowned self] _ in
            self.socket = nil
            if !isCaughtUp { storm.ended(self, isIn: false) }
        }
        self.socket = socket
    }

    func cut() {
        let gone = socket
        socket = nil
        gone?.onClose = { _ in }
        gone?.close()
    }

    func say(in chat: ChatID) {
        var json = JSONWriter()
        json.object {
            $0.field("type", "send")
            $0.field("id", MessageID.random())
            $0.field("chat", chat)
            $0.field("text", "what the others will have missed")
        }
        socket?.send(json.bytes)
    }

    private func take(_ payload: Span<UInt8>) {
        if let (seq, _) = EventFrame.message(payload) {
            keepCursor(payload)
            if seq <= lastSeq {
                storm.repeated += 1
            } else {
                lastSeq = seq
                messages += 1
            }
            return noteWhole()
        }
        switch try? EventFrame.answer(payload) {
        case .caughtUp:
            keepCursor(payload)
            isCaughtUp = true
            storm.ended(self, isIn: true)
            noteWhole()
        case .sent: storm.acknowledged += 1
        default: break
        }
    }

    private func noteWhole() {
        guard isCutOff, storm.expected > 0, isCaughtUp, messages >= storm.expected, !isWhole else { return }
        isWhole = true
        storm.whole += 1
    }

    /// `…,"cursor":"…"}`: the last field of each event.
    private func keepCursor(_ payload: Span<UInt8>) {
        var start = payload.count - 2
        while start > 0, payload[start - 1] != UInt8(ascii: "\"") { start -= 1 }
        guard start > 0 else { return }
        cursor = [UInt8](copying: payload.extracting(start..<payload.count - 2))
    }
}
