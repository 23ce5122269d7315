internal import Runtime
internal import System
import Wire

/// Runs the group coordinator: gives it the events and the time, keeps what it wants kept, and sends what it answers once
/// that is durable. On the loop's thread only.
final class GroupService {
    private(set) var coordinator: GroupCoordinator
    private(set) var offsets = OffsetStore()
    private let storage: Storage
    private let commits: CommitQueue
    private let loop: EventLoop
    private let log: Log
    private let offsetsRetentionMs: Int64

    /// How to answer a request that waits in the coordinator.
    enum Waiting {
        case join((JoinResult) -> Void)
        case sync((SyncResult) -> Void)
    }
    private var waiting: [Ticket: Waiting] = [:]
    private var nextTicket: Ticket = 1

    private static let tickMs = 50
    /// What members' deadlines are reckoned by: a wall clock that is set forward would end all sessions at once.
    private var monotonicMs: Int64 { Int64(loop.monotonicMs) }

    init(
        storage: Storage, commits: CommitQueue, loop: EventLoop, log: Log, offsetsRetentionMs: Int64
    ) throws(BrokerError) {
        self.storage = storage
        self.commits = commits
        self.loop = loop
        self.log = log
        self.offsetsRetentionMs = offsetsRetentionMs
        coordinator = GroupCoordinator(incarnation: UInt64(loop.nowMs) << 20 ^ UInt64.random(in: 0..<1 << 20))
        try restore()
        scheduleTick()
    }

    private var offsetsLog: PartitionLog? { storage.topics[Topic.offsetsName]?.log(0) }

    // MARK: Start-up

    private func restore() throws(BrokerError) {
        guard let offsetsLog else { return }
        var place = offsetsLog.startOffset
        var bytes: [UInt8] = []
        while place < offsetsLog.endOffset {
            bytes.removeAll(keepingCapacity: true)
            guard try offsetsLog.read(from: place, maxBytes: 1 << 20, atLeastOne: true, into: &bytes).bytes > 0 else {
                break
            }
            var start = 0
            while let batch = try? RecordBatch(header: bytes.span.extracting(start..<bytes.count)) {
                apply(bytes.span.extracting(start + RecordBatch.headerSize..<start + batch.size))
                start += batch.size
                place = batch.nextOffset
            }
        }
    }

    private func apply(_ records: Span<UInt8>) {
        var position = 0
        while let record = Record(records, at: position) {
            position = record.range.upperBound
            guard let key = record.key else { continue }
            let known: GroupRecord?
            do throws(BrokerError) {
                if let value = record.value {
                    known = try GroupRecord(key: records.extracting(key), value: records.extracting(value))
                } else {
                    known = try GroupRecord(key: records.extracting(key), value: nil)
                }
            } catch {
                // One record must not keep all groups, and the broker with them, from coming back.
                log.error(
                    "passed over a record of \(Topic.offsetsName) that cannot be read",
                    ["reason": .string(error.description)])
                continue
            }
            switch known {
            case .offset(let group, let place, let committed):
                offsets[group, place] = committed
                coordinator.ensure(group, nowMs: monotonicMs)
            case .group(_, let snapshot?): coordinator.restore(snapshot, nowMs: monotonicMs)
            case .group(let group, nil): coordinator.remove(group)
            case nil: break
            }
        }
    }

    // MARK: Keeping

    /// Appends records to the internal topic; `done` hears when they are durable.
    private func store(_ records: [GroupRecord], _ done: @escaping (BrokerError?) -> Void) {
        guard let offsetsLog else { return done(BrokerError(.storage, "there is no \(Topic.offsetsName)")) }
        var builder = RecordBatchBuilder(timestamp: loop.nowMs)
        for record in records { builder.add(key: record.key, value: record.value(nowMs: loop.nowMs)) }
        let batch = builder.batch()
        do throws(BrokerError) {
            guard let header = try? RecordBatch(header: batch.span) else {
                return done(BrokerError(.storage, "a record of \(Topic.offsetsName) is too large"))
            }
            _ = try commits.append(batch.span, header, to: offsetsLog)
            commits.whenDurable(done)
        } catch {
            done(error)
        }
    }

    // MARK: The classic protocol

    func join(_ request: JoinRequest, _ answer: @escaping (JoinResult) -> Void) {
        let ticket = ticket(.join(answer))
        perform(coordinator.join(request, ticket: ticket, nowMs: monotonicMs))
    }

    func sync(_ request: SyncRequest, _ answer: @escaping (SyncResult) -> Void) {
        let ticket = ticket(.sync(answer))
        perform(coordinator.sync(request, ticket: ticket, nowMs: monotonicMs))
    }

    func heartbeat(_ group: String, _ identity: MemberIdentity, generation: Int32) -> ErrorCode {
        coordinator.heartbeat(group, identity, generation: generation, nowMs: monotonicMs)
    }

    func leave(_ group: String, _ identity: MemberIdentity) -> ErrorCode {
        let (error, actions) = coordinator.leave(group, identity, nowMs: monotonicMs)
        perform(actions)
        return error
    }

