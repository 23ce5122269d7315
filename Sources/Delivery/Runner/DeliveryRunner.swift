import KafkaClient
import PushLink
import Runtime
import System
import Wire

/// The handles of one worker and the turn that moves data between them: on the loop's thread only.
///
/// A turn takes what the log and the sockets have brought to the worker, carries out what it wants done, and leaves each
/// link one array to write; the loop sends that with one system call a socket.
final class DeliveryRunner {
    let configuration: DeliveryConfiguration
    let loop: EventLoop
    let worker: DeliveryWorker
    let consumer: Consumer
    let output: LogOutput
    private let directory: InstanceDirectory
    private let presence: PresenceReader
    private let cursors: CursorStore?
    private let counters: DeliveryMetrics
    let faults: ReadFaults
    private let partitions: Health.Condition
    private let thread: Health.Condition
    private let probe: LogProbe
    private var gate: GroupGate
    /// The group has said which partitions are ours, which may be none.
    private var isMember = false
    private var isClosing = false
    /// What was last said of chat servers that cannot be reached.
    private var toldTrouble: (text: String, atMs: Int64)?

    private var wake: Registration?
    private var connections: [Int: LinkConnection] = [:]
    /// Records of partitions that wait for chat servers to tell their sessions, in order. Kept here rather than paused and
    /// sought again: librdkafka 2.0.2 may not answer a seek of a paused partition, and a pause outlives its assignment.
    private var backlog: [Int32: Ring<HeldRecord>] = [:]
    private var backlogBytes = 0

    private struct HeldRecord {
        let cursor: Cursor
        let value: [UInt8]
        let source: [UInt8]?
    }
    private var committed: [Int32: Int64] = [:]
    /// Partitions whose last commit has failed: it is made again, though nothing more may come.
    private var uncommitted: Set<Int32> = []
    /// Partitions whose place is not in the log any more, until they are begun anew.
    private var lost: Set<Int32> = []
    private(set) var cuts = [Int32: Int64]()
    private var anewTimer: Timer?
    private var nextCommitMs: Int64 = 0
    private var failure: DeliveryError?
    private var time: SteadyTime

    static let tickMs = 50
    private static let commitEveryMs: Int64 = 200
    private static let anewAfterMs = 200
    private static let messagesPerTurn = 500
    /// With so much held back nothing more is read until a partition starts, which takes `hearingMs` at most.
    private static let backlogBytesMax = 32 << 20
    /// Bytes of fills that may wait on a link.
    private static let fillBytesMax = 1 << 20

    /// Milliseconds since the epoch, without jumps: for deadlines, and for times that others are told.
    var nowMs: Int64 { time.nowMs(monotonicMs: loop.monotonicMs) }

    init(
        _ configuration: DeliveryConfiguration, on loop: EventLoop, _ health: Health
    ) throws(DeliveryError) {
        self.configuration = configuration
        self.loop = loop
        partitions = health.condition("partitions", failing: Self.ownsNothing)
        thread = health.thread("delivery")
        time = SteadyTime(wallMs: loop.nowMs, monotonicMs: loop.monotonicMs)
        gate = GroupGate(nowMs: loop.nowMs)
        let names = configuration.names
        let areCountsEqual: Bool
        do throws(KafkaError) {
            let topics: [Topic] = [.deliveries, .instances, .presence, .push]
            probe = try LogProbe(configuration.kafka, topics: topics.map { names[$0] }, health)
            output = try LogOutput(configuration, on: loop, health)
            let (partitionCount, presenceCount) = try output.partitionCounts()
            areCountsEqual = partitionCount == presenceCount
            var settings = DeliverySettings(
                identity: LinkIdentity(name: configuration.name, epoch: configuration.epoch),
                secret: configuration.secret, partitionCount: partitionCount)
            settings.windowBytesMax = configuration.windowBytesMax
            settings.windowAgeMs = configuration.windowAgeMs
            settings.presenceGraceMs = configuration.presenceGraceMs
            settings.pushWindowMs = configuration.pushWindowMs
            settings.hearingMs = configuration.hearingMs
            worker = DeliveryWorker(settings)

            var options = ConsumerOptions(groupID: names.group("delivery"))
            if configuration.isMemberStatic { options.groupInstanceID = configuration.name }
            options.setSessionTimeout(configuration.sessionTimeoutMs, configuration.kafka) { line in
                configuration.log.warning("kafka", ["message": .string(line.message)])
            }
            options.reportsEndOfPartition = true
            consumer = try Consumer(configuration.kafka, options)
            directory = try InstanceDirectory(configuration)
            presence = try PresenceReader(configuration)
        } catch {
            throw DeliveryError(.kafka, "\(error)")
        }
        guard areCountsEqual else {
            throw DeliveryError(.topics, "\(names[.deliveries]) and \(names[.presence]) differ in their partitions")
        }
        cursors = configuration.postgres.map { CursorStore($0, log: configuration.log) }
        counters = DeliveryMetrics(configuration.metrics)
        faults = ReadFaults(configuration.log, configuration.metrics, stage: "delivery")
    }

