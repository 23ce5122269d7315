import Runtime
public import PushLink
import Wire

/// The chat servers as a worker knows them: who there is, whose link stands, whose is full, and who is given up.
extension DeliveryWorker {
    private static let progressEveryMs: Int64 = 500
    /// How long one that was left behind gets no patience.
    private static let hurryMs: Int64 = 10_000

    // MARK: - The directory

    public func instanceNumber(_ name: String) -> Int? { instanceNumbers[name] }
    public var instanceCount: Int { instanceNumbers.count }

    /// `chat.instances` has been read to its end.
    public func directoryRead(nowMs: Int64) {
        isDirectoryRead = true
        for slot in partitions.indices { startIfHeard(slot, nowMs) }
    }

    /// An instance has announced itself.
    /// - Parameters:
    ///   - workers: those that it names as connected.
    ///   - isPast: it stood in the log already, when that was first read.
    public func announced(
        _ identity: LinkIdentity, address: String, workers: [String] = [], isPast: Bool = false, nowMs: Int64
    ) {
        guard let number = instanceNumbers[identity.name] else {
            var state = InstanceState(identity: identity, address: address, announcedMs: nowMs)
            state.lostMs = nowMs
            state.hasSpoken = !isPast
            state.workers = workers
            let number = instances.firstIndex { $0 == nil } ?? instances.count
            if number == instances.count { instances.append(state) } else { instances[number] = state }
            instanceNumbers[identity.name] = number
            return connectIfDue(number, nowMs)
        }
        instances[number]?.announcedMs = nowMs
        instances[number]?.address = address
        instances[number]?.workers = workers
        if !isPast { instances[number]?.hasSpoken = true }
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

    /// Its sessions are gone for good: their users may be offline, and were last seen when its link was lost. Were it any
    /// later, pushes for what came since would count as seen.
    func forgetSessions(_ number: Int, _ nowMs: Int64) {
        let seenMs = instances[number]?.lostMs
        instances[number]?.told = []
        for slot in partitions.indices { sweep(number, slot, keeping: nil, seenMs: seenMs, nowMs) }
    }

    /// Forgets the sessions of an instance in one partition, but for those of a generation.
    func sweep(_ number: Int, _ slot: Int, keeping generation: UInt8?, seenMs: Int64? = nil, _ nowMs: Int64) {
        let left = partitions[slot].removeInstance(number, keeping: generation, seenMs: seenMs, nowMs: nowMs)
        if let offset = partitions[slot].release(number) { pushMissed(slot, left, from: offset, nowMs) }
    }

    private func forget(_ number: Int, _ nowMs: Int64) {
        disconnect(number, nowMs)
        giveUp(number, nowMs)
        if let name = instances[number]?.identity.name { instanceNumbers[name] = nil }
        instances[number] = nil
        for slot in partitions.indices { startIfHeard(slot, nowMs) }
    }

    /// Its sessions are nobody's here, and it is not waited for.
    private func giveUp(_ number: Int, _ nowMs: Int64) {
        guard instances[number]?.isGivenUp == false else { return }
        forgetSessions(number, nowMs)
        for slot in partitions.indices { partitions[slot].watchers.remove(number) }
        instances[number]?.isGivenUp = true
        counts.droppedInstances += 1
    }

    // MARK: - Time

    /// To be called a few times a second, and when `takeActions` said so.
    public func tick(nowMs: Int64) {
        for number in instances.indices where instances[number] != nil { tick(number, nowMs) }
        for slot in partitions.indices { startIfHeard(slot, nowMs) }
        changePresence(nowMs)
        if nowMs >= nextProgressMs {
            nextProgressMs = nowMs + Self.progressEveryMs
            let live = partitions.filter { $0.phase == .live }
            for number in instances.indices {
                // Of what an instance was not sent, it has heard nothing.
                let progress = live.filter { instances[number]?.takesRecords(of: $0.number) == true }.map {
                    PartitionProgress(partition: $0.number, routed: $0.routed)
                }
                if !progress.isEmpty { instances[number]?.link?.send(.progress(progress)) }
            }
        }
    }

    private func tick(_ number: Int, _ nowMs: Int64) {
        do throws(LinkError) {
            try instances[number]?.link?.tick(nowMs: nowMs)
        } catch {
            instances[number]?.failure = "\(error)"
            disconnect(number, nowMs)
        }
        if let state = instances[number], let since = state.fullSinceMs ?? (state.isLeftBehind ? 0 : nil) {
            let silentMs = nowMs - max(since, state.acknowledgedMs)
            if silentMs >= settings.stuckMs {
                counts.stuckLinks += 1
                instances[number]?.link?.close(LinkError(.tooSlow, "full, and nothing taken for \(silentMs) ms"))
                disconnect(number, nowMs)
            } else if nowMs - since >= settings.patienceMs, keepsOthersWaiting(number) {
                leaveBehind(number, nowMs)
            }
        }
        guard let state = instances[number] else { return }
        if let lost = state.lostMs {
            let isSilent = nowMs - state.announcedMs >= settings.silentMs && nowMs - lost >= settings.silentMs
            if isSilent { return forget(number, nowMs) }
            // Who reaches nobody knows of no user where they are: then nothing is decided about them.
            if nowMs - lost >= settings.unreachableMs, instances.contains(where: { $0?.isOpen == true }) {
                giveUp(number, nowMs)
                for slot in partitions.indices { startIfHeard(slot, nowMs) }
            }
        }
        connectIfDue(number, nowMs)
    }

    // MARK: - Full links

    /// Whether no further records should be offered now: a link is full and waited for, until it has drained, has been left
    /// behind or is given up; or the log does not take what is written for it.
    public var isBlocked: Bool { instances.contains { $0?.isWaitedFor == true } || isOutputFull }

    func noteFullness(_ number: Int, _ nowMs: Int64) {
        guard let link = instances[number]?.link else { return }
        guard link.inFlightByteCount > settings.linkBytesMax else {
            instances[number]?.fullSinceMs = nil
            return
        }
        if instances[number]?.fullSinceMs == nil { instances[number]?.fullSinceMs = nowMs }
        // One that was left behind a moment ago does not hold the others up again.
        if nowMs < instances[number]?.hurriesUntilMs ?? 0, keepsOthersWaiting(number) { leaveBehind(number, nowMs) }
    }

    private func keepsOthersWaiting(_ number: Int) -> Bool {
        instances.indices.contains {
            $0 != number && instances[$0]?.isOpen == true && instances[$0]?.fullSinceMs == nil
        }
    }

    /// A link that stays full while others have room is waited for no longer: what is for its sessions is not sent, and once
    /// it has taken most of what was, it is asked to name them again, so that they fill what they missed.
    private func leaveBehind(_ number: Int, _ nowMs: Int64) {
        guard instances[number]?.isLeftBehind == false else { return }
        counts.leftBehind += 1
        instances[number]?.isLeftBehind = true
        instances[number]?.hurriesUntilMs = nowMs + Self.hurryMs
    }

    func drained(_ number: Int, _ nowMs: Int64) {
        instances[number]?.acknowledgedMs = nowMs
        noteFullness(number, nowMs)
        guard let state = instances[number], let link = state.link else { return }
        if state.isLeftBehind {
            guard link.inFlightByteCount <= settings.linkBytesMax / 2 else { return }
            instances[number]?.isLeftBehind = false
            instances[number]?.missed = []
            let claims = state.missed.sorted().compactMap { partition in
                slot(partition).map { PartitionClaim(partition: partition, term: partitions[$0].term) }
            }
            if !claims.isEmpty {
                instances[number]?.link?.send(.claim(partitionCount: settings.partitionCount, claims))
            }
        }
        if instances[number]?.fullSinceMs == nil { tellUnheardPresence(number) }
    }

    // MARK: - The ends of links (what they say is in WorkerLinks)

    func heard(_ number: Int, _ partition: Int32, _ nowMs: Int64) {
        instances[number]?.heard.insert(partition)
        instances[number]?.told.insert(partition)
        if let slot = slot(partition) { startIfHeard(slot, nowMs) }
    }

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
        state.link?.forEachInFlight { partition, offset in
            if let slot = slot(partition) { partitions[slot].hold(for: number, from: offset) }
        }
        for partition in doubtful.keys { doubtful[partition]?.removeAll { $0.instance == number } }
        state.link = nil
        state.isConnecting = false
        state.heard = []
        state.fills = Ring()
        state.fullSinceMs = nil
        state.isLeftBehind = false
        state.missed = []
        state.unheardPresence = []
        if state.lostMs == nil { state.lostMs = nowMs }
        state.backOff(nowMs: nowMs)
        instances[number] = state
    }
}
