import PushLink
import Runtime
import System
import Wire

/// The links of one loop, and what is to be told on them. The rules are those of docs/push-link.md; `LinkLedger` and
/// `SessionFeed` keep them.
final class Links {
    unowned let chat: ChatLoop
    private var peers: [UInt64: LinkPeer] = [:]
    private var nextID: UInt64 = 0
    private var ledger = LinkLedger<UInt64>()
    /// What this tick collected, by partition.
    private var registering: [Int32: [SessionNumber]] = [:]
    private var unregistering: [Int32: [SessionNumber]] = [:]
    private var isFlushDue = false
    private(set) var listener: Listener?

    init(_ chat: ChatLoop) { self.chat = chat }

    /// What a link's silence is measured by: it never jumps.
    var nowMs: Int64 { Int64(chat.loop.monotonicMs) }

    func listen(_ address: Address, sharesPort: Bool) throws {
        let tls = chat.configuration.pushTLS
        listener = try Listener(on: chat.loop, host: address.host, port: Int(address.port), sharesPort: sharesPort) {
            [unowned self] socket in
            accept(socket, tls)
        }
    }

    /// More than any number of workers; a stranger's connections end by themselves when they prove nothing.
    private static let peersMax = 1024

    private func accept(_ socket: consuming Socket, _ tls: TLSContext?) {
        guard peers.count < Self.peersMax else { return }
        nextID += 1
        let link = InstanceLink(
            identity: chat.identity, secret: chat.linkSecret, nonce: Crypto.randomBytes(32), nowMs: nowMs)
        let peer = LinkPeer(self, id: nextID, link: link)
        do {
            peer.begin(
                try System.Stream(
                    socket, on: chat.loop, delegate: peer, limits: StreamLimits(bytes: 64 << 20), tls: tls))
            peers[nextID] = peer
        } catch {
            chat.log.warning("cannot take a worker's connection", ["error": .init(error)])
        }
    }

    func close() {
        listener?.close()
        for peer in peers.values { peer.close(LinkError(.stopping, "the chat server is stopping")) }
    }

    func tick() {
        for peer in Array(peers.values) { peer.tick() }
    }

    /// Who is connected, for the announcement: of many the same ones as other instances name.
    var workers: [String] {
        Array(Set(peers.values.lazy.filter(\.wasOpen).map(\.name)).sorted().prefix(InstanceRecord.workersMax))
    }

    // MARK: What workers say

    func opened(_ peer: LinkPeer, _ worker: LinkIdentity) {
        peer.wasOpen = true
        chat.metrics.links.add(1)
        chat.log.info("a Delivery worker has connected", ["worker": .init(worker.name), "epoch": .init(worker.epoch)])
    }

    func failed(_ peer: LinkPeer, _ error: LinkError) {
        let isEnd = error.code == .closedByPeer || error.code == .stopping
        let fields: Log.Fields = ["worker": .init(peer.name), "error": .init(error)]
        if isEnd { chat.log.info("a link has ended", fields) } else { chat.log.warning("a link was given up", fields) }
        lose(peer)
    }

    func closed(_ peer: LinkPeer) { lose(peer) }

    private func lose(_ peer: LinkPeer) {
        guard peers.removeValue(forKey: peer.id) != nil else { return }
        if peer.wasOpen { chat.metrics.links.add(-1) }
        let loss = ledger.remove(peer.id)
        lose(loss)
        for number in loss.lookUps { chat.lookUpFailed(number) }
    }

    /// Sessions of these partitions wait for the next claim.
    private func lose(_ loss: LinkLedger<UInt64>.Loss) {
        guard !loss.partitions.isEmpty else { return }
        chat.forEachSession { _, session in
            if let heard = loss.partitions[session.partition] { self.ownerLost(session, heard) }
        }
    }

    private func ownerLost(_ session: Session, _ heard: Cursor?) {
        session.isRegistered = false
        session.feed.ownerLost(heard: heard)
    }

    /// Whether the link owns the partition, so that what it says of it counts.
    func heard(_ cursor: Cursor, of partition: Int32, from peer: LinkPeer) -> Bool {
        ledger.heard(cursor, of: partition, from: peer.id)
    }

