import PostgresClient
import PushLink
import Store
import Runtime
import System
import WebSocket
import Wire

/// What devices say, and what comes of it.
extension ChatLoop {
    func receive(_ message: [UInt8], from client: Client, _ session: Session) {
        if let extras = session.busy, extras.isAsking {
            // Order is kept: what comes behind a frame that waits for an answer waits too, and the rest in the socket.
            extras.deferred.append(message)
            client.stream?.pauseReading()
            return
        }
        handle(message, client, session, isPaid: false)
    }

    /// - Parameter isPaid: the frame has been counted against its user's rate, and the answer it waited for has come.
    private func handle(_ bytes: [UInt8], _ client: Client, _ session: Session, isPaid: Bool) {
        let frame: ClientFrame
        do {
            frame = try ClientFrame(decoding: bytes.span)
        } catch {
            metrics.refused(error.code)
            if session.state == .awaitingHello { return refuse(client, .clientError, "hello expected") }
            return client.send(ServerFrame.error(error.code, error.message, id: error.id))
        }
        if case .hello(let start) = frame {
            guard session.state == .awaitingHello else { return refuse(client, .clientError, "a second hello") }
            return hello(start, client, session)
        }
        guard session.state != .awaitingHello else { return refuse(client, .clientError, "hello expected") }
        switch frame {
        case .hello: break
        case .send(let message): send(message, bytes, client, session, isPaid: isPaid)
        case .read(let chat, let seq): signal(.read, chat, seq, session)
        case .delivered(let chat, let seq): delivered(chat, seq, client, session)
        case .typing(let chat): signal(.typing, chat, nil, session)
        case .ack(let cursor): cursors[DeviceKey(user: session.user, device: session.device)] = cursor
        case .watch(let user): presence.watch(user, by: client, session)
        case .unwatch(let user): presence.unwatch(user, by: client.number, session)
        case .ping(let number): client.send(ServerFrame.pong(number.map { Array(bytes[$0]) }))
        }
    }

    // MARK: hello

    private func hello(_ start: ClientFrame.Start, _ client: Client, _ session: Session) {
        let key = DeviceKey(user: session.user, device: session.device)
        if let old = devices[key], let (other, _) = self.session(old) {
            takenOver(other)
        }
        session.openedUs = shared.siblings.openingUs(nowMs: loop.nowMs)
        shared.siblings.takeOver(key, by: self, openedUs: session.openedUs)
        devices[key] = client.number
        session.state = .starting
        session.partition = links.partition(of: session.user)
        client.send(
            ServerFrame.hello(
                session: "\(identity.name)-\(identity.epoch)-\(client.number)", instance: identity.name,
                user: session.user, device: session.device, heartbeatMs: configuration.limits.heartbeatMs))
        switch start {
        case .live: activate(client, session, after: nil)
        case .cursor(let cursor): activate(client, session, after: cursor)
        case .lost:
            session.isReset = true
            activate(client, session, after: nil)
        case .server:
            // Without an owner of the partition the next claim asks.
            if !links.lookUpCursor(client.number, session) { session.extras.isCursorWanted = true }
        }
    }

    func lookedUp(_ number: SessionNumber, _ stored: StoredCursor) {
        guard let (client, session) = session(number), session.state == .starting else { return }
        switch stored {
        case .found(let cursor): activate(client, session, after: cursor)
        case .none: activate(client, session, after: nil)
        case .unavailable: refuse(client, .tryAgainLater, "\(Int.random(in: 500...3000))")
        }
    }

    func lookUpFailed(_ number: SessionNumber) {
        guard let (client, session) = session(number), session.state == .starting else { return }
        if !links.lookUpCursor(client.number, session) { session.extras.isCursorWanted = true }
    }

    /// New owners: sessions that had nobody to ask can ask now.
    func claimed(_ partitions: Set<Int32>) {
        forEachSession { client, session in
            guard partitions.contains(session.partition), session.state == .starting,
                let extras = session.busy, extras.isCursorWanted
            else { return }
            extras.isCursorWanted = !self.links.lookUpCursor(client.number, session)
        }
    }

    /// From here the session takes part: once it is known which large chats its user is in, or their records would pass it by.
    private func activate(_ client: Client, _ session: Session, after: Cursor?) {
        session.feed = SessionFeed(after: after)
        guard let largeChats else {
            session.state = .active
            return links.register(client.number, session)
        }
        let number = client.number
        largeChats.ask(session.user) { [weak self] result in
            guard let self, let (client, session) = self.session(number), session.state == .starting else { return }
            switch result {
            case .success(let chats):
                if !chats.isEmpty { session.extras.largeChats = chats }
                session.state = .active
                links.register(number, session)
            case .failure(let error):
                log.warning("large chats cannot be asked for", ["error": .init(error)])
                refuse(client, .tryAgainLater, "\(Int.random(in: 500...3000))")
            }
        }
    }

    /// Asks again for a session whose memberships have changed, and then registers it; without an answer what is known has
    /// to do.
    func refreshLargeChats(_ number: SessionNumber, _ session: Session) {
        session.isLargeChatsStale = false
        guard let largeChats, !session.extras.isAskingLargeChats else { return }
        session.extras.isAskingLargeChats = true
        largeChats.ask(session.user) { [weak self] result in
            guard let self, let (_, session) = self.session(number) else { return }
            session.extras.isAskingLargeChats = false
            switch result {
            case .success(let chats): session.extras.largeChats = chats
            case .failure: session.isLargeChatsStale = true
            }
            links.registerAgain(number, session)
        }
    }

