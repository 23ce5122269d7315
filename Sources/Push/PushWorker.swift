import KafkaClient
import Runtime
import System
import Wire

/// The stage's state and its handles, on its loop's thread: reads the log into the coalescer, lets the dispatcher have what
/// is due, and commits behind what it settles.
final class PushWorker {
    /// How long people may wait for `chat.presence` to be read after a start: whoever is online need not be told.
    private static let presenceWaitMs = 15_000

    private let configuration: PushConfiguration
    private let loop: EventLoop
    private let log: Log
    private let metrics: PushMetrics
    private let clock: any Clock
    private let consumer: Consumer
    private let dead: DeadLetters
    private let dispatcher: Dispatcher

    private let health: PushHealth
    private let probe: LogProbe

    private var coalescer: Coalescer
    private var tracker = CommitTracker()
    private var seen = SeenTable()
    private var watches: [Registration] = []
    private var assigned: [TopicPartition] = []
    private var isPaused = false
    private var notedAtMs: UInt64 = 0
    private static let noteEveryMs: UInt64 = 5000
    private var isSendDue = false
    /// Partitions of `chat.presence` whose end has not been reached since they were assigned, and how long that matters.
    private var presenceLeft: Set<Int32> = []
    private var presenceDeadlineMs: UInt64 = 0
    private(set) var failure: (any Error)?

    init(
        _ configuration: PushConfiguration, on loop: EventLoop, log: Log, metrics: PushMetrics, _ health: Health,
        clock: any Clock
    ) throws {
        self.configuration = configuration
        self.loop = loop
        self.log = log
        self.metrics = metrics
        self.clock = clock
        self.health = PushHealth(health)
        probe = try LogProbe(
            configuration.kafka,
            topics: [Topic.push, .presence, .signals, .pushDead].map { configuration.names[$0] }, health)
        coalescer = Coalescer(configuration.coalescing)
        var options = ConsumerOptions(groupID: configuration.names.group("push"))
        // What may wait here is what is read a second while behind (`ConsumerOptions`): some 70,000 records.
        options.queuedBytesMax = 32 << 20
        options.reportsEndOfPartition = true
        consumer = try Consumer(configuration.kafka, options)
        dead = try DeadLetters(configuration, on: loop, log: log)
        dispatcher = try Dispatcher(configuration, dead: dead, on: loop, clock: clock, metrics: metrics)
    }

    func start() throws {
        dispatcher.onSettled = { [unowned self] records in
            for record in records { tracker.settle(record) }
        }
        dispatcher.onFinished = { [unowned self] user, wasTold in
            coalescer.finish(user, wasTold: wasTold, nowMs: clock.wallMs)
            sendSoon()
        }
        watches.append(try loop.watch(consumer.wakeDescriptor) { [unowned self] _ in readLog() })
        watches.append(try loop.watch(dead.producer.wakeDescriptor) { [unowned self] _ in readReports() })
        if configuration.dryRun {
            try readBesideTheGroup()
        } else {
            try consumer.subscribe([configuration.names[.push]])
            commitNow()
        }
        tick()
    }

    func stop() {
        for watch in watches { watch.cancel() }
        // What is written to the log now may still be committed; what is under way to receivers comes again.
        dead.close()
        dispatcher.close()
        commit(waiting: true)
        consumer.close(deadlineMs: 5000)
        probe.close()
    }

    private func fail(_ error: any Error) {
        failure = error
        loop.stop()
    }

    // MARK: Reading

    private func readLog() {
        let batch = consumer.poll(maxMessages: 2000)
        let names = configuration.names
        for index in 0..<batch.count {
            let message = batch[index]
            switch names.topic(named: consumer.name(of: message.topic)) {
            case .push: take(message)
            case .presence: takePresence(message)
            case .signals: takeSignal(message)
            default: break
            }
        }
        if let event = batch.event { handle(event) }
        sendSoon()
        pauseOrResume()
    }

    private func readReports() {
        do throws(KafkaError) { try dead.poll() } catch { fail(error) }
    }

