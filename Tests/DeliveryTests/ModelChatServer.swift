import PushLink
import Wire

/// One device as a person holds it: what it has been shown, and the cursor it would reconnect with.
final class ModelDevice {
    struct Seen: Equatable {
        var offset: Int64
        var cursor: Cursor
    }

    let user: UserID
    let device: DeviceID
    var largeChats: [ChatID] = []
    /// Everything shown, in the order in which it was.
    var seen: [Seen] = []
    var cursor: Cursor?
    /// Where a device without a cursor began.
    var start: Cursor?
    var caughtUp = 0

    init(user: UserID, device: DeviceID) {
        self.user = user
        self.device = device
    }

    func show(_ event: Seen) {
        seen.append(event)
        cursor = event.cursor
    }
}

/// A chat server without sockets and people's browsers: the instance's end of the push link and its sessions' feeds, as
/// `fanout chat` uses them.
final class ModelChatServer {
    final class Session {
        let number: SessionNumber
        let device: ModelDevice
        var feed: SessionFeed<Cursor>

        init(_ number: SessionNumber, _ device: ModelDevice) {
            self.number = number
            self.device = device
            feed = SessionFeed(after: device.cursor)
        }
    }

    let identity: LinkIdentity
    let secret: LinkSecret
    /// What History would answer: the events of a user in between.
    var history: (ModelDevice, _ from: Cursor, _ until: Cursor) -> [Cursor] = { _, _, _ in [] }
    private(set) var sessions: [SessionNumber: Session] = [:]
    private(set) var links: [Int: InstanceLink] = [:]
    private var owners = OwnerTable<Int>()
    private var requests: [UInt32: [SessionNumber]] = [:]
    private var nextNumber: SessionNumber = 1
    private var nextRequest: UInt32 = 1
    var fillBytes: UInt32 = 65_536
    var heldBytesMax = 1 << 20
    private(set) var presence: [UserID: PresenceNotice] = [:]
    private(set) var presenceCount = 0
    private var watched: Set<UserID> = []
    private(set) var storedCursors: [UInt32: StoredCursor] = [:]
    private(set) var historyCount = 0
    /// Sessions closed as too slow; their devices reconnect.
    private(set) var overflowed: [ModelDevice] = []
    /// Links that have failed and are to be cut.
    var failed: [(link: Int, error: LinkError)] = []

    init(_ identity: LinkIdentity, _ secret: LinkSecret) {
        self.identity = identity
        self.secret = secret
    }

    // MARK: Links

    func accept(_ link: Int, nowMs: Int64) {
        links[link] = InstanceLink(
            identity: identity, secret: secret, nonce: [UInt8](repeating: UInt8(truncatingIfNeeded: link), count: 32),
            nowMs: nowMs)
    }

    func lose(_ link: Int) {
        guard links.removeValue(forKey: link) != nil else { return }
        for (partition, heard) in owners.remove(link) { ownerLost(partition, heard) }
    }

    func receive(_ link: Int, _ bytes: [UInt8], nowMs: Int64) {
        links[link]?.receive(bytes.span, nowMs: nowMs)
        do throws(LinkError) {
            while let event = try links[link]?.next() {
                if case .message(let message) = event { take(message, link) }
            }
            links[link]?.acknowledge()
        } catch {
            failed.append((link, error))
        }
    }

    func takeOutput(_ link: Int, nowMs: Int64) -> [UInt8] { links[link]?.takeOutput(nowMs: nowMs) ?? [] }

    func tick(nowMs: Int64) {
        for link in links.keys.sorted() {
            do throws(LinkError) {
                try links[link]?.tick(nowMs: nowMs)
            } catch {
                failed.append((link, error))
            }
        }
    }

    private func take(_ message: WorkerMessage, _ link: Int) {
        switch message {
        case .claim(let count, let claims):
            for claim in claims {
                switch owners.claim(claim, partitionCount: count, by: link) {
                case .refused(let term): links[link]?.send(.refused(partition: claim.partition, term: term))
                case .accepted(_, let heard):
                    ownerLost(claim.partition, heard)
                    registerAll(claim.partition, link)
                }
            }
        case .release(let partitions):
            for partition in partitions {
                if let heard = owners.release(partition, by: link) { ownerLost(partition, heard) }
            }
        case .registered(let request, let partition, let liveAfter):
            guard owners.isOwner(link, of: partition) else { return }
            for number in requests.removeValue(forKey: request) ?? [] {
                guard let session = sessions[number] else { continue }
                let isNew = session.device.cursor == nil && session.feed.after == nil
                step(session, session.feed.registered(liveAfter: liveAfter))
                if isNew, session.device.start == nil { session.device.start = liveAfter }
            }
        case .batch(let batch):
            guard owners.heard(batch.cursor, of: batch.partition, from: link), let of = links[link] else { return }
            let byteCount = of.withPayload(of: batch) { $0.count }
            for number in of.sessions(of: batch) {
                guard let session = sessions[number] else { continue }
                let verdict = session.feed.receive(
                    batch.cursor, batch.kind, batch.cursor, byteCount: byteCount, heldBytesMax: heldBytesMax)
                switch verdict {
                case .deliver: session.device.show(.init(offset: batch.cursor.offset, cursor: batch.cursor))
                case .overflow:
                    overflowed.append(session.device)
                    close(number)
                case .drop, .hold: break
                }
            }
        case .progress(let positions):
            for position in positions { _ = owners.heard(position.routed, of: position.partition, from: link) }
        case .page(let page):
            guard let session = sessions[page.session], requests[page.request] == [page.session] else { return }
            requests[page.request] = nil
            for event in page.events where session.feed.receive(filled: event.offset) == .deliver {
                let cursor = links[link]?.withPayload(of: event) { Self.cursor(of: $0) }
                session.device.show(.init(offset: event.offset, cursor: cursor ?? .start))
            }
            step(session, session.feed.receive(pageUpTo: page.upTo, isLast: page.isLast))
        case .cannotFill(let request, let number, let reason, let windowStart):
            guard let session = sessions[number], request == 0 || requests[request] == [number] else { return }
            requests[request] = nil
            step(session, session.feed.receive(cannotFill: reason, windowStart: windowStart))
        case .presence(let notices):
            for notice in notices {
                presence[notice.user] = notice
                presenceCount += 1
            }
        case .storedCursor(let request, let stored): storedCursors[request] = stored
        case .heartbeat, .goodbye: break
        }
    }