    // MARK: - Life

    func run() throws(DeliveryError) {
        do {
            wake = try loop.watch(consumer.wakeDescriptor) { [unowned self] _ in takeRecords() }
            try directory.start(on: loop, self)
            try presence.start(on: loop, self)
            try output.start(on: loop, self)
        } catch {
            throw DeliveryError(.kafka, "\(error)")
        }
        do {
            try cursors?.start(on: loop) { [unowned self] answers in
                for (lookUp, stored) in answers { worker.answerLookUp(lookUp, stored) }
                finishTurn()
            }
        } catch {
            throw DeliveryError(.system, "\(error)")
        }
        scheduleTick()
        loop.run()
        if let failure { throw failure }
    }

    func fail(_ error: DeliveryError) {
        if failure == nil { failure = error }
        loop.stop()
    }

    /// Leaves in good order: what is acknowledged is committed, links are told, the group is left; only then what nobody
    /// waits for.
    func close() {
        isClosing = true
        commitNow(worker.owned)
        worker.stop(nowMs: nowMs)
        finishTurn()
        loop.runOnce(timeoutMs: 0)
        wake?.cancel()
        if configuration.keepsPartitions {
            consumer.close(deadlineMs: 3_000)
        } else {
            noteDeparture(consumer.closeForGood(deadlineMs: 3_000))
        }
        cursors?.close(worker.cursors.takeAll())
        directory.close()
        presence.close()
        output.close()
        probe.close()
        partitions.failed("stopped")
    }

    private func noteDeparture(_ error: KafkaError?) {
        guard let error else { return }
        configuration.log.warning(
            "others get the partitions only when the session times out", ["why": .string("\(error)")])
    }

    private func scheduleTick() {
        loop.schedule(afterMs: Self.tickMs) { [unowned self] in
            tick()
            scheduleTick()
        }
    }

    private func tick() {
        time.follow(wallMs: loop.nowMs, monotonicMs: loop.monotonicMs)
        worker.tick(nowMs: nowMs)
        finishTurn()
        if nowMs >= nextCommitMs {
            nextCommitMs = nowMs + Self.commitEveryMs
            commitLater()
        }
        cursors?.store(worker.cursors.take(nowMs: nowMs)) { [unowned self] in worker.cursors.putBack($0) }
        counters.publish(worker)
        consumer.stayInGroup()
        passGate()
        resumeReading()
    }

    private static let ownsNothing = "the group has not given it partitions"

    /// To be called after everything that may have made the worker say something.
    func finishTurn() {
        var actions = worker.takeActions()
        while !actions.isEmpty {
            for action in actions { carryOut(action) }
            actions = worker.takeActions()
        }
        output.produce(from: worker, nowMs: nowMs)
        for (number, connection) in connections { write(number, connection) }
        if !gate.isIn, !isClosing { passGate() }
        resumeReading()
    }

