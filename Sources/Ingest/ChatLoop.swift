import KafkaClient
import PushLink
import Runtime
import System
import WebSocket
import Wire

/// One event loop of the chat server with everything that lives on it: its sockets, its sessions, its links from Delivery
/// and its writer to the log. To Delivery it is an instance of its own, so nothing is handed from one loop to another.
final class ChatLoop {
    let loop: EventLoop
    let configuration: IngestConfiguration
    let shared: Shared
    let log: Log
    let metrics: IngestMetrics
    let identity: LinkIdentity
    let linkSecret: LinkSecret
    let connectionLimits: WebSocket.Connection.Limits
    private(set) var isDraining = false

    var clients = SessionTable()
    var devices: [DeviceKey: SessionNumber] = [:]
    var cursors: [DeviceKey: Cursor] = [:]
    var buckets: [UserID: TokenBucket] = [:]
    /// Of devices that have told within the second what they have.
    var receipts: [SessionNumber: DeliveredReceipts] = [:]
    private(set) lazy var links = Links(self)
    private(set) lazy var presence = Presence(self)
    private(set) lazy var http = HTTPRouter(self)
    private(set) lazy var sweep = Sweep(self)
    let writer: LogWriter
    let health: ChatHealth
    let database: Database?
    let largeChats: LargeChats?
    private var connects: TokenBucket
    private let connectLimit: RateLimit
    private var listener: Listener?
    private var scratch: [UInt8] = []
    var deflate = LoopDeflate()

    /// What all loops of the process use together; every part of it may be used by any thread.
    struct Shared: Sendable {
        let verifier: TokenVerifier
        let counts: ConnectionCounts
        let directory: InstanceDirectory
        let metrics: IngestMetrics
        let registry: Metrics
        let siblings: Siblings
        let revocations: Revocations
        let present: PresentLog
        let health: Health
        /// Whether it is known who may no longer be let in, and the process is not about to end.
        let admits: @Sendable () -> Bool
        let log: Log
    }

    struct DeviceKey: Hashable, Sendable {
        let user: UserID
        let device: DeviceID
    }

    init(_ loop: EventLoop, index: Int, configuration: IngestConfiguration, shared: Shared, epoch: UInt64) throws {
        self.loop = loop
        self.configuration = configuration
        self.shared = shared
        metrics = shared.metrics
        let name = configuration.loops == 1 ? configuration.instance : "\(configuration.instance).\(index)"
        log = shared.log.with(["instance": .init(name)])
        identity = LinkIdentity(name: name, epoch: epoch)
        let secret = configuration.pushSecret
        linkSecret = LinkSecret { Crypto.hmacSHA256(key: secret, $0) }
        let limits = configuration.limits
        connectionLimits = WebSocket.Connection.Limits(messageBytesMax: limits.messageBytesMax)
        connectLimit = RateLimit(burst: limits.connectsPerSecond, periodMs: 1000)
        connects = TokenBucket(connectLimit, nowMs: Int64(loop.monotonicMs))
        health = ChatHealth(
            shared.health, name: configuration.loops == 1 ? "" : " \(index)",
            hasDatabase: configuration.postgres != nil)
        writer = try LogWriter(configuration, log: log)
        let database = configuration.postgres.map {
            Database($0, on: loop, connections: configuration.postgresConnections)
        }
        self.database = database
        largeChats = database.map {
            LargeChats($0, on: loop, limit: limits.largeChat, questions: shared.metrics.largeChatQuestions)
        }
    }

    /// Starts to listen. `port` is the one that the first loop was given, when the system chose it.
    func start(port: Int) throws {
        try links.listen(configuration.pushListen, sharesPort: false)
        let address = configuration.listen
        listener = try Listener(on: loop, host: address.host, port: port, sharesPort: configuration.loops > 1) {
            [unowned self] socket in
            accept(socket)
        }
        // It announces the port, so that is known before.
        writer.start(self)
        listener?.onPause = { [log] error in log.warning("not accepting connections", ["error": .init(error)]) }
        sweep.start()
    }

    var port: Int { listener?.port ?? 0 }
    var nowS: UInt32 { UInt32(truncatingIfNeeded: loop.monotonicMs / 1000) }

    // MARK: Connections

    private func accept(_ socket: consuming Socket) {
        let limits = configuration.limits
        let address = ConnectionCounts.Key.address(socket.peerAddress?.host ?? "")
        // Too many of one address: dropping the socket resets it, which costs us nothing.
        guard shared.counts.add(address, max: limits.connectionsPerAddress) else { return }
        let client = Client(self, address: address)
        guard let number = clients.insert(client) else {
            shared.counts.remove(address)
            return
        }
        client.number = number
        metrics.connections.add(1)
        // While it speaks HTTP: one answer at a time, and what small ones are before it.
        let queue = StreamLimits(
            bytes: UInt32(limits.answerBytesMax), fragments: UInt32(limits.sessionQueueFragments))
        do {
            client.begin(
                try System.Stream(socket, on: loop, delegate: client, limits: queue, tls: configuration.tls))
        } catch {
            log.warning("cannot take a connection", ["error": .init(error)])
            closed(client)
        }
    }