    /// Whether the link owns the session's partition, so that it may say what becomes of the session.
    func isOwner(_ peer: LinkPeer, of session: Session) -> Bool { ledger.isOwner(peer.id, of: session.partition) }

    func receive(_ message: WorkerMessage, from peer: LinkPeer) {
        switch message {
        case .claim(let partitionCount, let claims): claim(claims, partitionCount, by: peer)
        case .release(let partitions): lose(ledger.release(partitions, by: peer.id))
        case .registered(let request, let partition, let liveAfter):
            registered(request, partition, liveAfter, by: peer)
        case .takenOver(let partition, let number):
            guard let (client, session) = chat.session(number), session.partition == partition,
                isOwner(peer, of: session)
            else { return }
            chat.takenOver(client)
        case .progress(let positions):
            for position in positions {
                _ = ledger.heard(position.routed, of: position.partition, from: peer.id)
            }
        case .cannotFill(let request, let number, let reason, let windowStart):
            guard let (client, session) = chat.session(number), isOwner(peer, of: session) else { return }
            let step = session.feed.receive(cannotFill: reason, windowStart: windowStart, by: request)
            if reason == .foreign, step != .nothing { session.isReset = true }
            chat.perform(step, client, session)
        case .presence(let notices): chat.presence.receive(notices)
        case .storedCursor(let request, let stored):
            if let number = ledger.lookedUp(request, by: peer.id) { chat.lookedUp(number, stored) }
        case .batch, .page, .heartbeat, .goodbye: break
        }
    }

    private func claim(_ claims: [PartitionClaim], _ partitionCount: Int32, by peer: LinkPeer) {
        let isFirst = ledger.partitionCount == 0
        var won: Set<Int32> = []
        var lost: [Int32: Cursor?] = [:]
        for claim in claims {
            switch ledger.claim(claim, partitionCount: partitionCount, by: peer.id) {
            case .accepted(let lostBy, let heard):
                won.insert(claim.partition)
                if lostBy != nil { lost[claim.partition] = heard }
            case .refused(let term):
                peer.send(.refused(partition: claim.partition, term: term))
            }
        }
        guard !won.isEmpty else { return }
        chat.log.info("partitions claimed", ["worker": .init(peer.name), "partitions": .init(won.count)])
        var sessions: [Int32: [(SessionNumber, Session)]] = [:]
        chat.forEachSession { client, session in
            // Sessions that came before the number of partitions was known have none yet.
            if isFirst, let partition = self.ledger.partition(of: session.user) { session.partition = partition }
            guard won.contains(session.partition) else { return }
            if let heard = lost[session.partition] { self.ownerLost(session, heard) }
            guard session.state == .active else { return }
            // Whoever has no cursor yet may have waited for long: its stream begins behind what it was told.
            if session.isLargeChatsStale || session.feed.after == nil {
                self.chat.refreshLargeChats(client.number, session)
            }
            sessions[session.partition, default: []].append((client.number, session))
        }
        for partition in won.sorted() {
            registering[partition] = nil
            register(sessions[partition] ?? [], partition, isAnswer: true)
        }
        chat.presence.claimed(won, by: peer)
        chat.claimed(won)
    }

    /// Bytes of registrations in one frame: large chats make some of them long.
    private static let registrationBytesMax = 256 << 10

    private func endOfFrame(_ sessions: [(SessionNumber, Session)], from start: Int) -> Int {
        var end = start
        var byteCount = 0
        while end < sessions.count, end - start < LinkLimits.sessionsPerFrame, byteCount < Self.registrationBytesMax {
            byteCount += 64 + 16 * (sessions[end].1.busy?.largeChats.count ?? 0)
            end += 1
        }
        return end
    }

    private func register(_ sessions: [(SessionNumber, Session)], _ partition: Int32, isAnswer: Bool) {
        var start = 0
        repeat {
            let end = endOfFrame(sessions, from: start)
            let part = sessions[start..<end]
            guard let question = ledger.register(part.map(\.0), in: partition) else { return }
            for (_, session) in part {
                session.isRegistered = true
                // Who waits for Postgres is named, so that nobody takes its user for gone, and begins when the answer is there.
                if session.busy?.isAskingLargeChats != true { session.feed.register(question.request) }
            }
            peers[question.link]?.send(
                .register(
                    request: question.request, partition: partition, isLast: isAnswer && end == sessions.count,
                    part.map { number, session in
                        SessionRegistration(
                            number: number, user: session.user, device: session.device, openedUs: session.openedUs,
                            after: session.feed.after, largeChats: session.busy?.largeChats ?? [])
                    }))
            start = end
        } while start < sessions.count
    }

