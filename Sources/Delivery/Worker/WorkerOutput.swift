public import PushLink
import Wire

/// What a worker has for the log: pushes for people who are offline, records that it had to refuse, and presence. Each
/// gathers within bounds; at a bound no more records are read (`isBlocked`) until the log has taken some.
extension DeliveryWorker {
    static let rejectedMax = 1_000
    static let outputsInFlightMax = 50_000
    /// Presence changes handled a tick.
    private static let presencePerTick = 1_000
    /// Presence records kept for a producer that is full; more wait in their partitions.
    private static let presenceWaitingMax = 10_000

    var isOutputFull: Bool {
        push.isFull || rejected.count >= Self.rejectedMax || outputsInFlight.count >= Self.outputsInFlightMax
    }

    /// Something has been handed over for the log; before it is there, nothing from its place on may be committed.
    private func begin(_ partition: Int32, _ offset: Int64) -> UInt64 {
        lastOutput += 1
        outputsInFlight[lastOutput] = (partition, offset)
        return lastOutput
    }

    /// The log has it, or never will.
    public func outputDone(_ tag: UInt64) { outputsInFlight[tag] = nil }

    // MARK: - Pushes

    func pushLater(_ slot: Int, _ cursor: Cursor, _ nowMs: Int64) {
        if settings.makesPushes {
            let event = partitions[slot].window.withLastPayload { [UInt8](copying: $0) }
            pushLater(slot, users: offline, cursor.offset, event, nowMs)
        }
        offline.removeAll(keepingCapacity: true)
    }

    func pushLater(_ slot: Int, users: [Int], _ offset: Int64, _ event: [UInt8], _ nowMs: Int64) {
        guard settings.makesPushes else { return }
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
    /// not sent is told of by push. What the window no longer has was told of when it left (`takeUnseen`).
    func pushMissed(_ slot: Int, _ left: [DeliveryPartition.Left], from offset: Int64, _ nowMs: Int64) {
        guard settings.makesPushes else { return }
        let after = Cursor(offset: max(offset - 1, partitions[slot].window.start.offset), timestamp: 0)
        for (user, largeChats) in left {
            var missed: [(Int64, [UInt8])] = []
            _ = partitions[slot].window.fill(
                user: user, largeChats: largeChats, after: after, through: partitions[slot].routed.offset,
                bytesMax: .max
            ) { offset, kind, payload in
                if kind == .message { missed.append((offset, [UInt8](copying: payload))) }
            }
            for (offset, event) in missed { pushLater(slot, users: [user], offset, event, nowMs) }
        }
    }

    /// Takes the pushes that are due; each is to be told done by `outputDone`. Where a user may have a session that we have
    /// not been told of, they wait, and with them what may be committed.
    public func takePushes(nowMs: Int64, limit: Int) -> [(tag: UInt64, entry: PushCoalescer.Entry)] {
        let uncertain = uncertainPartitions(nowMs: nowMs)
        return push.take(nowMs: nowMs, limit: limit, holding: uncertain) { user, partition in
            guard let slot = slot(partition), let number = partitions[slot].users.find(user) else { return false }
            return partitions[slot].router.isOnline(user: number)
        }.map { entry, partition, offset in
            counts.pushes += 1
            return (begin(partition, offset), entry)
        }
    }

    // MARK: - Refused records

    func reject(_ partition: Int32, _ cursor: Cursor, _ value: Span<UInt8>, _ reason: String) {
        counts.rejected += 1
        let shown = value.extracting(0..<min(value.count, RejectedRecord.bytesMax + 1))
        rejected.append(
            RejectedDelivery(
                partition: partition, offset: cursor.offset, reason: reason, record: [UInt8](copying: shown)))
    }

    /// Each is to be told done by `outputDone`.
    public func takeRejected() -> [(tag: UInt64, record: RejectedDelivery)] {
        var taken: [RejectedDelivery] = []
        swap(&taken, &rejected)
        return taken.map { (begin($0.partition, $0.offset), $0) }
    }

    // MARK: - Presence

    /// Presence changes to be written to `chat.presence`.
    public func takePresence() -> [PresenceNotice] {
        var taken: [PresenceNotice] = []
        swap(&taken, &presence)
        return taken
    }

    func changePresence(_ nowMs: Int64) {
        guard presence.count < Self.presenceWaitingMax else { return }
        var notices: [Int: [PresenceNotice]] = [:]
        var left = Self.presencePerTick
        for slot in partitions.indices where left > 0 && partitions[slot].phase == .live {
            for change in partitions[slot].presence.takeChanges(nowMs: nowMs, limit: left) {
                left -= 1
                counts.presenceChanges += 1
                let notice = partitions[slot].notice(of: partitions[slot].users.ids[change.user])
                presence.append(notice)
                for number in partitions[slot].watchers.of(notice.user) { notices[number, default: []].append(notice) }
            }
        }
        for (number, notices) in notices {
            // Presence goes before messages: what changes while a link is full is told once it has drained, as it is then.
            if instances[number]?.fullSinceMs == nil {
                instances[number]?.link?.send(.presence(notices))
            } else {
                instances[number]?.unheardPresence.formUnion(notices.map(\.user))
            }
        }
    }

    func tellUnheardPresence(_ number: Int) {
        guard let users = instances[number]?.unheardPresence, !users.isEmpty else { return }
        instances[number]?.unheardPresence = []
        let notices = users.sorted().compactMap { user in
            slot(user.partition(count: settings.partitionCount)).map { partitions[$0].notice(of: user) }
        }
        if !notices.isEmpty { instances[number]?.link?.send(.presence(notices)) }
    }
}
