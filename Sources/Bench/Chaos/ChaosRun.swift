import HTTPClient
public import KafkaClient
import PostgresClient
public import Runtime
import System
public import Wire

/// A storm over a system that `fanout up` runs: load from many devices, memberships that change all the time, and
/// processes that die, stall and lose their connections at random; then a reckoning of every device against the log.
public final class ChaosRun {
    public struct Options: Sendable {
        public var seed: UInt64 = 0
        public var rounds = 10
        /// A quarter of the users have two of them.
        public var devices = 200
        public var chats = 40
        public var membersPerChat = 6
        /// One user in so many comes and goes.
        public var usersPerVisitor = 4
        /// The process id of `fanout up`.
        public var up: Int32 = 0
        /// Processes that nothing happens to.
        public var spared: Set<String> = []

        public init() {}
    }

    let loop: EventLoop
    let target: SocketAddress
    let http: HTTPClient
    var generator: SplitMix
    var record = ChaosRecord()
    private(set) var isDriving = false
    /// What is under way when the storm ends has so long to come to its end.
    private static let settleMs = 300_000
    /// Nothing more is coming when nothing has come for so long.
    private static let quietMs = 30_000

    private let load: LoadTarget
    private let options: Options
    private let kafka: KafkaConfiguration
    private let names: Names
    private let log: Log
    private let clock = SystemClock()
    private var devices: [ChaosDevice] = []
    private var devicesOfUser: [UserID: [ChaosDevice]] = [:]
    private var drivers: [ChaosDriver] = []
    private var ready: Set<Int> = []
    private var blows: [String: Int] = [:]
    private var leftOut: String?
    private let guests = ChaosGuests()

    public init(
        _ options: Options, target: LoadTarget, kafka: KafkaConfiguration, names: Names = Names(), log: Log
    ) throws {
        self.options = options
        self.load = target
        self.target = target.address
        self.kafka = kafka
        self.names = names
        self.log = log
        loop = try EventLoop()
        var client = HTTPClient.Options()
        client.timeoutMs = 5000
        http = try HTTPClient(loop: loop, options: client)
        generator = SplitMix(seed: options.seed)
    }

    public func run() throws -> ChaosReport {
        let reader = try ChaosLogReader(kafka, names: names)
        try populate()
        let visitors = makeVisitors()
        for device in devices { device.connect() }
        guard wait(upToMs: 120_000, for: { ready.count == devices.count }) else {
            throw BenchError("only \(ready.count) of \(devices.count) devices were ready after two minutes")
        }
        isDriving = true
        for driver in drivers { driver.start() }
        visitors.start()
        for round in 1...options.rounds { strike(round) }
        guests.leave()
        isDriving = false
        try visitors.settle(reader)
        let reckoning = try settle(reader)
        for device in devices { device.leave() }
        http.close()
        return ChaosReport(
            seeds: options.seed...options.seed, rounds: options.rounds, users: devicesOfUser.count,
            devices: devices.count,
            chats: drivers.count, sent: record.sent.count, acknowledged: record.acknowledged, refused: record.refused,
            causalSends: reckoning.causalSends, deliveries: record.deliveries,
            changes: drivers.reduce(0) { $0 + $1.changes }, connects: devices.reduce(0) { $0 + $1.connects },
            repeatsAfterReconnect: record.repeatsAfterReconnect, presence: visitors.findings, blows: blows,
            leftOut: leftOut,
            violations: reckoning.violations)
    }

    /// The storm is over: what is under way comes to its end, then the books are closed.
    private func settle(_ reader: ChaosLogReader) throws -> ChaosReckoning {
        let deadline = clock.monotonicNs + UInt64(Self.settleMs) * 1_000_000
        _ = wait(upToMs: Self.settleMs) { record.isSettled && !drivers.contains(where: \.isChanging) }
        let chats = Set(drivers.map(\.chat))
        var contents = ChaosLog()
        repeat {
            _ = wait(upToMs: 500) { false }
            contents = try reader.read(chats)
        } while !contents.settles(record) && clock.monotonicNs < deadline
        // What is in the log is on its way to the devices, until nothing has come for a while.
        var reckoning = ChaosReckoning(record, contents)
        while !reckoning.violations.isEmpty, clock.monotonicNs < deadline {
            let before = record.deliveries
            guard wait(upToMs: Self.quietMs, for: { record.deliveries > before }) else { break }
            _ = wait(upToMs: 500) { false }
            reckoning = ChaosReckoning(record, contents)
        }
        return reckoning
    }

    // MARK: The storm