    private func take(_ message: borrowing Message) {
        metrics.records.add()
        let position = RecordPosition(partition: message.partition, offset: message.offset)
        tracker.begin(position)
        guard let value = message.value else { return tracker.settle(position) }
        let record: PushRecord
        do throws(JSONError) {
            record = try PushRecord(decoding: value)
        } catch {
            return reject(value, position, error)
        }
        let newestMs = record.at ?? message.timestampMs
        if seen.wasSeen(record.user, afterMs: newestMs) { return settleUntold([position]) }
        let last = value.extracting(record.last)
        let event = LastEvent(last)
        coalescer.add(
            Notice.ChatPart(
                chat: record.chat, count: record.count, last: [UInt8](copying: last), lastSeq: event.seq,
                newestMs: newestMs, isMention: event.mentions(record.user, in: last), record: position),
            for: record.user, nowMs: clock.wallMs)
    }

    private func reject(_ value: Span<UInt8>, _ position: RecordPosition, _ error: JSONError) {
        metrics.rejected.add()
        if configuration.dryRun {
            log.warning("a record would be rejected", ["error": "\(error)", "offset": .init(position.offset)])
            return tracker.settle(position)
        }
        dead.reject(value, reason: "\(error)", topic: configuration.names[.push], position) { [unowned self] in
            tracker.settle(position)
        }
    }

    /// The topic is read from its beginning, so most of what it tells is old: only the times count.
    private func takePresence(_ message: borrowing Message) {
        guard let value = message.value, let record = try? PresenceRecord(decoding: value) else { return }
        seen.saw(record.user, atMs: record.lastSeen, nowMs: clock.wallMs)
        settleUntold(coalescer.cancel(record.user, seenMs: record.lastSeen))
    }

    /// Whoever has read a message, or whose device says that it was delivered, need not be told of it.
    private func takeSignal(_ message: borrowing Message) {
        guard let value = message.value, let signal = try? Signal(decoding: value), signal.kind != .typing,
            let seq = signal.seq
        else { return }
        settleUntold(coalescer.read(signal.from, chat: signal.chat, seq: seq))
    }

    private func settleUntold(_ records: [RecordPosition]) {
        guard !records.isEmpty else { return }
        metrics.cancelled.add()
        for record in records { tracker.settle(record) }
    }

    // MARK: The group

    private func handle(_ event: ConsumerEvent) {
        metrics.faults.tell(event)
        do throws(KafkaError) {
            switch event {
            case .assigned(let partitions):
                log.info("assigned", ["partitions": .init(partitions.count)])
                try assign(partitions)
            case .revoked(let partitions, let lost):
                if !lost { commit(waiting: true) }
                for partition in partitions {
                    coalescer.remove(partition: partition.partition)
                    tracker.remove(partition: partition.partition)
                }
                assigned = []
                health.partitions.failed(PushHealth.isNoMember)
                try consumer.unassign()
            case .error(let error, let partition):
                log.warning("the log", ["error": "\(error)", "partition": "\(partition.map { "\($0)" } ?? "")"])
                if error.isFatal { fail(error) }
            case .passedOver: break
            case .lostPlace(let place): try readOn(place)
            case .committed(_, let error):
                if let error { commitFailed(error) }
            case .endOfPartition(let partition, _):
                if partition.topic == configuration.names[.presence] { presenceLeft.remove(partition.partition) }
            }
        } catch {
            fail(error)
        }
    }

    /// Reads these from the committed offsets, and beside them presence of the same people from its beginning (it is
    /// compacted), and receipts of all chats from now on.
    private func assign(_ partitions: [TopicPartition]) throws(KafkaError) {
        let names = configuration.names
        let presence = partitions.map { PartitionStart(TopicPartition(names[.presence], $0.partition), at: .beginning) }
        let signals = (try? dead.producer.warmUp(topics: [names[.signals]]))?.first ?? 0
        try consumer.assign(
            partitions.map { PartitionStart($0, at: .committed) } + presence
                + (0..<signals).map { PartitionStart(TopicPartition(names[.signals], $0), at: .end) })
        if isPaused { try consumer.resume(partitions) }
        isPaused = false
        assigned = partitions
        health.partitions.met()
        presenceLeft = Set(partitions.map(\.partition))
        presenceDeadlineMs = loop.monotonicMs + UInt64(Self.presenceWaitMs)
    }