    // MARK: - Taking part

    /// Joins the group or leaves it, by who can be reached; and says what keeps us from delivering.
    private func passGate() {
        let now = nowMs
        let reach = worker.reach(nowMs: now)
        if worker.isDirectoryRead {
            do {
                switch gate.decide(reach, nowMs: now) {
                case .join: try consumer.subscribe([configuration.names[.deliveries]])
                case .leave:
                    counters.left.add()
                    configuration.log.warning("leaving the group", ["why": .string(reach.trouble ?? "")])
                    commitNow(worker.owned)
                    noteDeparture(try consumer.leave(deadlineMs: 1_000))
                case nil: break
                }
            } catch {
                fail(DeliveryError(.kafka, "\(error)"))
            }
        }
        counters.unreached.set(reach.missing.count)
        tell(reach, now)
        thread.beat()
        output.tellProgress()
        if let reason = notReady(reach) { partitions.failed(reason) } else { partitions.met() }
    }

    private func notReady(_ reach: Reach) -> String? {
        guard worker.isDirectoryRead else { return "chat.instances has not been read" }
        if !gate.isIn || reach.isUseless {
            return reach.trouble ?? "has left the group and waits before it joins again"
        }
        guard isMember else { return Self.ownsNothing }
        guard lost.isEmpty else { return "begins partitions anew whose place in the log is lost" }
        return worker.owned.allSatisfy { worker.phase(of: $0) == .live }
            ? nil : "waits for the sessions that chat servers have"
    }

    private static let troubleMs: Int64 = 1_000
    private static let tellEveryMs: Int64 = 10_000

    /// A chat server that starts again is away for a moment: that is no news.
    private func tell(_ reach: Reach, _ now: Int64) {
        guard let text = reach.trouble else {
            if toldTrouble != nil { configuration.log.info("every chat server is reached again") }
            toldTrouble = nil
            return
        }
        guard reach.missing.contains(where: { now - $0.sinceMs >= Self.troubleMs }), toldTrouble?.text != text,
            now - (toldTrouble?.atMs ?? 0) >= Self.tellEveryMs
        else { return }
        toldTrouble = (text, now)
        configuration.log.warning(
            gate.isIn ? "holds what it cannot place" : "takes no partitions", ["why": .string(text)])
    }

    private func carryOut(_ action: DeliveryAction) {
        switch action {
        case .connect(let number, let address): connect(number, address)
        case .disconnect(let number, let farewell): connections.removeValue(forKey: number)?.end(farewell)
        case .resume(let partition): resume(partition)
        case .raiseTerm(let partition, let term): raiseTerm(partition, term)
        case .askEnd(let partition):
            // Rare: a topic made anew, or a former owner that read on. Without an answer the cursor is believed.
            let end = try? consumer.watermarks(topicPartition(partition), timeoutMs: 1_000).high
            worker.logEnds(partition, at: end ?? .max)
        case .lookUp(let lookUp):
            guard let cursors else { return worker.answerLookUp(lookUp, .none) }
            if !cursors.lookUp(lookUp) { worker.answerLookUp(lookUp, .unavailable) }
        }
    }

    // MARK: - Records

    private func takeRecords() {
        guard !mustWait else {
            // Acknowledgements or the deadline for a stuck link bring us back.
            wake?.interest = []
            return
        }
        let now = nowMs
        let batch = consumer.poll(maxMessages: Self.messagesPerTurn)
        for index in 0..<batch.count {
            let message = batch[index]
            take(message, now)
        }
        if batch.count > 0 {
            let ageMs = max(0, nowMs - batch[batch.count - 1].timestampMs)
            counters.fromLog.record(ns: UInt64(ageMs) * 1_000_000)
        }
        if let event = batch.event { take(event) }
        finishTurn()
    }

