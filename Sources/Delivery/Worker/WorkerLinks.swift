public import PushLink
import Runtime
import Wire

/// The worker's end of its links: what instances say, and what they are answered.
extension DeliveryWorker {
    /// The connection stands; the handshake begins.
    public func linkConnected(_ number: Int, nonce: [UInt8], nowMs: Int64) {
        guard instances[number]?.isConnecting == true else { return }
        instances[number]?.isConnecting = false
        // Somebody listens there, though the handshake may yet be refused.
        instances[number]?.hasSpoken = true
        instances[number]?.link = WorkerLink(
            identity: settings.identity, secret: settings.secret, nonce: nonce, nowMs: nowMs)
    }

    /// The connection has ended, or could not be made.
    public func linkEnded(_ number: Int, reason: String = "the connection has ended", nowMs: Int64) {
        guard number < instances.count, instances[number] != nil else { return }
        instances[number]?.failure = reason
        lost(number, nowMs)
    }

    /// Why a link is over, for the log.
    public func linkReceived(_ number: Int, _ bytes: Span<UInt8>, nowMs: Int64) -> LinkError? {
        guard instances[number]?.link != nil else { return nil }
        instances[number]?.link?.receive(bytes, nowMs: nowMs)
        do throws(LinkError) {
            while let event = try instances[number]?.link?.next() {
                switch event {
                case .opened(let identity): try opened(number, identity, nowMs)
                case .message(let message): take(message, from: number, nowMs)
                }
            }
            return nil
        } catch {
            instances[number]?.failure = error.message
            disconnect(number, nowMs)
            return error
        }
    }

    public func hasOutput(_ number: Int) -> Bool { (instances[number]?.link?.outputByteCount ?? 0) > 0 }

    public func takeOutput(_ number: Int, nowMs: Int64) -> [UInt8] {
        instances[number]?.link?.takeOutput(nowMs: nowMs) ?? []
    }

    public func isLinkOpen(_ number: Int) -> Bool { number < instances.count && instances[number]?.isOpen == true }

    private func opened(_ number: Int, _ identity: LinkIdentity, _ nowMs: Int64) throws(LinkError) {
        guard let state = instances[number], state.identity.name == identity.name else {
            let error = LinkError(.protocolViolation, "\(identity.name) answers at another instance's address")
            instances[number]?.link?.close(error)
            throw error
        }
        if state.identity.epoch != identity.epoch {
            // It has started again and its announcement is still on the way: its sessions are new ones.
            forgetSessions(number, nowMs)
            instances[number]?.identity = identity
        }
        instances[number]?.generation &+= 1
        instances[number]?.lastHeardMs = state.lostMs
        instances[number]?.lostMs = nil
        instances[number]?.connectDelayMs = 0
        instances[number]?.heard = []
        instances[number]?.failure = nil
        instances[number]?.isGivenUp = false
        var claims: [PartitionClaim] = []
        for slot in partitions.indices {
            partitions[slot].watchers.remove(number)
            if partitions[slot].phase != .restoring {
                claims.append(PartitionClaim(partition: partitions[slot].number, term: partitions[slot].term))
            }
        }
        if !claims.isEmpty {
            instances[number]?.link?.send(.claim(partitionCount: settings.partitionCount, claims))
        }
    }

    private func take(_ message: InstanceMessage, from number: Int, _ nowMs: Int64) {
        switch message {
        case .register(let request, let partition, let isLast, let sessions):
            register(sessions, request, partition, isLast, from: number, nowMs)
        case .unregister(let partition, let sessions):
            guard let slot = slot(partition) else { return }
            for session in sessions { partitions[slot].unregister(instance: number, number: session, nowMs: nowMs) }
        case .acknowledge: drained(number, nowMs)
        case .fill(let fill): instances[number]?.fills.append(fill)
        case .watch(let users): watch(users, from: number)
        case .unwatch(let users):
            for user in users {
                guard let slot = slot(user.partition(count: settings.partitionCount)) else { continue }
                partitions[slot].watchers.remove(number, of: user)
            }
        case .storeCursors(let list):
            for entry in list { cursors.store(DeviceKey(user: entry.user, device: entry.device), entry.cursor) }
        case .lookUpCursor(let request, let user, let device):
            let key = DeviceKey(user: user, device: device)
            if let cursor = cursors.recall(key) {
                instances[number]?.link?.send(.storedCursor(request: request, .found(cursor)))
            } else {
                let generation = instances[number]?.generation ?? 0
                act(.lookUp(CursorLookUp(instance: number, generation: generation, request: request, device: key)))
            }
        case .refused(let partition, let term):
            guard let slot = slot(partition), term >= partitions[slot].term, term < .max else { return }
            act(.raiseTerm(partition: partition, term: term + 1))
        case .heartbeat, .goodbye: break
        }
    }