    private func ticket(_ kind: Waiting) -> Ticket {
        defer { nextTicket += 1 }
        waiting[nextTicket] = kind
        return nextTicket
    }

    /// Does what the coordinator asks. Answers behind a `store` wait until it is durable.
    private func perform(_ actions: [GroupAction]) {
        guard let index = actions.firstIndex(where: { if case .store = $0 { true } else { false } }) else {
            for action in actions { answer(action, nil) }
            return
        }
        for action in actions[..<index] { answer(action, nil) }
        let rest = Array(actions[index...])
        let snapshots = rest.compactMap { if case .store(let snapshot) = $0 { snapshot } else { nil } }
        store(snapshots.map { .group($0.group, $0) }) { [weak self] failure in
            for action in rest { self?.answer(action, failure) }
        }
    }

    private func answer(_ action: GroupAction, _ failure: BrokerError?) {
        switch action {
        case .joined(let ticket, var result):
            guard case .join(let answer) = waiting.removeValue(forKey: ticket) else { return }
            if failure != nil { result.error = .coordinatorNotAvailable }
            answer(result)
        case .synced(let ticket, var result):
            guard case .sync(let answer) = waiting.removeValue(forKey: ticket) else { return }
            if failure != nil { result.error = .coordinatorNotAvailable }
            answer(result)
        case .store: break
        }
    }

    private func scheduleTick() {
        loop.schedule(afterMs: Self.tickMs) { [weak self] in
            guard let self else { return }
            self.perform(self.coordinator.advance(nowMs: self.monotonicMs))
            self.scheduleTick()
        }
    }

    // MARK: Offsets

    func authorizeCommit(_ group: String, _ identity: MemberIdentity, generation: Int32) -> ErrorCode {
        coordinator.authorizeCommit(group, identity, generation: generation, nowMs: monotonicMs)
    }

    /// Keeps offsets; they can be fetched, and `done` is called, when they are durable.
    func commit(
        _ group: String, _ places: [(OffsetStore.Place, OffsetStore.Committed)],
        _ done: @escaping (BrokerError?) -> Void
    ) {
        guard !places.isEmpty else { return done(nil) }
        offsets.begin(group, places.map(\.0))
        store(places.map { .offset(group: group, $0.0, $0.1) }) { [weak self] failure in
            if let self {
                self.offsets.end(group, places.map(\.0))
                if failure == nil {
                    // Only now: the group may have been deleted meanwhile.
                    self.coordinator.ensure(group, nowMs: self.monotonicMs)
                    for (place, committed) in places { self.offsets[group, place] = committed }
                }
            }
            done(failure)
        }
    }

    func deleteOffsets(
        _ group: String, _ places: some Collection<OffsetStore.Place>, _ done: @escaping (BrokerError?) -> Void
    ) {
        let known = Array(offsets.places(of: group).intersection(places))
        guard !known.isEmpty else { return done(nil) }
        store(known.map { .offset(group: group, $0, nil) }) { [weak self] failure in
            if failure == nil {
                for place in known { self?.offsets[group, place] = nil }
            }
            done(failure)
        }
    }

    /// Deletes a group that nobody is in, with its offsets.
    func delete(_ group: String, _ done: @escaping (ErrorCode) -> Void) {
        guard let known = coordinator.groups[group] else { return done(.groupIDNotFound) }
        guard known.members.isEmpty else { return done(.nonEmptyGroup) }
        let records = offsets.places(of: group).map { GroupRecord.offset(group: group, $0, nil) }
        store(records + [.group(group, nil)]) { [weak self] failure in
            if let self, failure == nil {
                self.offsets.remove(group)
                // Whoever has joined meanwhile stays.
                if self.coordinator.groups[group]?.isUnused == true { self.coordinator.remove(group) }
            }
            done(failure?.protocolCode ?? .none)
        }
    }

    /// A deleted topic takes its offsets along.
    func forgetOffsets(ofTopic topic: String) {
        for group in offsets.names {
            deleteOffsets(group, offsets.places(of: group).filter { $0.topic == topic }) { _ in }
        }
    }

    /// Deletes groups that nobody has been in, and that have committed nothing, for the time of retention. How long they
    /// have been empty is reckoned by the monotonic clock, as members' deadlines are; commits carry the wall clock's time.
    func expireOffsets(nowMs: Int64) {
        for (id, group) in coordinator.groups where group.isUnused && !offsets.isUnderWay(id) {
            let newest = offsets.offsets(of: id).values.map(\.committedMs).max()
            let limitMs = newest == nil ? Self.emptyGroupMs : offsetsRetentionMs
            guard monotonicMs - group.emptySinceMs > limitMs, nowMs - (newest ?? 0) > limitMs else { continue }
            delete(id) { _ in }
        }
    }

    /// How long a group is kept that has committed nothing.
    private static let emptyGroupMs: Int64 = 60_000
}