    private func take(_ message: borrowing Message, _ now: Int64) {
        let partition = message.partition
        let cursor = Cursor(offset: message.offset, timestamp: message.timestampMs)
        // A tombstone is refused like any other record that is none: nobody deletes from this topic.
        let nothing: [UInt8] = []
        if let value = message.value {
            take(partition, cursor, value, message.header("src"), now)
        } else {
            take(partition, cursor, nothing.span, nil, now)
        }
    }

    private func take(
        _ partition: Int32, _ cursor: Cursor, _ value: Span<UInt8>, _ source: Span<UInt8>?, _ now: Int64
    ) {
        if backlog[partition] == nil {
            guard worker.take(partition, cursor, value: value, source: source, nowMs: now) == .notYet else { return }
            backlog[partition] = Ring()
        }
        var copy: [UInt8]?
        if let source { copy = [UInt8](copying: source) }
        backlogBytes += value.count
        backlog[partition]?.append(HeldRecord(cursor: cursor, value: [UInt8](copying: value), source: copy))
    }

    private func takeBacklog(_ partition: Int32, _ body: (HeldRecord) -> Void) {
        guard var held = backlog.removeValue(forKey: partition) else { return }
        while !held.isEmpty {
            let record = held.removeFirst()
            backlogBytes -= record.value.count
            body(record)
        }
    }

    private func resume(_ partition: Int32) {
        let now = nowMs
        takeBacklog(partition) { record in take(partition, record.cursor, record.value.span, record.source?.span, now) }
    }

    private var mustWait: Bool { worker.isBlocked || output.isFull || backlogBytes > Self.backlogBytesMax }

    private func resumeReading() {
        if let wake, wake.interest.isEmpty, !mustWait { wake.interest = .read }
    }

    func topicPartition(_ partition: Int32) -> TopicPartition {
        TopicPartition(configuration.names[.deliveries], partition)
    }

    // MARK: - The group

    private func take(_ event: ConsumerEvent) {
        faults.tell(event)
        switch event {
        case .assigned(let list): assigned(list.map(\.partition))
        case .revoked(let list, let lost): revoked(list.map(\.partition), lost: lost)
        case .endOfPartition(let place, let nextOffset):
            worker.reachedEnd(of: place.partition, nextOffset: nextOffset, nowMs: nowMs)
        case .committed(let offsets, let error?): commitFailed(offsets, error)
        case .committed, .passedOver: break
        case .lostPlace(let place):
            lost.insert(place.partition.partition)
            if case .truncated(let end?) = place.reason { cuts[place.partition.partition] = end }
            beginAnew()
        case .error(let error, _): noteTrouble(error)
        }
    }

    /// What is in the log that is there now, and was not read of it.
    func readOn(_ place: LostPlace, _ consumer: Consumer) {
        do throws(KafkaError) { try consumer.seek([place.unread]) } catch {
            fail(DeliveryError(.kafka, "\(error)"))
        }
    }

    /// A consumer's client goes on trying by itself unless it is beyond repair.
    func noteTrouble(_ error: KafkaError) {
        if !error.isFatal { configuration.log.warning("log", ["error": .string("\(error)")]) }
        if error.isFatal { fail(DeliveryError(error)) }
    }

    private func assigned(_ partitions: [Int32]) {
        do throws(KafkaError) {
            let takeovers = try Takeover.plan(partitions, consumer, self)
            do throws(KafkaError) {
                // Raises the term: from here on a former owner's claims are refused.
                try consumer.commit(takeovers.map(\.committed))
            } catch {
                // Another rebalance is on its way and will take the partitions back.
                configuration.log.warning("cannot commit the term", ["error": .string("\(error)")])
            }
            try consumer.assign(takeovers.map(start))
            own(takeovers)
            isMember = true
            configuration.log.info("assigned", ["partitions": .string("\(partitions.sorted())")])
        } catch {
            // A topic that was there when the group gave its partitions is about to be made again.
            guard error.code == .unknownTopicOrPartition else { return fail(DeliveryError(.kafka, "\(error)")) }
            configuration.log.warning("partitions cannot be begun yet", ["error": .string("\(error)")])
            do { try consumer.unassign() } catch { return fail(DeliveryError(.kafka, "\(error)")) }
            anewTimer = loop.schedule(afterMs: Self.anewAfterMs) { [unowned self] in assigned(partitions) }
        }
    }

