public import PushLink
public import Wire

/// A Delivery worker without its handles: partitions, links and people, driven by what the runner reads from the log and
/// from sockets, and by its clock. It does no I/O of its own, so a whole cluster of them can be simulated on one thread.
///
/// The runner calls `take` for each record, `linkReceived` for bytes of a link, `tick` a few times a second; after each
/// turn it carries out `takeActions`, writes each link's `takeOutput`, and produces what `takePresence`, `takePushes`
/// and `takeRejected` answer.
public final class DeliveryWorker {
    public let settings: DeliverySettings
    public internal(set) var counts = DeliveryCounts()

    var partitions: [DeliveryPartition] = []
    private var slots: [Int]
    var instances: [InstanceState?] = []
    private var instanceNumbers: [String: Int] = [:]
    private var isDirectoryRead = false

    private var targets = Targets()
    private var offline: [Int] = []
    private var isFull = false

    private var actions: [DeliveryAction] = []
    private var rejected: [RejectedDelivery] = []
    private var presence: [PresenceNotice] = []
    var push: PushCoalescer
    var pushesInFlight: [UInt64: (partition: Int32, offset: Int64)] = [:]
    private var nextPush: UInt64 = 0
    var dedupeSnapshots: [Int32: DedupeSnapshot] = [:]
    public var cursors = DeviceCursors()
    /// Sessions whose cursor lies beyond what the log is known to hold.
    var doubtful: [Int32: [(instance: Int, session: SessionNumber, cursor: Cursor)]] = [:]
    private var nextProgressMs: Int64 = 0

    /// Presence changes handled a tick.
    private static let presencePerTick = 1_000
    /// Presence records kept for a producer that is full; more wait in their partitions.
    private static let presenceWaitingMax = 10_000
    private static let progressEveryMs: Int64 = 500
    /// An event with more bytes than this could not be carried by a link; no client can make one.
    static let eventByteCountMax = 512 << 10
    static let sessionsPerBatch = 32_768

    public init(_ settings: DeliverySettings) {
        self.settings = settings
        slots = [Int](repeating: -1, count: Int(settings.partitionCount))
        push = PushCoalescer(windowMs: settings.pushWindowMs)
    }

    // MARK: - Partitions

    /// The numbers of the partitions owned now.
    public var owned: [Int32] { partitions.map(\.number) }
    public func phase(of partition: Int32) -> DeliveryPartition.Phase? { slot(partition).map { partitions[$0].phase } }
    public func routed(_ partition: Int32) -> Cursor? { slot(partition).map { partitions[$0].routed } }
    public var sessionCount: Int { partitions.reduce(0) { $0 + $1.router.count } }
    public var windowByteCount: Int { partitions.reduce(0) { $0 + $1.window.byteCount } }

    private func slot(_ partition: Int32) -> Int? {
        guard partition >= 0, Int(partition) < slots.count, slots[Int(partition)] >= 0 else { return nil }
        return slots[Int(partition)]
    }

    /// Takes a partition over: its records come from `readsFrom` on, the window keeps them from `remembersFrom` on, and they
    /// are delivered from `liveFrom` on.
    public func own(
        _ partition: Int32, term: UInt64, readsFrom: Int64, remembersFrom: Int64, liveFrom: Int64, knownEnd: Int64,
        saved: (state: SourceDedupe, offset: Int64)?, awaitsPresence: Bool = false, nowMs: Int64
    ) {
        precondition(slot(partition) == nil, "partition \(partition) is owned already")
        slots[Int(partition)] = partitions.count
        partitions.append(
            DeliveryPartition(
                number: partition, term: term, readsFrom: readsFrom, remembersFrom: remembersFrom, liveFrom: liveFrom,
                knownEnd: knownEnd, saved: saved, awaitsPresence: awaitsPresence, windowBytesMax: 0,
                presenceGraceMs: settings.presenceGraceMs))
        shareWindow()
        if partitions[partitions.count - 1].isRestored { finishRestoring(partitions.count - 1, nowMs) }
    }

