import KafkaClient
import PostgresClient
import Runtime
import System
import Wire

/// The stage's state and its handles, on its loop's thread.
final class PushWorker {
    private let configuration: PushConfiguration
    private let loop: EventLoop
    private let log: Log
    private let metrics: PushMetrics
    private let clock: any Clock
    private let consumer: Consumer
    private let dead: DeadLetters
    private let sender: WebhookSender?
    private let preferences: Preferences?

    private var coalescer: Coalescer
    private var tracker = CommitTracker()
    private var seen = SeenTable()
    private var watches: [Registration] = []
    private var isPaused = false
    private var assigned: [TopicPartition] = []
    private(set) var failure: (any Error)?

    init(
        _ configuration: PushConfiguration, on loop: EventLoop, log: Log, metrics: PushMetrics, clock: any Clock
    ) throws {
        self.configuration = configuration
        self.loop = loop
        self.log = log
        self.metrics = metrics
        self.clock = clock
        coalescer = Coalescer(configuration.coalescing)
        var options = ConsumerOptions(groupID: configuration.names.group("push"))
        options.queuedBytesMax = 4 << 20
        consumer = try Consumer(configuration.kafka, options)
        dead = try DeadLetters(configuration, log: log)
        if let webhook = configuration.webhook, !configuration.dryRun {
            sender = try WebhookSender(configuration, url: webhook, on: loop, clock: clock, metrics: metrics)
        } else {
            sender = nil
        }
        preferences = configuration.postgres.map { Preferences($0, on: loop, clock: clock) }
    }

    func start() throws {
        sender?.onSettled = { [unowned self] notice, settled in self.settled(notice, settled) }
        try consumer.subscribe([configuration.names[.push]])
        watches.append(try loop.watch(consumer.wakeDescriptor) { [unowned self] _ in readLog() })
        watches.append(try loop.watch(dead.producer.wakeDescriptor) { [unowned self] _ in dead.poll() })
        tick()
        commitNow()
    }