    private func registered(_ request: UInt32, _ partition: Int32, _ liveAfter: Cursor, by peer: LinkPeer) {
        for number in ledger.registered(request, in: partition, by: peer.id) {
            guard let (client, session) = chat.session(number), session.isRegistered else { continue }
            // It begins here. What has changed since Postgres was asked is not in its stream: this owner knows of it, the
            // next may not.
            if session.feed.after == nil { session.isLargeChatsStale = true }
            chat.perform(session.feed.registered(request, liveAfter: liveAfter), client, session)
        }
    }

    // MARK: What sessions want

    private func owner(of partition: Int32) -> LinkPeer? { ledger.owner(of: partition).flatMap { peers[$0] } }

    func owner(of user: UserID) -> LinkPeer? { ledger.owner(of: user).flatMap { peers[$0] } }

    func partition(of user: UserID) -> Int32 { ledger.partition(of: user) ?? -1 }

    /// Names an active session to its owner at the end of the tick; without an owner the next claim does it.
    func register(_ number: SessionNumber, _ session: Session) {
        guard owner(of: session.partition) != nil else { return }
        registering[session.partition, default: []].append(number)
        flushLater()
    }

    /// Names a session that its owner does not know, or knows at another place of its stream.
    func registerAgain(_ number: SessionNumber, _ session: Session) {
        session.isRegistered = false
        register(number, session)
    }

    func unregister(_ number: SessionNumber, _ session: Session) {
        guard session.isRegistered else { return }
        session.isRegistered = false
        unregistering[session.partition, default: []].append(number)
        flushLater()
    }

    private func flushLater() {
        guard !isFlushDue else { return }
        isFlushDue = true
        chat.loop.atTickEnd { [weak self] in self?.flush() }
    }

    private func flush() {
        isFlushDue = false
        for (partition, numbers) in registering {
            let sessions = numbers.compactMap { number in
                chat.session(number).flatMap { $0.1.state == .active && !$0.1.isRegistered ? (number, $0.1) : nil }
            }
            if !sessions.isEmpty { register(sessions, partition, isAnswer: false) }
        }
        registering.removeAll(keepingCapacity: true)
        for (partition, numbers) in unregistering {
            owner(of: partition)?.send(.unregister(partition: partition, numbers))
        }
        unregistering.removeAll(keepingCapacity: true)
    }

    func fill(_ number: SessionNumber, _ session: Session, after: Cursor, through: Int64) {
        guard let question = ledger.fill(in: session.partition) else { return }
        chat.metrics.fills.add()
        session.feed.asked(question.request)
        peers[question.link]?.send(
            .fill(
                FillRequest(
                    request: question.request, partition: session.partition, session: number, after: after,
                    through: through, bytesMax: UInt32(chat.configuration.limits.fillBytes))))
    }

    /// Whether there was someone to ask.
    func lookUpCursor(_ number: SessionNumber, _ session: Session) -> Bool {
        guard let question = ledger.lookUp(number, of: session.user) else { return false }
        peers[question.link]?.send(
            .lookUpCursor(request: question.request, user: session.user, device: session.device))
        return true
    }

    /// Stores what it can; what has no owner now is answered, to be tried again.
    func store(_ cursors: [DeviceCursor]) -> [DeviceCursor] {
        var rest: [DeviceCursor] = []
        var byLink: [UInt64: [DeviceCursor]] = [:]
        for cursor in cursors {
            if let peer = owner(of: cursor.user) {
                byLink[peer.id, default: []].append(cursor)
            } else {
                rest.append(cursor)
            }
        }
        for (id, cursors) in byLink {
            for start in stride(from: 0, to: cursors.count, by: LinkLimits.sessionsPerFrame) {
                let end = min(start + LinkLimits.sessionsPerFrame, cursors.count)
                peers[id]?.send(.storeCursors(Array(cursors[start..<end])))
            }
        }
        return rest
    }
}