    private func strike(_ round: Int) {
        _ = wait(upToMs: .random(in: 300...1500, using: &generator)) { false }
        let children = Victims(parent: options.up).processes()
        guard !children.isEmpty else { return violate("fanout up has no children any more") }
        // Those that are not spared may all be dead at the moment.
        let victims = children.filter { !options.spared.contains($0.name) }
        guard let victim = victims.randomElement(using: &generator) else { return }
        guests.nextRound(using: &generator)
        let blow = Blow.random(against: victim, using: &generator)
        switch blow {
        case .cutDevices: for device in devices where Bool.random(using: &generator) { device.cut() }
        case .cutLinks:
            guard cutLinks(of: victim) else { return }
        case .kill: Signals.send(.kill, to: victim.id)
        case .pause(let ms):
            for id in victim.family { Signals.send(.stop, to: id) }
            _ = wait(upToMs: ms) { false }
            for id in victim.family { Signals.send(.continue, to: id) }
        // Postgres takes SIGTERM for "when everybody has left".
        case .stop: Signals.send(victim.name == "postgres" ? .interrupt : .terminate, to: victim.id)
        case .massImport:
            guard tries("importing people", { try importPeople() }) else { return }
        case .guest(let kind):
            let rounds = Int.random(in: 1...4, using: &generator)
            guard tries("a \(kind.rawValue)", { try guests.invite(kind, beside: victim, rounds: rounds) }) else {
                return
            }
        }
        blows[blow.name(of: victim), default: 0] += 1
        log.info("blow", ["round": .init(round), "blow": .string(blow.name(of: victim))])
    }

    /// What the machine does not let the storm try is said in its report.
    private func tries(_ what: String, _ body: () throws -> Void) -> Bool {
        do {
            try body()
            return true
        } catch {
            leftOut = "\(what) (\(error))"
            return false
        }
    }

    /// People and chats that nothing else in the storm knows, in one transaction.
    private func importPeople() throws {
        // Postgres may be the one that is down.
        guard var connection = try? PostgresConnection(load.postgres) else { return }
        let people = (0..<100).map { _ in UserID.random(using: &generator) }
        let chats = (0..<100).map { _ in ChatID.random(using: &generator) }
        _ = try? connection.query("BEGIN")
        _ = try? connection.query(
            "INSERT INTO users (user_id, name) SELECT id, 'imported' FROM unnest($1::uuid[]) AS id", [.ids(people)])
        _ = try? connection.query(
            "INSERT INTO chats (chat_id, kind, title) SELECT id, 'group', 'imported' FROM unnest($1::uuid[]) AS id",
            [.ids(chats)])
        _ = try? connection.query(
            "INSERT INTO members (chat_id, user_id) SELECT chat, person FROM unnest($1::uuid[]) AS chat, unnest($2::uuid[]) AS person",
            [.ids(chats), .ids(people)])
        _ = try? connection.query("COMMIT")
    }

    private func cutLinks(of victim: Victims.Victim) -> Bool {
        for id in victim.family {
            do {
                _ = try ForeignConnections.cut(of: id)
            } catch  where error.code == .notFound {
                continue
            } catch {
                leftOut = "cutting the links between the processes (\(error))"
                return false
            }
        }
        return true
    }

    func wait(upToMs: Int, for condition: () -> Bool) -> Bool {
        let deadline = clock.monotonicNs + UInt64(upToMs) * 1_000_000
        while !condition() {
            if clock.monotonicNs > deadline { return false }
            loop.runOnce(timeoutMs: 5)
        }
        return true
    }

    // MARK: The people

    private func populate() throws {
        let users = (0..<options.devices * 4 / 5).map { _ in UserID.random(using: &generator) }
        var connection = try PostgresConnection(load.postgres)
        _ = try connection.query(
            "INSERT INTO users (user_id, name) SELECT id, 'chaos' FROM unnest($1::uuid[]) AS id", [.ids(users)])
        for number in 0..<options.devices {
            let user = users[number % users.count]
            let device = ChaosDevice(self, user: user, number: record.add(deviceOf: user), token: load.token(for: user))
            devices.append(device)
            devicesOfUser[user, default: []].append(device)
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
            guard let admin = devicesOfUser[members[0]]?.first else { continue }
            drivers.append(
                ChaosDriver(self, chat: chat, admin: admin, members: Set(members), candidates: candidates))
        }
    }

    private func makeVisitors() -> ChaosVisitors {
        let users = devicesOfUser.keys.sorted().enumerated().filter { $0.offset % options.usersPerVisitor == 0 }
        let visiting = Set(users.map(\.element))
        return ChaosVisitors(self, devices: devices, visitors: devices.filter { visiting.contains($0.user) })
    }

    func token(for user: UserID) -> String { load.token(for: user) }

    /// One of them, by chance.
    func device(of user: UserID) -> ChaosDevice? { devicesOfUser[user]?.randomElement(using: &generator) }

    // MARK: From the devices

    func deviceReady(_ device: ChaosDevice) { ready.insert(device.number) }
    func violate(_ line: String) { record.violate(line) }

    /// A device was told of a change: it may rely on it with its very next message.
    func sawChange(_ device: ChaosDevice, of chat: ChatID, isOut: Bool) {
        if isDriving, !isOut, Int.random(in: 0..<8, using: &generator) == 0 { device.send(to: chat) }
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
