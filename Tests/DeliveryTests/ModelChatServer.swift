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
    /// Everything shown, in the order in which it was.
    var seen: [Seen] = []
    var cursor: Cursor?
    /// Where a device without a cursor began.
    var start: Cursor?
    var caughtUp = 0
    /// How often it has connected: the time that its sessions are told to have opened at.
    var openings: Int64 = 0

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
        let openedUs: Int64
        var feed: SessionFeed<Cursor>
        /// As Postgres told them.
        var largeChats: [ChatID]?
        /// A change has been heard of since.
        var areChatsStale = false
        /// Postgres has been asked, and this is what comes of its answer.
        var question: Question?

        enum Question: Equatable {
            case register
            case history(run: UInt32, from: Cursor, until: Cursor)
        }

        var isWaiting: Bool { question == .register }

        init(_ number: SessionNumber, _ device: ModelDevice) {
            self.number = number
            self.device = device
            device.openings += 1
            openedUs = device.openings
            feed = SessionFeed(after: device.cursor)
        }
    }

    let identity: LinkIdentity
    let secret: LinkSecret
    /// What History would answer: the events of a user in between.
    var history: (ModelDevice, _ from: Cursor, _ until: Cursor) -> [Cursor] = { _, _, _ in [] }
    /// What Postgres knows of a user's large chats. It answers at once, or when `answerQuestions` is called.
    var largeChats: (UserID) -> [ChatID] = { _ in [] }
    var answersAtOnce = true
    private(set) var sessions: [SessionNumber: Session] = [:]
    private(set) var links: [Int: InstanceLink] = [:]
    private var ledger = LinkLedger<Int>()
    private var nextNumber: SessionNumber = 1
    var fillBytes: UInt32 = 65_536
    var heldBytesMax = 1 << 20
    private(set) var presence: [UserID: PresenceNotice] = [:]
    private(set) var presenceCount = 0
    private var watched: Set<UserID> = []
    private(set) var storedCursors: [UInt32: StoredCursor] = [:]
    private(set) var historyCount = 0
    /// The devices whose sessions here were ended because they opened another elsewhere.
    private(set) var takenOver: [DeviceID] = []
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
        lose(ledger.remove(link))
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
                switch ledger.claim(claim, partitionCount: count, by: link) {
                case .refused(let term): links[link]?.send(.refused(partition: claim.partition, term: term))
                case .accepted(_, let heard):
                    ownerLost(claim.partition, heard)
                    registerAll(claim.partition)
                }
            }
        case .release(let partitions): lose(ledger.release(partitions, by: link))
        case .registered(let request, let partition, let liveAfter):
            for number in ledger.registered(request, in: partition, by: link) {
                guard let session = sessions[number] else { continue }
                let isNew = session.device.cursor == nil && session.feed.after == nil
                if session.feed.after == nil { session.areChatsStale = true }
                step(session, session.feed.registered(request, liveAfter: liveAfter))
                if isNew, session.device.start == nil { session.device.start = session.feed.after }
            }
        case .takenOver(_, let number):
            guard let session = sessions[number], isOwner(link, of: session) else { return }
            takenOver.append(session.device.device)
            close(number)
        case .batch(let batch):
            guard ledger.heard(batch.cursor, of: batch.partition, from: link), let of = links[link] else { return }
            let byteCount = of.withPayload(of: batch) { $0.count }
            for number in of.sessions(of: batch) {
                guard let session = sessions[number] else { continue }
                let verdict = session.feed.receive(
                    batch.cursor, batch.kind, batch.cursor, byteCount: byteCount, heldBytesMax: heldBytesMax)
                if batch.kind == .member, verdict == .deliver || verdict == .hold { session.areChatsStale = true }
                switch verdict {
                case .deliver: session.device.show(.init(offset: batch.cursor.offset, cursor: batch.cursor))
                case .drop, .hold: break
                }
            }
        case .progress(let positions):
            for position in positions { _ = ledger.heard(position.routed, of: position.partition, from: link) }
        case .page(let page):
            guard let session = sessions[page.session], isOwner(link, of: session) else { return }
            for event in page.events where session.feed.receive(filled: event.offset, by: page.request) == .deliver {
                if event.kind == .member { session.areChatsStale = true }
                let cursor = links[link]?.withPayload(of: event) { Self.cursor(of: $0) }
                session.device.show(.init(offset: event.offset, cursor: cursor ?? .start))
            }
            step(session, session.feed.receive(pageUpTo: page.upTo, isLast: page.isLast, by: page.request))
        case .cannotFill(let request, let number, let reason, let windowStart):
            guard let session = sessions[number], isOwner(link, of: session) else { return }
            step(session, session.feed.receive(cannotFill: reason, windowStart: windowStart, by: request))
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

    private func isOwner(_ link: Int, of session: Session) -> Bool {
        ledger.partition(of: session.device.user).map { ledger.isOwner(link, of: $0) } ?? false
    }

    private func step(_ session: Session, _ step: SessionFeed<Cursor>.Step) {
        switch step {
        case .nothing: break
        case .register: register(session)
        case .fill(let after, let through):
            guard let partition = ledger.partition(of: session.device.user), let question = ledger.fill(in: partition)
            else { return }
            session.feed.asked(question.request)
            links[question.link]?.send(
                .fill(
                    FillRequest(
                        request: question.request, partition: partition, session: session.number, after: after,
                        through: through, bytesMax: fillBytes)))
        case .history(let run, let from, let until):
            historyCount += 1
            ask(session, .history(run: run, from: from, until: until))
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

    // MARK: Sessions

    private func sessions(in partition: Int32) -> [Session] {
        sessions.values.filter { ledger.partition(of: $0.device.user) == partition }.sorted { $0.number < $1.number }
    }

    private func lose(_ loss: LinkLedger<Int>.Loss) {
        for (partition, heard) in loss.partitions { ownerLost(partition, heard) }
    }

    private func ownerLost(_ partition: Int32, _ heard: Cursor?) {
        for session in sessions(in: partition) { session.feed.ownerLost(heard: heard) }
    }

    private func register(_ session: Session) {
        if let partition = ledger.partition(of: session.device.user) { register([session], partition, isLast: false) }
    }

    private func register(_ sessions: [Session], _ partition: Int32, isLast: Bool) {
        guard let question = ledger.register(sessions.map(\.number), in: partition) else { return }
        // Who is waiting for Postgres is named, so that nobody takes its user for gone, and begins when the answer is there.
        for session in sessions where !session.isWaiting { session.feed.register(question.request) }
        let registrations = sessions.map {
            SessionRegistration(
                number: $0.number, user: $0.device.user, device: $0.device.device, openedUs: $0.openedUs,
                after: $0.feed.after, largeChats: $0.largeChats ?? [])
        }
        links[question.link]?.send(
            .register(request: question.request, partition: partition, isLast: isLast, registrations))
    }

    private func ask(_ session: Session, _ question: Session.Question) {
        session.question = question
        if answersAtOnce { answer(session) }
    }

    private func answer(_ session: Session) {
        guard let question = session.question else { return }
        session.question = nil
        if case .history(let run, _, _) = question, !session.feed.isServing(run) { return }
        session.largeChats = largeChats(session.device.user)
        session.areChatsStale = false
        switch question {
        case .register: register(session)
        case .history(let run, let from, let until):
            // Shown all at once: by seq, a device drops what it was shown by a run that broke off; this one knows none.
            for cursor in history(session.device, from, until) {
                session.device.show(.init(offset: cursor.offset, cursor: cursor))
            }
            step(session, session.feed.historyServed(run))
        }
    }

    func answerQuestions() {
        for session in sessions.values.sorted(by: { $0.number < $1.number }) { answer(session) }
    }

    private func registerAll(_ partition: Int32) {
        let all = sessions(in: partition).filter { $0.largeChats != nil }
        for session in all where session.areChatsStale || session.feed.after == nil { session.question = .register }
        // In two frames, as it would be for many.
        let half = all.count / 2
        if half > 0 { register(Array(all[..<half]), partition, isLast: false) }
        register(Array(all[half...]), partition, isLast: true)
        let users = watched.filter { ledger.partition(of: $0) == partition }
        if !users.isEmpty { send(.watch(users.sorted()), in: partition) }
        if answersAtOnce { answerQuestions() }
    }

    private func send(_ message: InstanceMessage, in partition: Int32?) {
        if let partition, let link = ledger.owner(of: partition) { links[link]?.send(message) }
    }

    @discardableResult
    func open(_ device: ModelDevice) -> SessionNumber {
        let session = Session(nextNumber, device)
        nextNumber += 1
        sessions[session.number] = session
        ask(session, .register)
        return session.number
    }

    func close(_ number: SessionNumber) {
        guard let session = sessions.removeValue(forKey: number),
            let partition = ledger.partition(of: session.device.user)
        else { return }
        send(.unregister(partition: partition, [number]), in: partition)
    }

    func watch(_ user: UserID) {
        watched.insert(user)
        send(.watch([user]), forUser: user)
    }

    func send(_ message: InstanceMessage, forUser user: UserID) { send(message, in: ledger.partition(of: user)) }

    var isLive: Bool { sessions.values.allSatisfy { $0.feed.isLive } }
}