    // MARK: send

    private func send(
        _ message: IncomingMessage, _ bytes: [UInt8], _ client: Client, _ session: Session, isPaid: Bool
    ) {
        if !isPaid, let waitMs = takeToken(session) {
            metrics.refused(.rateLimited)
            return client.send(
                ServerFrame.error(.rateLimited, "too many messages", id: message.id, retryAfterMs: waitMs))
        }
        let standing = session.busy?.standings[message.chat]
        // A version that a client names is believed only when Postgres knows it, or any client could make the join wait.
        let mustAsk = standing == nil || message.metaVersion > standing?.metaVersion ?? 0
        if database != nil, !isPaid, mustAsk {
            return ask(message, bytes, client, session)
        }
        if let standing, !standing.isMember {
            metrics.refused(.notMember)
            return client.send(ServerFrame.error(.notMember, "not a member of this chat", id: message.id))
        }
        var message = message
        message.from = session.user
        message.device = session.device
        message.metaVersion = standing?.metaVersion ?? message.metaVersion
        switch writer.send(message, source: bytes.span, for: client.number) {
        case .queued: break
        case .full: overloaded("the log is behind", message.id, client)
        case .tooMuch: overloaded("more is under way than arrives in good time", message.id, client)
        }
    }

    private func overloaded(_ why: StaticString, _ id: MessageID, _ client: Client) {
        metrics.refused(.overloaded)
        let waitMs = Int.random(in: 500...1500)
        client.send(ServerFrame.error(.overloaded, "\(why)", id: id, retryAfterMs: waitMs))
    }

    /// How long to wait, when the user may not send now.
    private func takeToken(_ session: Session) -> Int? {
        if session.scopes.contains(.bot) { return nil }
        let limit = RateLimit(burst: configuration.limits.messages, periodMs: configuration.limits.messagesPerMs)
        let nowMs = Int64(loop.monotonicMs)
        return buckets[session.user, default: TokenBucket(limit, nowMs: nowMs)].take(limit, nowMs: nowMs)
    }

    /// Asks Postgres about the sender and the chat; what the session sends meanwhile waits.
    private func ask(_ message: IncomingMessage, _ bytes: [UInt8], _ client: Client, _ session: Session) {
        guard let database else { return }
        let number = client.number
        let (chat, user) = (message.chat, session.user)
        session.extras.isAsking = true
        database.first(Membership.standing(of: user, in: chat)) { [weak self] result in
            self?.answered(result, chat, bytes, message.id, number)
        }
    }

    private func answered(
        _ result: Result<Membership.Standing?, PostgresError>, _ chat: ChatID, _ bytes: [UInt8], _ id: MessageID,
        _ number: SessionNumber
    ) {
        guard let (client, session) = session(number) else { return }
        let extras = session.extras
        extras.isAsking = false
        switch result {
        case .success(let row):
            let standing = Session.Standing(isMember: row != nil, metaVersion: row?.metaVersion ?? 0)
            // A change that came as an event while the answer was on its way is not undone by it.
            let known = extras.standings[chat]
            if known == nil || standing.metaVersion >= known?.metaVersion ?? 0 { session.remember(chat, standing) }
            handle(bytes, client, session, isPaid: true)
        case .failure(let error):
            log.warning("membership cannot be asked for", ["error": .init(error)])
            overloaded("the database does not answer", id, client)
        }
        var waiting = extras.deferred[...]
        extras.deferred = []
        while !extras.isAsking, session.state != .closing, let next = waiting.popFirst() {
            handle(next, client, session, isPaid: false)
        }
        extras.deferred = Array(waiting) + extras.deferred
        if !extras.isAsking { client.stream?.resumeReading() }
    }

    // MARK: signals

    func signal(_ kind: Wire.Signal.Kind, _ chat: ChatID, _ seq: Int64?, _ session: Session) {
        if session.busy?.standings[chat]?.isMember == false { return }
        guard maySignal(session) else { return }
        let signal = Wire.Signal(
            chat: chat, from: session.user, device: session.device, kind: kind, seq: seq, ts: loop.nowMs)
        if writer.send(signal) { metrics.signals.add() }
    }

    /// The rate of typing and receipts; over it nothing happens.
    private func maySignal(_ session: Session) -> Bool {
        take(\.signals, of: session, burst: configuration.limits.signals) == nil
    }

    /// How long to wait, when no more watches may begin now. A device that has reconnected watches all at once whom it has
    /// watched before, so that as many are always allowed.
    func takeWatch(_ session: Session) -> Int? {
        take(\.watchTokens, of: session, burst: configuration.limits.watchesMax)
    }

    private func take(
        _ tokens: ReferenceWritableKeyPath<Session.Busy, TokenBucket?>, of session: Session, burst: Int
    ) -> Int? {
        let limit = RateLimit(burst: burst, periodMs: configuration.limits.signalsPerMs)
        let nowMs = Int64(loop.monotonicMs)
        let extras = session.extras
        var bucket = extras[keyPath: tokens] ?? TokenBucket(limit, nowMs: nowMs)
        defer { extras[keyPath: tokens] = bucket }
        return bucket.take(limit, nowMs: nowMs)
    }
}