    private func own(_ takeovers: [Takeover]) {
        for takeover in takeovers {
            takeover.tellLoss(configuration.log, counters.logChanged)
            worker.own(
                takeover.partition, term: takeover.note.term, log: takeover.note.log, readsFrom: takeover.readsFrom,
                remembersFrom: takeover.remembersFrom, liveFrom: takeover.liveFrom, knownEnd: takeover.knownEnd,
                saved: takeover.note.saved, awaitsPresence: true, nowMs: nowMs)
            committed[takeover.partition] = takeover.liveFrom
        }
        presence.read(takeovers.map(\.partition))
    }

    /// Begins partitions anew with what there is: their devices come back, and those whose cursor is of the old log are told
    /// to reload. A topic that is not there yet is asked for again.
    private func beginAnew() {
        let partitions = lost.sorted()
        for partition in partitions { giveUp(partition) }
        presence.stop(partitions)
        do throws(KafkaError) {
            let takeovers = try Takeover.plan(partitions, consumer, self)
            try consumer.commit(takeovers.map(\.committed))
            try consumer.seek(takeovers.map(start))
            (lost, cuts) = ([], [:])
            own(takeovers)
            finishTurn()
        } catch {
            configuration.log.warning("partitions cannot be begun anew yet", ["error": .string("\(error)")])
            guard anewTimer?.isScheduled != true else { return }
            anewTimer = loop.schedule(afterMs: Self.anewAfterMs) { [unowned self] in
                if !lost.isEmpty { beginAnew() }
            }
        }
    }

    private func giveUp(_ partition: Int32) {
        worker.disown(partition)
        takeBacklog(partition) { _ in }
        committed[partition] = nil
        uncommitted.remove(partition)
    }

    private func start(_ takeover: Takeover) -> PartitionStart {
        PartitionStart(
            topicPartition(takeover.partition), at: .offset(takeover.readsFrom), log: takeover.note.log)
    }

    private func revoked(_ partitions: [Int32], lost: Bool) {
        isMember = false
        _ = anewTimer?.cancel()
        // Who leaves by itself has committed before.
        if !lost, gate.isIn { commitNow(partitions) }
        for partition in partitions { giveUp(partition) }
        self.lost.subtract(partitions)
        presence.stop(partitions)
        do {
            try consumer.unassign()
        } catch {
            fail(DeliveryError(.kafka, "\(error)"))
        }
        configuration.log.info("revoked", ["partitions": .string("\(partitions.sorted())"), "lost": .bool(lost)])
    }

    private func raiseTerm(_ partition: Int32, _ term: UInt64) {
        guard let offset = committed[partition] else { return }
        let note = CommitNote(term: term, log: worker.log(of: partition))
        do {
            try consumer.commit([CommittedOffset(topicPartition(partition), offset: offset, metadata: note.text)])
            worker.raiseTerm(of: partition, to: term)
        } catch {
            // Not ours any more, which the next rebalance will tell, or the coordinator is away: an instance asks again.
            configuration.log.warning("cannot raise the term", ["error": .string("\(error)")])
        }
    }

    // MARK: - Commits

    private func commitPositions(_ partitions: [Int32]?) -> [CommittedOffset] {
        worker.commitPositions().compactMap { position in
            guard partitions?.contains(position.partition) != false,
                committed[position.partition] != position.offset || uncommitted.contains(position.partition)
            else { return nil }
            uncommitted.remove(position.partition)
            committed[position.partition] = position.offset
            return CommittedOffset(
                topicPartition(position.partition), offset: position.offset, metadata: position.note.text)
        }
    }