    private func register(
        _ sessions: [SessionRegistration], _ request: UInt32, _ partition: Int32, _ isLast: Bool, from number: Int,
        _ nowMs: Int64
    ) {
        guard let slot = slot(partition), partitions[slot].phase != .restoring,
            let generation = instances[number]?.generation
        else {
            instances[number]?.link?.send(.release([partition]))
            return
        }
        for session in sessions {
            let overtaken = partitions[slot].register(
                session, instance: number, generation: generation, nowMs: nowMs
            ) { instances[$0]?.identity.name ?? "" > instances[$1]?.identity.name ?? "" }
            // Before the answer, which is not for a session that has ended. An instance without a link names its sessions
            // again on the next one, and is told then.
            for old in overtaken {
                instances[old.instance]?.link?.send(.takenOver(partition: partition, old.number))
            }
        }
        let routed = partitions[slot].routed
        instances[number]?.link?.send(.registered(request: request, partition: partition, liveAfter: routed))
        for session in sessions {
            guard let after = session.after else { continue }
            switch partitions[slot].isForeign(after) {
            case false?: break
            case true?:
                instances[number]?.link?.send(
                    .cannotFill(request: FillRequest.unasked, session: session.number, .foreign, windowStart: routed))
            case nil:
                if doubtful[partition] == nil { act(.askEnd(partition: partition)) }
                doubtful[partition, default: []].append((number, session.number, after))
            }
        }
        if isLast {
            sweep(number, slot, keeping: generation, seenMs: instances[number]?.lastHeardMs, nowMs)
            heard(number, partition, nowMs)
        }
    }

    /// The answer to `.askEnd`: a cursor beyond the log's end is of another life of the topic. What its session has dropped
    /// meanwhile is part of what History serves up to the place told here.
    public func logEnds(_ partition: Int32, at offset: Int64) {
        guard let doubts = doubtful.removeValue(forKey: partition), let slot = slot(partition) else { return }
        partitions[slot].logEnds(at: offset)
        let routed = partitions[slot].routed
        for doubt in doubts where doubt.cursor.offset >= partitions[slot].knownEnd {
            instances[doubt.instance]?.link?.send(
                .cannotFill(request: FillRequest.unasked, session: doubt.session, .foreign, windowStart: routed))
        }
    }

    private func watch(_ users: [UserID], from number: Int) {
        var notices: [PresenceNotice] = []
        for id in users {
            guard let slot = slot(id.partition(count: settings.partitionCount)) else { continue }
            partitions[slot].watchers.add(number, of: id)
            notices.append(partitions[slot].notice(of: id))
        }
        if !notices.isEmpty { instances[number]?.link?.send(.presence(notices)) }
    }

    public func answerLookUp(_ lookUp: CursorLookUp, _ stored: StoredCursor) {
        if case .found(let cursor) = stored, cursors.recall(lookUp.device) == nil {
            cursors.remember(lookUp.device, cursor)
        }
        guard instances[lookUp.instance]?.generation == lookUp.generation else { return }
        instances[lookUp.instance]?.link?.send(.storedCursor(request: lookUp.request, stored))
    }

    // MARK: - Fills

    public func hasFills(_ number: Int) -> Bool { instances[number]?.fills.isEmpty == false }

    /// Answers waiting fills until `room` bytes are written: a storm of devices coming back is served as fast as the link
    /// takes it, and waits as requests, not as events.
    public func serveFills(_ number: Int, room: Int) {
        while let link = instances[number]?.link, link.isOpen, link.outputByteCount < room,
            instances[number]?.fills.isEmpty == false, let fill = instances[number]?.fills.removeFirst()
        {
            serve(fill, number)
        }
    }

    private func serve(_ fill: FillRequest, _ number: Int) {
        guard let slot = slot(fill.partition),
            let session = partitions[slot].session(instance: number, number: fill.session)
        else { return refuse(fill, number, .unknownSession, .start) }
        let window = partitions[slot].window
        if let refusal = window.refusal(user: session.user, largeChats: session.largeChats, after: fill.after) {
            return refuse(fill, number, refusal, window.start)
        }
        let through = min(fill.through, partitions[slot].routed.offset)
        instances[number]?.link?.sendPage(request: fill.request, session: fill.session) { append in
            let answer = window.fill(
                user: session.user, device: session.device, largeChats: session.largeChats, after: fill.after,
                through: through, bytesMax: min(Int(fill.bytesMax), 256 << 10), append)
            guard case .served(let upTo, let isLast) = answer else { preconditionFailure("a fill that was allowed") }
            return (upTo, isLast)
        }
        counts.fillsServed += 1
    }

    private func refuse(_ fill: FillRequest, _ number: Int, _ reason: FillRefusal, _ start: Cursor) {
        counts.fillsRefused += 1
        instances[number]?.link?.send(
            .cannotFill(request: fill.request, session: fill.session, reason, windowStart: start))
    }
}