    /// Gives a partition up. Commit before; whoever has it next starts there.
    public func disown(_ partition: Int32) {
        guard let slot = slot(partition) else { return }
        slots[Int(partition)] = -1
        let last = partitions.count - 1
        if slot != last {
            partitions[slot] = partitions[last]
            slots[Int(partitions[slot].number)] = slot
        }
        partitions.removeLast()
        push.remove(partition: partition)
        pushesInFlight = pushesInFlight.filter { $0.value.partition != partition }
        dedupeSnapshots[partition] = nil
        doubtful[partition] = nil
        for number in instances.indices {
            instances[number]?.heldFrom[partition] = nil
            instances[number]?.heard.remove(partition)
            instances[number]?.link?.send(.release([partition]))
        }
        shareWindow()
    }

    private func shareWindow() {
        for slot in partitions.indices {
            partitions[slot].window.bytesMax = settings.windowBytesMax / max(1, partitions.count)
        }
    }

    /// `chat.presence` has told all it has of this partition: only now can watchers be answered.
    public func presenceRead(_ partition: Int32, nowMs: Int64) {
        guard let slot = slot(partition), partitions[slot].awaitsPresence else { return }
        partitions[slot].awaitsPresence = false
        if partitions[slot].isRestored { finishRestoring(slot, nowMs) }
    }

    /// The log has nothing before `nextOffset` that has not come.
    public func reachedEnd(of partition: Int32, nextOffset: Int64, nowMs: Int64) {
        guard let slot = slot(partition), partitions[slot].phase == .restoring else { return }
        // No further than where delivery begins: the runner may hold records from there on that are still to be taken.
        partitions[slot].skip(to: min(nextOffset, partitions[slot].liveFrom))
        if partitions[slot].isRestored { finishRestoring(slot, nowMs) }
    }

    private func finishRestoring(_ slot: Int, _ nowMs: Int64) {
        partitions[slot].phase = .hearing(deadlineMs: nowMs + settings.hearingMs)
        let claim = [PartitionClaim(partition: partitions[slot].number, term: partitions[slot].term)]
        for number in instances.indices {
            instances[number]?.link?.send(.claim(partitionCount: settings.partitionCount, claim))
        }
        startIfHeard(slot, nowMs)
    }

    private func startIfHeard(_ slot: Int, _ nowMs: Int64) {
        guard case .hearing(let deadline) = partitions[slot].phase else { return }
        let partition = partitions[slot].number
        let isHeard = instances.allSatisfy { $0 == nil || $0?.heard.contains(partition) == true }
        guard nowMs >= deadline || isDirectoryRead && isHeard else { return }
        partitions[slot].phase = .live
        actions.append(.resume(partition: partition))
    }

    /// The term that was asked for by `.raiseTerm` is committed.
    public func raiseTerm(of partition: Int32, to term: UInt64) {
        guard let slot = slot(partition), term > partitions[slot].term else { return }
        partitions[slot].term = term
        guard partitions[slot].phase != .restoring else { return }
        for number in instances.indices {
            instances[number]?.link?.send(
                .claim(
                    partitionCount: settings.partitionCount, [PartitionClaim(partition: partition, term: term)]))
        }
    }

    public func restorePresence(
        _ partition: Int32, of user: UserID, status: PresenceStatus, lastSeen: Int64, nowMs: Int64
    ) {
        guard let slot = slot(partition) else { return }
        partitions[slot].restorePresence(of: user, status: status, lastSeen: lastSeen, nowMs: nowMs)
    }

    // MARK: - Records

    public enum Taken: Equatable, Sendable {
        case taken
        /// The chat servers have yet to tell their sessions: offer it again after `.resume`.
        case notYet
        case notOwned
    }

    /// Takes the next record of a partition and sends it to every session that it is for.
    public func take(
        _ partition: Int32, _ cursor: Cursor, value: Span<UInt8>, source: Span<UInt8>?, nowMs: Int64
    ) -> Taken {
        guard let slot = slot(partition) else { return .notOwned }
        guard cursor.offset > partitions[slot].routed.offset else { return .taken }
        if cursor.offset >= partitions[slot].liveFrom {
            if partitions[slot].phase == .restoring {
                partitions[slot].skip(to: partitions[slot].liveFrom)
                if partitions[slot].isRestored { finishRestoring(slot, nowMs) }
            }
            guard partitions[slot].phase == .live else { return .notYet }
        }
        guard value.count <= Self.eventByteCountMax else {
            partitions[slot].skip(to: cursor.offset + 1)
            reject(partition, cursor, value, "\(value.count) bytes are more than \(Self.eventByteCountMax)")
            return .taken
        }
        let outcome = partitions[slot].take(
            cursor, value: value, source: source, windowFrom: nowMs - settings.windowAgeMs, targets: &targets,
            offline: &offline)
        counts.records += 1
        switch outcome {
        case .routed(let kind):
            if !targets.instances.isEmpty { send(slot, cursor, kind, nowMs) }
            if !offline.isEmpty { pushLater(slot, cursor, nowMs) }
        case .restored:
            if partitions[slot].isRestored { finishRestoring(slot, nowMs) }
        case .duplicate:
            counts.duplicates += 1
            if partitions[slot].phase == .restoring, partitions[slot].isRestored { finishRestoring(slot, nowMs) }
        case .rejected(let error):
            reject(partition, cursor, value, "\(error)")
            if partitions[slot].phase == .restoring, partitions[slot].isRestored { finishRestoring(slot, nowMs) }
        }
        return .taken
    }