    private func commitLater() {
        let offsets = commitPositions(nil)
        guard !offsets.isEmpty else { return }
        do {
            try consumer.commitLater(offsets)
        } catch {
            commitFailed(offsets, error)
        }
    }

    private func commitNow(_ partitions: [Int32]) {
        let offsets = commitPositions(partitions)
        guard !offsets.isEmpty else { return }
        do {
            try consumer.commit(offsets, timeoutMs: 2_000)
        } catch {
            commitFailed(offsets, error)
        }
    }

    private func commitFailed(_ offsets: [CommittedOffset], _ error: KafkaError) {
        configuration.log.warning("commit failed", ["error": .string("\(error)")])
        for offset in offsets where committed[offset.partition.partition] == offset.offset {
            uncommitted.insert(offset.partition.partition)
        }
    }

    // MARK: - Links

    private func connect(_ number: Int, _ address: String) {
        guard let target = Address(address) else {
            return worker.linkEnded(number, reason: "that is no address", nowMs: nowMs)
        }
        connections.removeValue(forKey: number)?.end([])
        let connection = LinkConnection(number, address: address, self)
        connections[number] = connection
        connection.stream = Stream.connect(
            host: target.host, port: Int(target.port), on: loop, delegate: connection,
            limits: StreamLimits(bytes: 128 << 20, fragments: 65_536), timeoutMs: 2_000, tls: configuration.tls)
    }

    private func write(_ number: Int, _ connection: LinkConnection) {
        guard let stream = connection.stream else { return }
        if worker.hasFills(number) {
            worker.serveFills(number, room: Self.fillBytesMax - stream.queuedBytes)
        }
        guard worker.hasOutput(number) else { return }
        if stream.write(worker.takeOutput(number, nowMs: nowMs)) == .overflow { stream.close() }
    }

    func connected(_ connection: LinkConnection) {
        worker.linkConnected(connection.number, nonce: LinkSecret.nonce(), nowMs: nowMs)
        finishTurn()
    }

    func received(_ connection: LinkConnection, _ bytes: Span<UInt8>) {
        guard connections[connection.number] === connection else { return }
        if let error = worker.linkReceived(connection.number, bytes, nowMs: nowMs) {
            configuration.log.warning("link ended", ["to": .string(connection.address), "error": .string("\(error)")])
        }
        finishTurn()
    }

    func drained(_ connection: LinkConnection) {
        guard connections[connection.number] === connection else { return }
        write(connection.number, connection)
    }

    func closed(_ connection: LinkConnection, _ reason: CloseReason) {
        guard connections[connection.number] === connection else { return }
        connections[connection.number] = nil
        if case .failed(let error) = reason {
            configuration.log.debug("link lost", ["to": .string(connection.address), "error": .string("\(error)")])
            worker.linkEnded(connection.number, reason: "\(error)", nowMs: nowMs)
        } else {
            worker.linkEnded(connection.number, nowMs: nowMs)
        }
        finishTurn()
    }
}

/// One connection to an instance.
final class LinkConnection: StreamDelegate {
    let number: Int
    let address: String
    var stream: Stream?
    private unowned let runner: DeliveryRunner

    init(_ number: Int, address: String, _ runner: DeliveryRunner) {
        self.number = number
        self.address = address
        self.runner = runner
    }

    func end(_ farewell: [UInt8]) {
        if !farewell.isEmpty { stream?.write(farewell) }
        stream?.closeAfterFlush()
        stream = nil
    }

    func streamConnected(_ stream: Stream) { runner.connected(self) }
    func stream(_ stream: Stream, received bytes: Span<UInt8>) { runner.received(self, bytes) }
    func streamDrained(_ stream: Stream) { runner.drained(self) }
    func streamClosed(_ stream: Stream, reason: CloseReason) { runner.closed(self, reason) }
}