    /// What waits of `chat.push` was written to a log that is another now, and its offsets with it. Reading goes on with what the
    /// log has and was not read: behind the place where it was cut off, else from its beginning; receipts from its end.
    private func readOn(_ place: LostPlace) throws(KafkaError) {
        let names = configuration.names
        var start = place.unread
        switch names.topic(named: place.partition.topic) {
        case .push:
            coalescer.remove(partition: place.partition.partition)
            tracker.remove(partition: place.partition.partition)
        case .signals: start.position = .end
        default: break
        }
        try consumer.seek([start])
    }

    /// From where the group stands, without being of it: nobody's partitions move, and nothing is committed.
    private func readBesideTheGroup() throws(KafkaError) {
        let topic = configuration.names[.push]
        let count = try dead.producer.warmUp(topics: [topic]).first ?? 0
        try assign((0..<count).map { TopicPartition(topic, $0) })
    }

    // MARK: Sending

    private func tick() {
        sendDue()
        pauseOrResume()
        consumer.stayInGroup()
        health.look(dispatcher, dead)
        loop.schedule(afterMs: 100) { [unowned self] in tick() }
    }

    /// Once a tick of the loop, however much happened in it.
    private func sendSoon() {
        guard !isSendDue else { return }
        isSendDue = true
        loop.atTickEnd { [unowned self] in
            isSendDue = false
            sendDue()
        }
    }

    private func sendDue() {
        guard presenceLeft.isEmpty || loop.monotonicMs >= presenceDeadlineMs else { return }
        let room = dispatcher.room
        guard room > 0 else { return }
        let notices = coalescer.take(nowMs: clock.wallMs, limit: room)
        if !notices.isEmpty { dispatcher.dispatch(notices) }
    }

    /// At the limits of memory reading stops: the log holds the backlog for as long as the webhook is away.
    private func pauseOrResume() {
        metrics.waiting.set(coalescer.count)
        metrics.unsettled.set(tracker.open)
        metrics.bytes.set(coalescer.bytes + dead.bytes)
        let fullness = fullness
        let mustPause = fullness >= 1 || isPaused && fullness > 0.5
        guard mustPause != isPaused, !assigned.isEmpty else { return }
        isPaused = mustPause
        metrics.paused.set(mustPause ? 1 : 0)
        log.info(mustPause ? "memory is full: the log holds the rest" : "reading goes on")
        do throws(KafkaError) {
            if mustPause { try consumer.pause(assigned) } else { try consumer.resume(assigned) }
        } catch {
            fail(error)
        }
    }

    /// The part of what may be kept that is.
    private var fullness: Double {
        let limits = configuration.memory
        return max(
            Double(coalescer.count) / Double(limits.people), Double(tracker.open) / Double(limits.records),
            Double(tracker.spanMax) / Double(limits.offsets),
            Double(coalescer.bytes + dead.bytes) / Double(limits.bytes))
    }

    // MARK: Committing

    private func commitNow() {
        let now = loop.monotonicMs
        // While notices wait on purpose the offsets stand still; the note says that nothing is late.
        let isNoteDue = now - notedAtMs >= Self.noteEveryMs
        if isNoteDue { notedAtMs = now }
        commit(waiting: false, withNote: isNoteDue)
        loop.schedule(afterMs: 500) { [unowned self] in commitNow() }
    }

    private func commit(waiting: Bool, withNote: Bool = false) {
        guard !configuration.dryRun else { return }
        let topic = configuration.names[.push]
        let nowMs = clock.wallMs
        let note = PushNote(atMs: nowMs, dueMs: coalescer.overdueSinceMs(nowMs: nowMs)).text
        let offsets = tracker.takeCommittable(withWaiting: withNote).map {
            CommittedOffset(TopicPartition(topic, $0.partition), offset: $0.offset, metadata: note)
        }
        guard !offsets.isEmpty else { return }
        do throws(KafkaError) {
            if waiting { try consumer.commit(offsets) } else { try consumer.commitLater(offsets) }
        } catch {
            commitFailed(error)
        }
    }

    /// At worst a restart repeats some notices under the same keys.
    private func commitFailed(_ error: KafkaError) {
        log.warning("commit", ["error": "\(error)"])
        tracker.commitAgain()
    }
}