    /// Copies the event once for each link and names the sessions there.
    private func send(_ slot: Int, _ cursor: Cursor, _ kind: EventKind, _ nowMs: Int64) {
        let partition = partitions[slot].number
        partitions[slot].window.withLastPayload { payload in
            for number in targets.instances {
                guard instances[number]?.isOpen == true else {
                    // Whoever is connected there fills the gap when the link is back.
                    if !kind.isDroppable { instances[number]?.hold(partition, from: cursor.offset) }
                    continue
                }
                if kind.isDroppable, instances[number]?.fullSinceMs != nil {
                    counts.droppedTyping += 1
                    continue
                }
                let sessions = targets.sessions(of: number)
                var start = 0
                while start < sessions.count {
                    let end = min(start + Self.sessionsPerBatch, sessions.count)
                    instances[number]?.link?.sendBatch(
                        partition: partition, cursor: cursor, kind: kind,
                        sessions: sessions.span.extracting(start..<end), payload: payload)
                    counts.batches += 1
                    start = end
                }
                counts.deliveries += sessions.count
                noteFullness(number, nowMs)
            }
        }
        targets.removeAll()
    }

    private func reject(_ partition: Int32, _ cursor: Cursor, _ value: Span<UInt8>, _ reason: String) {
        counts.rejected += 1
        rejected.append(
            RejectedDelivery(
                partition: partition, offset: cursor.offset, reason: reason, record: [UInt8](copying: value)))
    }

    private func noteFullness(_ number: Int, _ nowMs: Int64) {
        guard let link = instances[number]?.link else { return }
        let isFull = link.inFlightByteCount > settings.linkBytesMax
        if isFull, instances[number]?.fullSinceMs == nil {
            instances[number]?.fullSinceMs = nowMs
        } else if !isFull {
            instances[number]?.fullSinceMs = nil
        }
    }

    /// Whether a link is full: no further records should be offered until it has drained or been given up, which
    /// takes at most `stuckMs`.
    public var isBlocked: Bool { instances.contains { $0?.fullSinceMs != nil } }

    // MARK: - People who are offline

    private func pushLater(_ slot: Int, _ cursor: Cursor, _ nowMs: Int64) {
        if settings.makesPushes {
            let event = partitions[slot].window.withLastPayload { [UInt8](copying: $0) }
            pushLater(slot, users: offline, cursor.offset, event, nowMs)
        }
        offline.removeAll(keepingCapacity: true)
    }

    private func pushLater(_ slot: Int, users: [Int], _ offset: Int64, _ event: [UInt8], _ nowMs: Int64) {
        let head = EventHead(event.span)
        guard head.isNewMessage, let chat = head.chat else { return }
        for user in users {
            let id = partitions[slot].users.ids[user]
            // The sender knows.
            guard id != head.from else { continue }
            push.add(
                user: id, chat: chat, partition: partitions[slot].number, offset: offset, event: event, nowMs: nowMs)
        }
    }

    /// Users who turn out to have no session left, after records were held for an instance that is gone: what they were
    /// not sent is told of by push.
    private func pushMissed(_ slot: Int, users: [Int], from offset: Int64, _ nowMs: Int64) {
        guard settings.makesPushes else { return }
        let after = Cursor(offset: offset - 1, timestamp: 0)
        for user in users {
            var missed: [(Int64, [UInt8])] = []
            _ = partitions[slot].window.fill(
                user: user, largeChats: [], after: after, through: partitions[slot].routed.offset, bytesMax: .max
            ) { offset, kind, payload in
                if kind == .message { missed.append((offset, [UInt8](copying: payload))) }
            }
            for (offset, event) in missed { pushLater(slot, users: [user], offset, event, nowMs) }
        }
    }

