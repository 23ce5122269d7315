public import PushLink
public import Wire

/// A Delivery worker without its handles: partitions, links and people, driven by what the runner reads from the log and
/// from sockets, and by its clock. It does no I/O of its own, so a whole cluster of them can be simulated on one thread.
///
/// The runner calls `take` for each record, `linkReceived` for bytes of a link, `tick` a few times a second; after each
/// turn it carries out `takeActions`, writes each link's `takeOutput`, and produces what `takePresence`, `takePushes`
/// and `takeRejected` answer. Continued in `WorkerInstances`, `WorkerLinks` and `WorkerOutput`.
public final class DeliveryWorker {
    public let settings: DeliverySettings
    public internal(set) var counts = DeliveryCounts()

    var partitions: [DeliveryPartition] = []
    private var slots: [Int]
    var instances: [InstanceState?] = []
    var instanceNumbers: [String: Int] = [:]
    public internal(set) var isDirectoryRead = false

    private var targets = Targets()
    /// Of the present record's instances, those that it could not be sent to.
    private var absent: [Int] = []
    var offline: [Int] = []

    private var actions: [DeliveryAction] = []
    var rejected: [RejectedDelivery] = []
    var presence: [PresenceNotice] = []
    var push: PushCoalescer
    /// Records on their way to the log, each for a place before which it must be there.
    var outputsInFlight: [UInt64: (partition: Int32, offset: Int64)] = [:]
    var lastOutput: UInt64 = 0
    var dedupeSnapshots: [Int32: DedupeSnapshot] = [:]
    public var cursors = DeviceCursors()
    /// Sessions whose cursor lies beyond what the log is known to hold.
    var doubtful: [Int32: [(instance: Int, session: SessionNumber, cursor: Cursor)]] = [:]
    var nextProgressMs: Int64 = 0

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
    public func log(of partition: Int32) -> LogIdentity? { slot(partition).flatMap { partitions[$0].log } }
    public var sessionCount: Int { partitions.reduce(0) { $0 + $1.router.count } }
    /// Users of whom anything is kept.
    public var knownUserCount: Int { partitions.reduce(0) { $0 + $1.users.count } }
    public var windowByteCount: Int { partitions.reduce(0) { $0 + $1.window.byteCount } }

    func slot(_ partition: Int32) -> Int? {
        guard partition >= 0, Int(partition) < slots.count, slots[Int(partition)] >= 0 else { return nil }
        return slots[Int(partition)]
    }

    /// Takes a partition over: its records come from `readsFrom` on, the window keeps them from `remembersFrom` on, and they
    /// are delivered from `liveFrom` on.
    public func own(
        _ partition: Int32, term: UInt64, log: LogIdentity? = nil, readsFrom: Int64, remembersFrom: Int64,
        liveFrom: Int64, knownEnd: Int64, saved: (state: SourceDedupe, offset: Int64)?, awaitsPresence: Bool = false,
        nowMs: Int64
    ) {
        precondition(slot(partition) == nil, "partition \(partition) is owned already")
        slots[Int(partition)] = partitions.count
        partitions.append(
            DeliveryPartition(
                number: partition, term: term, log: log, readsFrom: readsFrom, remembersFrom: remembersFrom,
                liveFrom: liveFrom, knownEnd: knownEnd, saved: saved, awaitsPresence: awaitsPresence, windowBytesMax: 0,
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
        outputsInFlight = outputsInFlight.filter { $0.value.partition != partition }
        rejected.removeAll { $0.partition == partition }
        dedupeSnapshots[partition] = nil
        doubtful[partition] = nil
        for number in instances.indices {
            instances[number]?.heard.remove(partition)
            instances[number]?.told.remove(partition)
            instances[number]?.missed.remove(partition)
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

    private func finishIfRestored(_ slot: Int, _ nowMs: Int64) {
        if partitions[slot].phase == .restoring, partitions[slot].isRestored { finishRestoring(slot, nowMs) }
    }

    private func finishRestoring(_ slot: Int, _ nowMs: Int64) {
        partitions[slot].phase = .hearing(deadlineMs: nowMs + settings.hearingMs)
        partitions[slot].dateStart(nowMs: nowMs)
        let claim = [PartitionClaim(partition: partitions[slot].number, term: partitions[slot].term)]
        for number in instances.indices {
            instances[number]?.link?.send(.claim(partitionCount: settings.partitionCount, claim))
        }
        startIfHeard(slot, nowMs)
    }

    func startIfHeard(_ slot: Int, _ nowMs: Int64) {
        guard case .hearing(let deadline) = partitions[slot].phase else { return }
        let partition = partitions[slot].number
        let isHeard = instances.allSatisfy { instance in
            guard let instance else { return true }
            return instance.heard.contains(partition) || instance.isGivenUp
                || !instance.hasSpoken && instance.failure != nil
        }
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
            partitions[slot].skip(cursor)
            if cursor.offset >= partitions[slot].liveFrom {
                reject(partition, cursor, value, "\(value.count) bytes are more than \(Self.eventByteCountMax)")
            }
            finishIfRestored(slot, nowMs)
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
            for unseen in partitions[slot].takeUnseen() {
                pushLater(slot, users: unseen.users, unseen.offset, unseen.event, nowMs)
            }
        case .restored: break
        case .duplicate: counts.duplicates += 1
        // Of before: a former owner has refused it.
        case .rejected where cursor.offset < partitions[slot].liveFrom: break
        case .rejected(let error): reject(partition, cursor, value, "\(error)")
        }
        finishIfRestored(slot, nowMs)
        return .taken
    }

    /// Copies the event once for each link and names the sessions there.
    private func send(_ slot: Int, _ cursor: Cursor, _ kind: EventKind, _ nowMs: Int64) {
        let partition = partitions[slot].number
        partitions[slot].window.withLastPayload { payload in
            for number in targets.instances {
                guard instances[number]?.takesRecords(of: partition) == true else {
                    absent.append(number)
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
        guard !absent.isEmpty else { return }
        // Whoever is connected there fills the gap when the link is back, or has drained.
        if !kind.isDroppable { for number in absent { miss(number, slot, cursor.offset) } }
        absent.removeAll(keepingCapacity: true)
    }

    private func miss(_ number: Int, _ slot: Int, _ offset: Int64) {
        partitions[slot].hold(for: number, from: offset)
        if instances[number]?.isOpen == true { instances[number]?.missed.insert(partitions[slot].number) }
    }

    public func takeActions() -> [DeliveryAction] {
        var taken: [DeliveryAction] = []
        swap(&taken, &actions)
        return taken
    }

    func act(_ action: DeliveryAction) { actions.append(action) }
}