    func stop() {
        for watch in watches { watch.cancel() }
        sender?.close()
        dead.close()
        commit(waiting: true)
        consumer.close(deadlineMs: 5000)
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
        sendDue()
        pauseOrResume()
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
            metrics.rejected.add()
            dead.reject(value, reason: "\(error)", topic: configuration.names[.push], position) { [unowned self] in
                tracker.settle(position)
            }
            return
        }
        let last = [UInt8](copying: value.extracting(record.last))
        let event = LastEvent(last)
        // Whoever has been online since has got the message itself.
        if seen.wasSeen(record.user, afterMs: message.timestampMs) {
            metrics.cancelled.add()
            return tracker.settle(position)
        }
        coalescer.add(
            user: record.user, chat: record.chat, count: record.count, last: last, lastSeq: event.seq,
            isMention: event.mentions(record.user), record: position, nowMs: clock.wallMs)
    }

    private func takePresence(_ message: borrowing Message) {
        guard let value = message.value, let record = try? PresenceRecord(decoding: value) else { return }
        seen.saw(
            record.user, atMs: record.status == .online ? message.timestampMs : record.lastSeen, nowMs: clock.wallMs)
        if record.status == .online { settleUntold(coalescer.cancel(record.user)) }
    }

    private func takeSignal(_ message: borrowing Message) {
        guard let value = message.value, let signal = try? Signal(decoding: value), signal.kind == .read,
            let seq = signal.seq
        else { return }
        settleUntold(coalescer.read(signal.from, chat: signal.chat, seq: seq))
    }

    private func settleUntold(_ records: [RecordPosition]) {
        guard !records.isEmpty else { return }
        metrics.cancelled.add()
        for record in records { tracker.settle(record) }
    }

    private func handle(_ event: ConsumerEvent) {
        do throws(KafkaError) {
            switch event {
            case .assigned(let partitions):
                assigned = partitions
                log.info("assigned", ["partitions": .init(partitions.count)])
                try consumer.assign(partitions.map { PartitionStart($0, at: .committed) } + companions(of: partitions))
                isPaused = false
            case .revoked(let partitions, let lost):
                if !lost { commit(waiting: true) }
                for partition in partitions {
                    coalescer.remove(partition: partition.partition)
                    tracker.remove(partition: partition.partition)
                }
                assigned = []
                try consumer.unassign()
            case .error(let error, let partition):
                log.warning("the log", ["error": "\(error)", "partition": "\(partition.map { "\($0)" } ?? "")"])
                if error.isFatal { fail(error) }
            case .committed(_, let error):
                if let error { log.warning("commit", ["error": "\(error)"]) }
            case .endOfPartition: break
            }
        } catch {
            fail(error)
        }
    }

    /// Presence of the same people from its beginning (it is compacted), and receipts of all chats from now on.
    private func companions(of partitions: [TopicPartition]) -> [PartitionStart] {
        let names = configuration.names
        let presence = partitions.map {
            PartitionStart(TopicPartition(names[.presence], $0.partition), at: .beginning)
        }
        let counts = try? dead.producer.warmUp(topics: [names[.signals]])
        let signals = (0..<(counts?.first ?? 0)).map {
            PartitionStart(TopicPartition(names[.signals], $0), at: .end)
        }
        return presence + signals
    }

    private func fail(_ error: any Error) {
        failure = error
        loop.stop()
    }

    // MARK: Sending

    private func tick() {
        sendDue()
        pauseOrResume()
        loop.schedule(afterMs: 20) { [unowned self] in tick() }
    }

    private func sendDue() {
        let room = sender?.room ?? 1000
        guard room > 0 else { return }
        let notices = coalescer.take(nowMs: clock.wallMs, limit: room)
        metrics.waiting.set(coalescer.count)
        guard !notices.isEmpty else { return }
        guard let preferences else { return send(notices) }
        preferences.filter(notices) { [unowned self] wanted, unwanted in
            for (notice, records) in unwanted {
                metrics.muted.add()
                for record in records { tracker.settle(record) }
                if notice.chats.isEmpty { coalescer.finish(notice.user, wasTold: false, nowMs: clock.wallMs) }
            }
            send(wanted)
        }
    }

    private func send(_ notices: [Notice]) {
        guard !notices.isEmpty else { return }
        guard let sender else {
            for notice in notices {
                if configuration.dryRun { show(notice) }
                settled(notice, .told)
            }
            return
        }
        sender.send(notices)
    }

    private func show(_ notice: Notice) {
        var json = JSONWriter()
        NoticeBody.write(notice, showsPreview: configuration.showsPreview, nowMs: clock.wallMs, to: &json)
        Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
    }

    private func settled(_ notice: Notice, _ settled: WebhookSender.Settled) {
        switch settled {
        case .told:
            metrics.told.add()
            coalescer.finish(notice.user, wasTold: true, nowMs: clock.wallMs)
            for record in notice.records { tracker.settle(record) }
        case .dead(let reason):
            metrics.dead.add()
            coalescer.finish(notice.user, wasTold: false, nowMs: clock.wallMs)
            dead.bury(notice, reason: reason, showsPreview: configuration.showsPreview, nowMs: clock.wallMs) {
                [unowned self] in
                for record in notice.records { tracker.settle(record) }
            }
        }
    }

    /// At the limit of people in memory reading stops: the log holds the backlog for as long as the webhook is away.
    private func pauseOrResume() {
        let mustPause =
            coalescer.count >= configuration.peopleMax || isPaused && coalescer.count > configuration.peopleMax / 2
        guard mustPause != isPaused, !assigned.isEmpty else { return }
        isPaused = mustPause
        do throws(KafkaError) {
            if mustPause { try consumer.pause(assigned) } else { try consumer.resume(assigned) }
        } catch {
            fail(error)
        }
    }

    // MARK: Committing

    private func commitNow() {
        commit(waiting: false)
        loop.schedule(afterMs: 500) { [unowned self] in commitNow() }
    }

    private func commit(waiting: Bool) {
        let topic = configuration.names[.push]
        let offsets = tracker.takeCommittable().map {
            CommittedOffset(TopicPartition(topic, $0.partition), offset: $0.offset)
        }
        guard !offsets.isEmpty else { return }
        do throws(KafkaError) {
            if waiting { try consumer.commit(offsets) } else { try consumer.commitLater(offsets) }
        } catch {
            // The next commit covers this one; at worst a restart repeats some notices under the same keys.
            log.warning("commit", ["error": "\(error)"])
        }
    }
}