    /// Takes the pushes that are due; each is to be told done by `pushDone` once the log has it.
    public func takePushes(nowMs: Int64, limit: Int) -> [(tag: UInt64, entry: PushCoalescer.Entry)] {
        push.take(nowMs: nowMs, limit: limit).map { entry, partition, offset in
            nextPush += 1
            pushesInFlight[nextPush] = (partition, offset)
            counts.pushes += 1
            return (nextPush, entry)
        }
    }

    public func pushDone(_ tag: UInt64) { pushesInFlight[tag] = nil }

    public func takeRejected() -> [RejectedDelivery] {
        var taken: [RejectedDelivery] = []
        swap(&taken, &rejected)
        return taken
    }

    /// Presence changes to be written to `chat.presence`.
    public func takePresence() -> [PresenceNotice] {
        var taken: [PresenceNotice] = []
        swap(&taken, &presence)
        return taken
    }

    public func takeActions() -> [DeliveryAction] {
        var taken: [DeliveryAction] = []
        swap(&taken, &actions)
        return taken
    }

    func act(_ action: DeliveryAction) { actions.append(action) }

    // MARK: - The directory of instances

    public func instanceNumber(_ name: String) -> Int? { instanceNumbers[name] }
    public var instanceCount: Int { instanceNumbers.count }

    /// `chat.instances` has been read to its end.
    public func directoryRead(nowMs: Int64) {
        isDirectoryRead = true
        for slot in partitions.indices { startIfHeard(slot, nowMs) }
    }

    /// An instance has announced itself.
    public func announced(_ identity: LinkIdentity, address: String, nowMs: Int64) {
        guard let number = instanceNumbers[identity.name] else {
            var state = InstanceState(identity: identity, address: address, announcedMs: nowMs)
            state.lostMs = nowMs
            let number = instances.firstIndex { $0 == nil } ?? instances.count
            if number == instances.count { instances.append(state) } else { instances[number] = state }
            instanceNumbers[identity.name] = number
            return connectIfDue(number, nowMs)
        }
        instances[number]?.announcedMs = nowMs
        instances[number]?.address = address
        // A record of an earlier life may still be read; should epochs not rise, the new link tells of the restart.
        if let known = instances[number]?.identity.epoch, identity.epoch > known { restarted(number, identity, nowMs) }
    }

    private func restarted(_ number: Int, _ identity: LinkIdentity, _ nowMs: Int64) {
        disconnect(number, nowMs)
        forgetSessions(number, nowMs)
        instances[number]?.identity = identity
        instances[number]?.nextConnectMs = nowMs
        connectIfDue(number, nowMs)
    }

    /// An instance has ended in good order.
    public func withdrawn(_ name: String, nowMs: Int64) {
        guard let number = instanceNumbers[name] else { return }
        forget(number, nowMs)
    }

    private func connectIfDue(_ number: Int, _ nowMs: Int64) {
        guard let state = instances[number], state.link == nil, !state.isConnecting, nowMs >= state.nextConnectMs
        else { return }
        instances[number]?.isConnecting = true
        act(.connect(instance: number, address: state.address))
    }

    /// Its sessions are gone for good: their users may be offline now.
    private func forgetSessions(_ number: Int, _ nowMs: Int64) {
        for slot in partitions.indices { sweep(number, slot, keeping: nil, nowMs) }
        instances[number]?.heldFrom = [:]
    }

    /// Forgets the sessions of an instance in one partition, but for those of a generation.
    func sweep(_ number: Int, _ slot: Int, keeping generation: UInt8?, _ nowMs: Int64) {
        let partition = partitions[slot].number
        let left = partitions[slot].removeInstance(number, keeping: generation, nowMs: nowMs)
        if let offset = instances[number]?.heldFrom.removeValue(forKey: partition), !left.isEmpty {
            pushMissed(slot, users: left, from: offset, nowMs)
        }
    }

    private func forget(_ number: Int, _ nowMs: Int64) {
        disconnect(number, nowMs)
        forgetSessions(number, nowMs)
        for slot in partitions.indices { partitions[slot].presence.removeInstance(number) }
        if let name = instances[number]?.identity.name { instanceNumbers[name] = nil }
        instances[number] = nil
        counts.droppedInstances += 1
        for slot in partitions.indices { startIfHeard(slot, nowMs) }
    }