    /// The cursor that a device reads from a frame: its last member.
    static func cursor(of frame: Span<UInt8>) -> Cursor? {
        let end = frame.count - 2
        return Cursor(String(showing: frame.extracting(end - Cursor.textCount..<end)))
    }

    private func step(_ session: Session, _ step: SessionFeed<Cursor>.Step) {
        switch step {
        case .nothing, .wait: break
        case .fill(let after, let through):
            guard let partition = owners.partition(of: session.device.user), let link = owners.owner(of: partition)
            else { return }
            let request = newRequest([session.number])
            links[link]?.send(
                .fill(
                    FillRequest(
                        request: request, partition: partition, session: session.number, after: after, through: through,
                        bytesMax: fillBytes)))
        case .history(let from, let until):
            historyCount += 1
            for cursor in history(session.device, from, until) {
                session.device.show(.init(offset: cursor.offset, cursor: cursor))
            }
            self.step(session, session.feed.historyServed())
        case .live(let first):
            for held in session.feed.takeHeld() {
                session.device.show(.init(offset: held.cursor.offset, cursor: held.cursor))
            }
            if first, let after = session.feed.after {
                session.device.cursor = after
                session.device.caughtUp += 1
            }
        }
    }

    private func newRequest(_ numbers: [SessionNumber]) -> UInt32 {
        defer { nextRequest += 1 }
        requests[nextRequest] = numbers
        return nextRequest
    }

    // MARK: Sessions

    private func sessions(in partition: Int32) -> [Session] {
        sessions.values.filter { owners.partition(of: $0.device.user) == partition }.sorted { $0.number < $1.number }
    }

    private func ownerLost(_ partition: Int32, _ heard: Cursor?) {
        let numbers = Set(sessions(in: partition).map(\.number))
        for number in numbers { sessions[number]?.feed.ownerLost(heard: heard) }
        requests = requests.filter { $0.value.allSatisfy { !numbers.contains($0) } && !$0.value.isEmpty }
    }

    private func registration(_ session: Session) -> SessionRegistration {
        session.feed.register()
        return SessionRegistration(
            number: session.number, user: session.device.user, device: session.device.device, after: session.feed.after,
            largeChats: session.device.largeChats)
    }

    private func registerAll(_ partition: Int32, _ link: Int) {
        let all = sessions(in: partition)
        // In two frames, as it would be for many.
        let half = all.count / 2
        for (part, isLast) in [(all[..<half], false), (all[half...], true)] where isLast || !part.isEmpty {
            let request = newRequest(part.map(\.number))
            links[link]?.send(
                .register(
                    request: request, partition: partition, isLast: isLast, part.map { registration($0) }))
        }
        let users = watched.filter { owners.partition(of: $0) == partition }
        if !users.isEmpty { links[link]?.send(.watch(users.sorted())) }
    }

    @discardableResult
    func open(_ device: ModelDevice) -> SessionNumber {
        let session = Session(nextNumber, device)
        nextNumber += 1
        sessions[session.number] = session
        if let partition = owners.partition(of: device.user), let link = owners.owner(of: partition) {
            let request = newRequest([session.number])
            links[link]?.send(
                .register(request: request, partition: partition, isLast: false, [registration(session)]))
        }
        return session.number
    }

    func close(_ number: SessionNumber) {
        guard let session = sessions.removeValue(forKey: number),
            let partition = owners.partition(of: session.device.user), let link = owners.owner(of: partition)
        else { return }
        links[link]?.send(.unregister(partition: partition, [number]))
    }

    func watch(_ user: UserID) {
        watched.insert(user)
        if let partition = owners.partition(of: user), let link = owners.owner(of: partition) {
            links[link]?.send(.watch([user]))
        }
    }

    func send(_ message: InstanceMessage, forUser user: UserID) {
        if let partition = owners.partition(of: user), let link = owners.owner(of: partition) {
            links[link]?.send(message)
        }
    }

    func takeOverflowed() -> [ModelDevice] {
        defer { overflowed = [] }
        return overflowed
    }

    var isLive: Bool { sessions.values.allSatisfy { $0.feed.isLive } }
}