    /// Whether another session may start now; if not, after how many milliseconds to come again.
    func admit() -> Int? {
        if isDraining { return Int.random(in: 500...5000) }
        guard let wait = connects.take(connectLimit, nowMs: Int64(loop.monotonicMs)) else { return nil }
        // Spread, or they all come again at once.
        return wait + Int.random(in: 500...3000)
    }

    func closed(_ client: Client) {
        guard clients[client.number] === client else { return }
        if let session = client.session { detach(client, session) }
        clients.remove(client.number)
        metrics.connections.add(-1)
        shared.counts.remove(client.address)
    }

    /// Closes once what is queued has left, or after a while in any case: a peer that reads nothing cannot hold the
    /// socket for ever.
    func end(_ client: Client) {
        client.stream?.closeAfterFlush()
        loop.schedule(afterMs: 5000) { [weak client] in client?.stream?.close() }
    }

    func takeScratch() -> [UInt8] {
        var taken: [UInt8] = []
        swap(&taken, &scratch)
        return taken
    }

    func giveBack(scratch used: [UInt8]) {
        if used.capacity <= 256 << 10 { scratch = used }
    }

    // MARK: Sessions

    func session(_ number: SessionNumber) -> (Client, Session)? {
        guard let client = clients[number], let session = client.session, session.state != .closing else { return nil }
        return (client, session)
    }

    func forEachSession(_ body: (Client, Session) -> Void) {
        clients.forEach { client in
            if let session = client.session, session.state != .closing { body(client, session) }
        }
    }

    /// The session is over for everyone but its socket.
    func detach(_ client: Client, _ session: Session) {
        guard session.state != .closing else { return }
        if session.state != .awaitingHello {
            tellDelivered(client.number, session)
            links.unregister(client.number, session)
            presence.end(client.number, session)
            let key = DeviceKey(user: session.user, device: session.device)
            if devices[key] == client.number { devices[key] = nil }
        }
        session.state = .closing
        shared.counts.remove(.user(session.user))
        metrics.sessions.add(-1)
    }

    /// Tells the device why, and closes.
    func refuse(_ client: Client, _ code: CloseCode, _ reason: String) {
        guard let session = client.session, session.state != .closing else { return }
        detach(client, session)
        metrics.closes(code)
        session.connection.close(code, reason: reason)
        // Whatever the queue holds already, the reason has to fit behind it.
        client.stream?.limits = StreamLimits()
        client.stream?.write(session.connection.takeOutput())
        end(client)
    }

    func closeSlow(_ client: Client) { refuse(client, .tooSlow, "too slow") }

    // MARK: Revocation

    func revoke(_ users: Set<UserID>) {
        forEachSession { client, session in
            guard users.contains(session.user),
                self.shared.revocations.isRevoked(session.user, issuedAtMs: session.issuedAtMs)
            else { return }
            self.refuse(client, .unauthorised, TokenError.revoked.rawValue)
        }
    }

    // MARK: The end

    /// Takes no more sessions and sends those that there are elsewhere, spread over the drain's time.
    func drain(_ done: @escaping () -> Void) {
        guard !isDraining else { return }
        isDraining = true
        writer.announce(self)
        let limitMs = configuration.limits.drainMs
        let numbers = { () -> [SessionNumber] in
            var numbers: [SessionNumber] = []
            self.forEachSession { client, _ in numbers.append(client.number) }
            return numbers
        }()
        let steps = max(1, limitMs / 50)
        let perStep = max(1, (numbers.count + steps - 1) / steps)
        let deadline = loop.monotonicMs + UInt64(limitMs * 2)
        func step(_ start: Int) {
            for number in numbers[min(start, numbers.count)..<min(start + perStep, numbers.count)] {
                guard let (client, _) = session(number) else { continue }
                refuse(client, .serviceRestart, "\(Int.random(in: 0...limitMs))")
            }
            let isThrough = start + perStep >= numbers.count
            if isThrough, !writer.isBusy && !hasSessions || loop.monotonicMs >= deadline {
                links.close()
                writer.retire(self)
                // The goodbyes leave at the end of this tick.
                loop.schedule(afterMs: 10, done)
                return
            }
            loop.schedule(afterMs: 50) { step(start + perStep) }
        }
        step(0)
    }

    private var hasSessions: Bool {
        var found = false
        clients.forEach { if $0.session != nil { found = true } }
        return found
    }
}
