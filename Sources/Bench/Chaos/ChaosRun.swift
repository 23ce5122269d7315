import HTTPClient
import PostgresClient
public import Runtime
import System
import Wire

/// What a storm was and what came of it.
public struct ChaosReport: Sendable {
    public let seed: UInt64
    public let rounds: Int
    public let sent: Int
    public let acknowledged: Int
    public let refused: [String: Int]
    public let deliveries: Int
    public let changes: Int
    public let reconnects: Int
    public let repeatsAfterReconnect: Int
    public let blows: [String: Int]
    public let violations: [String]

    public var text: String {
        var lines = [
            "chaos: \(rounds) rounds, seed \(seed)",
            "  blows           \(blows.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: "   "))",
            "  messages        \(sent) sent, \(acknowledged) acknowledged, refused \(refused)",
            "  deliveries      \(deliveries) (\(repeatsAfterReconnect) came again after a reconnect and were dropped by their seq)",
            "  memberships     \(changes) changes",
            "  connects        \(reconnects)",
            "  violations      \(violations.count)",
        ]
        lines += violations.prefix(20).map { "    \($0)" }
        return lines.joined(separator: "\n") + "\n"
    }
}

/// A storm over a system that `fanout up` runs: load, changing memberships, and processes that die at random, then a
/// reckoning of every device against what was sent.
public final class ChaosRun {
    public struct Options: Sendable {
        public var seed: UInt64 = 0
        public var rounds = 10
        public var devices = 200
        public var chats = 40
        public var membersPerChat = 6
        /// The process id of `fanout up`.
        public var up: Int32 = 0

        public init() {}
    }

    let loop: EventLoop
    let target: SocketAddress
    let http: HTTPClient
    var generator: SplitMix
    var ledger = ChaosLedger()
    private(set) var isDriving = false
    private let load: LoadTarget
    private let options: Options
    private let log: Log
    private let clock = SystemClock()
    private var devices: [ChaosDevice] = []
    private var drivers: [ChaosDriver] = []
    private var ready: Set<UserID> = []
    private var blows: [String: Int] = [:]
    private var violations: [String] = []
    private var tokens: [UserID: String] = [:]

    public init(_ options: Options, target: LoadTarget, log: Log) throws {
        self.options = options
        self.load = target
        self.target = target.address
        self.log = log
        loop = try EventLoop()
        var client = HTTPClient.Options()
        client.timeoutMs = 5000
        http = try HTTPClient(loop: loop, options: client)
        generator = SplitMix(seed: options.seed)
    }

    public func run() throws -> ChaosReport {
        try populate()
        for device in devices { device.connect() }
        guard wait(upToMs: 60_000, for: { ready.count == devices.count }) else {
            throw BenchError("only \(ready.count) of \(devices.count) devices were ready after 60 s")
        }
        isDriving = true
        for driver in drivers { driver.step() }
        for round in 1...options.rounds { strike(round) }
        // The storm is over: what is under way comes to its end, then the books are closed.
        isDriving = false
        _ = wait(upToMs: 60_000) { drivers.allSatisfy(\.isIdle) }
        _ = wait(upToMs: 60_000) {
            ledger.outstanding == 0 && ledger.sent.values.allSatisfy { $0.isAcknowledged || $0.refusal != nil }
        }
        _ = wait(upToMs: 500) { false }
        ledger.close()
        let connects = devices.reduce(0) { $0 + $1.connects }
        for device in devices { device.stop() }
        http.close()
        return ChaosReport(
            seed: options.seed, rounds: options.rounds, sent: ledger.sent.count, acknowledged: ledger.acknowledged,
            refused: ledger.refused, deliveries: ledger.deliveries, changes: drivers.reduce(0) { $0 + $1.changes },
            reconnects: connects, repeatsAfterReconnect: ledger.repeatsAfterReconnect, blows: blows,
            violations: ledger.violations + violations)
    }

    // MARK: The storm

    private func strike(_ round: Int) {
        _ = wait(upToMs: .random(in: 300...1500, using: &generator)) { false }
        let victims = Victims(parent: options.up).processes()
        guard !victims.isEmpty else { return violate("fanout up has no children any more") }
        let victim = victims[Int.random(in: 0..<victims.count, using: &generator)]
        switch Int.random(in: 0..<10, using: &generator) {
        case 0:
            for device in devices where Bool.random(using: &generator) { device.cut() }
            count("cut devices")
        case 1, 2:
            guard victim.name != "postgres" else { return }
            // Long enough for heartbeats to fail, short enough that the round ends.
            Signals.send(.stop, to: victim.id)
            _ = wait(upToMs: .random(in: 200...3000, using: &generator)) { false }
            Signals.send(.continue, to: victim.id)
            count("pause \(victim.name)")
        default:
            Signals.send(victim.name == "postgres" ? .interrupt : .kill, to: victim.id)
            count(victim.name == "postgres" ? "restart postgres" : "kill \(victim.name)")
        }
        log.info("blow", ["round": .init(round), "victim": .string(victim.name)])
    }

    private func count(_ blow: String) { blows[blow, default: 0] += 1 }

    private func wait(upToMs: Int, for condition: () -> Bool) -> Bool {
        let deadline = clock.monotonicNs + UInt64(upToMs) * 1_000_000
        while !condition() {
            if clock.monotonicNs > deadline { return false }
            loop.runOnce(timeoutMs: 5)
        }
        return true
    }

    // MARK: The people

    private func populate() throws {
        let users = (0..<options.devices).map { _ in UserID.random(using: &generator) }
        var connection = try PostgresConnection(load.postgres)
        _ = try connection.query(
            "INSERT INTO users (user_id, name) SELECT id, 'chaos' FROM unnest($1::uuid[]) AS id", [.ids(users)])
        devices = users.map { user in
            let token = load.token(for: user)
            tokens[user] = token
            return ChaosDevice(self, user: user, token: token)
        }
        for _ in 0..<options.chats {
            let chat = ChatID.random(using: &generator)
            let candidates = Array(users.shuffled(using: &generator).prefix(options.membersPerChat * 2))
            let members = Array(candidates.prefix(options.membersPerChat))
            _ = try connection.query(
                "INSERT INTO chats (chat_id, kind, title) VALUES ($1, 'group', 'chaos')", [.id(chat)])
            _ = try connection.query(
                "INSERT INTO members (chat_id, user_id, role) SELECT $1, id, CASE WHEN id = $3 THEN 'admin' ELSE 'member' END FROM unnest($2::uuid[]) AS id",
                [.id(chat), .ids(members), .id(members[0])])
            guard let admin = devices.first(where: { $0.user == members[0] }) else { continue }
            drivers.append(
                ChaosDriver(self, chat: chat, admin: admin, members: Set(members), candidates: candidates))
        }
    }

    func token(for user: UserID) -> String { tokens[user] ?? "" }

    // MARK: From the devices

    func deviceReady(_ device: ChaosDevice) { ready.insert(device.user) }
    func violate(_ line: String) { violations.append(line) }
    func sent(_ id: MessageID, seq: Int64, wasRepeated: Bool) {
        ledger.acknowledge(id, seq: seq, wasRepeated: wasRepeated)
    }
    func refused(_ id: MessageID, _ code: String) { ledger.refuse(id, code) }
    func received(_ id: MessageID, chat: ChatID, seq: Int64, by user: UserID, connectionLastSeq: Int64?) {
        ledger.receive(id, chat: chat, seq: seq, by: user, connectionLastSeq: connectionLastSeq)
    }
}

/// A small generator whose every number follows from its seed.
public struct SplitMix: RandomNumberGenerator, Sendable {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }
}