    // MARK: - Time

    /// To be called a few times a second, and when `takeActions` said so.
    public func tick(nowMs: Int64) {
        for number in instances.indices where instances[number] != nil { tick(number, nowMs) }
        for slot in partitions.indices { startIfHeard(slot, nowMs) }
        changePresence(nowMs)
        if nowMs >= nextProgressMs {
            nextProgressMs = nowMs + Self.progressEveryMs
            let progress = partitions.filter { $0.phase == .live }.map {
                PartitionProgress(partition: $0.number, routed: $0.routed)
            }
            if !progress.isEmpty {
                for number in instances.indices { instances[number]?.link?.send(.progress(progress)) }
            }
        }
    }

    private func tick(_ number: Int, _ nowMs: Int64) {
        do throws(LinkError) {
            try instances[number]?.link?.tick(nowMs: nowMs)
        } catch {
            disconnect(number, nowMs)
        }
        if let since = instances[number]?.fullSinceMs, nowMs - since >= settings.stuckMs {
            counts.stuckLinks += 1
            instances[number]?.link?.close(LinkError(.tooSlow, "full for \(nowMs - since) ms"))
            disconnect(number, nowMs)
        }
        guard let state = instances[number] else { return }
        if let lost = state.lostMs {
            let isSilent = nowMs - state.announcedMs >= settings.silentMs && nowMs - lost >= settings.silentMs
            if isSilent || nowMs - lost >= settings.unreachableMs {
                return forget(number, nowMs)
            }
        }
        connectIfDue(number, nowMs)
    }

    private func changePresence(_ nowMs: Int64) {
        guard presence.count < Self.presenceWaitingMax else { return }
        var notices: [Int: [PresenceNotice]] = [:]
        var left = Self.presencePerTick
        for slot in partitions.indices where left > 0 && partitions[slot].phase == .live {
            for change in partitions[slot].presence.takeChanges(nowMs: nowMs, limit: left) {
                left -= 1
                counts.presenceChanges += 1
                let notice = notice(slot, change)
                presence.append(notice)
                for number in partitions[slot].presence.watchers(of: change.user) {
                    notices[Int(number), default: []].append(notice)
                }
            }
        }
        for (number, notices) in notices { instances[number]?.link?.send(.presence(notices)) }
    }

    func notice(_ slot: Int, _ change: Presence.Change) -> PresenceNotice {
        PresenceNotice(
            user: partitions[slot].users.ids[change.user], status: change.status, lastSeen: change.lastSeen)
    }

    // MARK: - Links (continued in WorkerLinks.swift)

    func slotOwned(_ partition: Int32) -> Int? { slot(partition) }

    func heard(_ number: Int, _ partition: Int32, _ nowMs: Int64) {
        instances[number]?.heard.insert(partition)
        if let slot = slot(partition) { startIfHeard(slot, nowMs) }
    }

    func drained(_ number: Int, _ nowMs: Int64) { noteFullness(number, nowMs) }

    /// Ends the link, or the attempt to make one, from this side.
    func disconnect(_ number: Int, _ nowMs: Int64) {
        guard let state = instances[number], state.link != nil || state.isConnecting else { return }
        let farewell = instances[number]?.link?.takeOutput(nowMs: nowMs) ?? []
        lost(number, nowMs)
        act(.disconnect(instance: number, farewell: farewell))
    }

    /// Ends all links, as the last thing before the process ends.
    public func stop(nowMs: Int64) {
        for number in instances.indices {
            instances[number]?.link?.close(LinkError(.stopping, "the worker is stopping"))
            disconnect(number, nowMs)
        }
    }

    /// The link has ended: what was on its way may not have arrived.
    func lost(_ number: Int, _ nowMs: Int64) {
        guard var state = instances[number] else { return }
        if let link = state.link {
            link.forEachInFlight { partition, offset in state.hold(partition, from: offset) }
        }
        state.link = nil
        state.isConnecting = false
        state.heard = []
        state.fills = Ring()
        state.fullSinceMs = nil
        if state.lostMs == nil { state.lostMs = nowMs }
        state.backOff(nowMs: nowMs)
        instances[number] = state
    }
}
