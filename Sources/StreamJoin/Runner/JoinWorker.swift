import KafkaClient
import Runtime
import System
import Wire

/// The thread of the join: one consumer, one producer, one table, and a task for each of its partitions.
///
/// A turn takes a batch from the log, offers it to the tasks, hands their output to the producer, and ends an epoch.
/// Positions are committed when everything before them is acknowledged: at intervals, and at once while a change of
/// membership is not committed or a task waits for a commit.
final class JoinWorker {
    let configuration: JoinConfiguration
    let loop: EventLoop
    let log: Log
    let metrics: JoinMetrics
    let clock: any Clock
    let consumer: Consumer
    let producer: ResendingProducer
    private var lookups: Lookups?
    let health: JoinHealth
    private let probe: LogProbe
    private let kafkaLog: KafkaLogSink
    let setup: JoinSetup
    let topics: (incoming: ConsumerTopic, members: ConsumerTopic, signals: ConsumerTopic)
    private let outputs: [ProducerTopic]
    private var registrations: [Registration] = []
    /// Whether the loop is about to be stopped: for what holds it up.
    let isStopping: () -> Bool
    let settings: TopicSettings
    /// The logs that the tasks and the table are of.
    var logs = StartingPoint.Logs()
    /// What the generations of partitions must be at least, to be above all that is numbered.
    var floors: [Int32: Int32] = [:]
    /// Where `chat.incoming` was cut off, until work has begun anew there.
    var cuts: [Int32: Int64] = [:]
    let generations: Generations

    var table: MembershipTable
    var slots: [PartitionSlot?]
    var followed: [Int32: FollowedPartition] = [:]
    private var lastFollowNs: UInt64 = 0
    var lives: UInt32 = 0
    var output = JoinOutput()
    private var headers = RecordHeaders()
    var progress = JoinProgress()
    private(set) var touched: [PartitionSlot] = []
    var commits = CommitSchedule()
    var checkpoints: CheckpointSchedule
    private var lastCounts: [Int32: (life: UInt32, counts: JoinCounts)] = [:]
    private var pace = ChangePace()
    private var changesTimer: Timer?
    /// Which partition's changes come first next time.
    private var changesTurn = 0
    private var wakeTimer: Timer?
    private var wakeAtNs: UInt64 = .max
    private var gatherTimer: Timer?
    static let gatherMs = 50
    /// What ended the work; thrown by `finish`.
    private var failure: (any Error)?
    /// It was stopped in the middle of something: what was not committed before is not to be.
    private var wasInterrupted = false

    struct Interrupted: Error {}

    init(
        _ configuration: JoinConfiguration, loop: EventLoop, log: Log, metrics: JoinMetrics, _ health: Health,
        clock: any Clock,
        isStopping: @escaping () -> Bool
    ) throws {
        self.isStopping = isStopping
        self.configuration = configuration
        self.loop = loop
        self.log = log
        self.metrics = metrics
        self.clock = clock
        self.health = JoinHealth(health)
        probe = try LogProbe(
            configuration.kafka, topics: JoinHealth.topics.map { configuration.names[$0] }, health)
        let kafkaLog: KafkaLogSink = { line in
            if line.level.rawValue <= KafkaLogLine.Level.error.rawValue {
                log.warning("kafka", ["what": "\(line.facility)", "message": "\(line.message)"])
            } else {
                log.debug("kafka", ["what": "\(line.facility)", "message": "\(line.message)"])
            }
        }
        var producing = ProducerOptions()
        // There is nothing to do but to try again; the log is late until then.
        producing.deliveryTimeoutMs = 0
        producing.queueBytesMax = configuration.queueBytesMax
        self.kafkaLog = kafkaLog
        producer = try ResendingProducer(configuration.kafka, producing, log: kafkaLog)
        let names = configuration.names
        let chatSide: [Topic] = [.incoming, .members, .signals, .messages, .rejected]
        let counts = try producer.warmUp(topics: (chatSide + [.deliveries]).map { names[$0] }, timeoutMs: 30_000)
        guard Set(counts.dropLast()).count == 1 else {
            throw JoinError(
                .topics,
                "chat-side topics differ in partitions ("
                    + zip(chatSide, counts).map { "\($0.0.rawValue): \($0.1)" }.joined(separator: ", ")
                    + "); fanout topics check says more")
        }
        outputs = try [
            producer.patientTopic(names[.messages]), producer.topic(names[.deliveries]),
            producer.topic(names[.rejected]), producer.topic(names[.members]),
        ]
        settings = try TopicSettings(configuration.kafka, names, producer: producing)
        var limits = configuration.limits
        limits.recordBytesMax = min(limits.recordBytesMax, settings.recordBytesMax)
        setup = JoinSetup(
            chatPartitions: counts[0], deliveryPartitions: counts[counts.count - 1], limits: limits, names: names)
        table = MembershipTable(
            deliveryPartitions: setup.deliveryPartitions, listedMax: max(1024, setup.limits.largeChat + 1))
        slots = Array(repeating: nil, count: Int(setup.chatPartitions))

        var options = ConsumerOptions(groupID: names.group("join"))
        options.groupInstanceID = configuration.instance
        options.setSessionTimeout(configuration.sessionTimeoutMs, configuration.kafka, log: kafkaLog)
        options.fetchWaitMs = 100
        consumer = try Consumer(configuration.kafka, options, log: kafkaLog)
        topics = (
            consumer.topic(names[.incoming]), consumer.topic(names[.members]), consumer.topic(names[.signals])
        )
        checkpoints = CheckpointSchedule(configuration)
        generations = Generations(configuration, log)
    }

    func start() throws {
        let answers = Mailbox<LookupAnswer>(on: loop, capacity: slots.count * 4) { [unowned self] batch in
            guarded {
                for answer in batch { try answered(answer) }
                closeEpoch()
                try commitIfDue()
                wakeForDeadlines()
            }
        }
        let positions = Mailbox<[Int32: Int64]>(on: loop, capacity: 4) { [unowned self] batch in
            guarded { for answer in batch { try follow(to: answer) } }
        }
        lookups = try Lookups(
            configuration, answers: answers, commits: positions, postgres: health.postgres, kafkaLog)
        try consumer.subscribe([configuration.names[.incoming]])
        registrations.append(try loop.watch(consumer.wakeDescriptor) { [unowned self] _ in guarded { try turn() } })
        registrations.append(
            try loop.watch(producer.wakeDescriptor) { [unowned self] _ in
                guarded {
                    try pollProducer()
                    try commitIfDue()
                }
            })
        scheduleTick()
    }

    /// Commits what can be committed and leaves the group.
    func finish() throws {
        if let failure {
            metrics.member.set(0)
            throw failure
        }
        if wasInterrupted {
            log.warning("stopped while the log takes nothing; what is not committed will be worked through again")
            return
        }
        try release(isLost: false)
        registrations.forEach { $0.cancel() }
        if configuration.keepsPartitions {
            consumer.close(deadlineMs: 5000)
        } else if let error = consumer.closeForGood(deadlineMs: 5000) {
            log.warning("others get the partitions only when the session times out", ["why": "\(error)"])
        }
        producer.close(deadlineMs: producer.inFlight == 0 ? 5000 : 0) { _ in }
        saveLastCheckpoint()
    }

    func close() {
        registrations.forEach { $0.cancel() }
        registrations = []
        if wasInterrupted { producer.close(deadlineMs: 0) { _ in } }
        consumer.close(deadlineMs: 5000)
        lookups?.close()
        probe.close()
    }

    /// An error ends the stage: whatever was not committed is done again after the next start.
    func guarded(_ body: () throws -> Void) {
        guard failure == nil, !wasInterrupted else { return }
        do {
            try body()
        } catch is Interrupted {
            wasInterrupted = true
            loop.stop()
        } catch {
            failure = error
            loop.stop()
        }
    }

    // MARK: A turn

    private func turn() throws {
        try poll()
        try goOnWithChanges()
        closeEpoch()
        try commitIfDue()
        wakeForDeadlines()
    }

    private func poll() throws {
        let batch = consumer.poll(maxMessages: 1000)
        for index in 0..<batch.count { try take(batch[index]) }
        if batch.count > 0 { sampleLatency(batch[batch.count - 1]) }
        guard let event = batch.event else { return }
        metrics.faults.tell(event)
        switch event {
        case .assigned(let partitions):
            closeEpoch()
            try assigned(partitions.map(\.partition))
        case .revoked(_, let isLost):
            closeEpoch()
            try release(isLost: isLost)
            try consumer.unassign()
        case .committed(_, let error): try committed(error)
        case .endOfPartition, .passedOver: break
        case .lostPlace(let place): try lost(place)
        case .error(let error, let partition):
            if error.isFatal { throw error }
            log.warning("consumer", ["error": "\(error)", "partition": "\(partition?.description ?? "-")"])
        }
    }

    /// Once a batch: how old a message is when the join has taken it.
    private func sampleLatency(_ message: borrowing Message) {
        guard message.topic == topics.incoming else { return }
        metrics.fromLog.record(ns: UInt64(max(0, loop.nowMs - message.timestampMs)) * 1_000_000)
    }

    private func take(_ message: borrowing Message) throws {
        guard let slot = slots[Int(message.partition)] else { return try follow(message) }
        touch(slot)
        if message.topic == topics.incoming {
            if slot.incoming.isEmpty,
                try offer(
                    slot, message.value, offset: message.offset, timestampMs: message.timestampMs)
            {
                return slot.members.isEmpty ? () : try drainMembers(slot)
            }
            slot.incoming.append(
                key: nil, value: message.value, offset: message.offset, timestampMs: message.timestampMs)
            try pauseIfLong(slot, slot.incoming, message.topic)
        } else if message.topic == topics.members {
            if slot.members.isEmpty, takesChanges(slot) {
                return try apply(slot, message.key, message.value, offset: message.offset)
            }
            slot.members.append(key: message.key, value: message.value, offset: message.offset, timestampMs: 0)
            try pauseIfLong(slot, slot.members, message.topic)
            try drainMembers(slot)
        } else {
            slot.task.signal(message.value, offset: message.offset, table: table, output: &output)
            try write()
        }
    }

    /// Offers a message to its task; false when it must wait.
    private func offer(
        _ slot: PartitionSlot, _ value: Span<UInt8>?, offset: Int64, timestampMs: Int64
    ) throws -> Bool {
        let step = slot.task.message(
            value, offset: offset, timestampMs: timestampMs, nowNs: loop.monotonicNs, table: table, output: &output)
        if step != .done { return false }
        try write()
        return true
    }

    private func apply(_ slot: PartitionSlot, _ key: Span<UInt8>?, _ value: Span<UInt8>?, offset: Int64) throws {
        pace.spend(slot.task.members(key: key, value: value, offset: offset, table: &table))
        checkpoints.hasChanged = true
        if !slot.incoming.isEmpty { try drain(slot) }
    }

    /// Whether a change of the partition may be taken or applied now. A message that waits for one waits no longer than it must.
    private func hasRoom(_ slot: PartitionSlot) -> Bool {
        slot.task.wait != nil || pace.hasRoom(nowNs: loop.monotonicNs)
    }

    private func takesChanges(_ slot: PartitionSlot) -> Bool { slot.task.takesChanges && hasRoom(slot) }

    /// Changes that have been read and that messages went before: a slice of each partition's.
    func goOnWithChanges() throws {
        var isLeft = false
        for index in slots.indices {
            guard let slot = slots[(changesTurn + index) % slots.count], slot.task.canGoOn || !slot.members.isEmpty
            else {
                continue
            }
            if slot.task.canGoOn, hasRoom(slot) {
                touch(slot)
                pace.spend(slot.task.goOn(table: &table))
                checkpoints.hasChanged = true
                if !slot.incoming.isEmpty { try drain(slot) }
            }
            try drainMembers(slot)
            // What waits for a commit goes on behind that.
            isLeft = isLeft || slot.task.canGoOn || slot.task.takesChanges && !slot.members.isEmpty
        }
        changesTurn = (changesTurn + 1) % slots.count
        guard isLeft, changesTimer?.isScheduled != true else { return }
        changesTimer = loop.schedule(afterMs: pace.hasRoom(nowNs: loop.monotonicNs) ? 0 : 2) { [unowned self] in
            guarded {
                try goOnWithChanges()
                closeEpoch()
                try commitIfDue()
            }
        }
    }

    /// Offers what waits, after something has changed.
    func drain(_ slot: PartitionSlot) throws {
        touch(slot)
        var backlog = Backlog()
        // Taken out of the slot meanwhile: the tasks' answers may lead back here.
        swap(&backlog, &slot.incoming)
        var thrown: (any Error)?
        backlog.drain { _, value, offset, timestampMs in
            do {
                return try offer(slot, value, offset: offset, timestampMs: timestampMs)
            } catch {
                thrown = error
                return false
            }
        }
        swap(&backlog, &slot.incoming)
        if let thrown { throw thrown }
        try resumeIfShort(slot, slot.incoming, topics.incoming)
        try drainMembers(slot)
    }

    private func drainMembers(_ slot: PartitionSlot) throws {
        guard !slot.members.isEmpty, takesChanges(slot) else { return }
        touch(slot)
        var backlog = Backlog()
        swap(&backlog, &slot.members)
        backlog.drain { key, value, offset, _ in
            guard takesChanges(slot) else { return false }
            pace.spend(slot.task.members(key: key, value: value, offset: offset, table: &table))
            return true
        }
        swap(&backlog, &slot.members)
        checkpoints.hasChanged = true
        try resumeIfShort(slot, slot.members, topics.members)
        if !slot.incoming.isEmpty { try drain(slot) }
    }

    private func pauseIfLong(_ slot: PartitionSlot, _ backlog: Backlog, _ topic: ConsumerTopic) throws {
        guard backlog.byteCount > PartitionSlot.backlogBytesMax else { return }
        let name = consumer.name(of: topic)
        if slot.pausedTopics.insert(name).inserted { try consumer.pause([TopicPartition(name, slot.partition)]) }
    }

    private func resumeIfShort(_ slot: PartitionSlot, _ backlog: Backlog, _ topic: ConsumerTopic) throws {
        guard !slot.pausedTopics.isEmpty, backlog.isEmpty else { return }
        let name = consumer.name(of: topic)
        if slot.pausedTopics.remove(name) != nil { try consumer.resume([TopicPartition(name, slot.partition)]) }
    }

    // MARK: Output

    func write() throws {
        guard !output.records.isEmpty else { return }
        var source = -1..<0
        for record in output.records {
            let bytes = output.bytes
            if record.source != source {
                source = record.source
                headers.removeAll()
                headers.append("src", bytes.span.extracting(source))
            }
            let key = record.key.isEmpty ? nil : bytes.span.extracting(record.key)
            let value: Span<UInt8>? = if let range = record.value { bytes.span.extracting(range) } else { nil }
            let tag = progress.tag()
            while try producer.produce(
                outputs[Int(record.target.rawValue)], partition: record.partition, key: key, value: value,
                headers: headers, tag: tag) == .queueFull
            {
                // The log is slower than the join: the join waits, and with it what it reads.
                try producer.poll(timeoutMs: 100, acknowledge)
                health.cameRound(inFlight: producer.inFlight)
                if let failure { throw failure }
                // Half of what a message says is written: nothing from here on may be committed.
                if isStopping() { throw Interrupted() }
            }
        }
        output.removeAll()
        if progress.isLong { closeEpoch() }
        sendGatheredSoon()
    }

    /// Nobody waits for `chat.messages` as people wait for `chat.deliveries`: its records share requests.
    private func sendGatheredSoon() {
        guard gatherTimer?.isScheduled != true, producer.hasGathered else { return }
        gatherTimer = loop.schedule(afterMs: Self.gatherMs) { [unowned self] in
            guarded {
                producer.sendGathered()
                try pollProducer()
                try commitIfDue()
            }
        }
    }

    func acknowledge(_ report: DeliveryReport) {
        if let error = report.error {
            if failure == nil { failure = JoinError(.output, "a record cannot be written: \(error)") }
            loop.stop()
        } else {
            progress.acknowledged(report.tag)
            health.output.acknowledged()
        }
    }

    func pollProducer() throws {
        try producer.poll(timeoutMs: 0, acknowledge)
    }

    /// Waits until all that was written is acknowledged.
    func flush(deadlineMs: Int) throws -> Bool {
        let isDone = try producer.flush(deadlineMs: deadlineMs, acknowledge)
        if let failure { throw failure }
        return isDone
    }

    func touch(_ slot: PartitionSlot) {
        guard !slot.isTouched else { return }
        slot.isTouched = true
        touched.append(slot)
    }

    func closeEpoch() {
        guard !touched.isEmpty else { return }
        progress.close(touched.map(\.mark))
        for slot in touched { slot.isTouched = false }
        touched.removeAll(keepingCapacity: true)
    }

    // MARK: Waiting

    /// Asks what tasks want to know, and comes back when the next of them has waited long enough.
    private func wakeForDeadlines() {
        var next = UInt64.max
        var waiting = 0
        for case let slot? in slots where !slot.incoming.isEmpty {
            waiting += 1
            while let question = slot.task.question(nowNs: loop.monotonicNs) { ask(question, slot) }
            if let deadline = slot.task.deadlineNs { next = min(next, deadline) }
        }
        metrics.waiting.set(waiting)
        guard next != .max else { return }
        if let wakeTimer, wakeTimer.isScheduled {
            if wakeAtNs <= next { return }
            wakeTimer.cancel()
        }
        wakeAtNs = next
        let ahead = next > loop.monotonicNs ? Int((next - loop.monotonicNs) / 1_000_000) : 0
        wakeTimer = loop.schedule(afterMs: ahead) { [unowned self] in
            guarded {
                for case let slot? in slots where !slot.incoming.isEmpty { try drain(slot) }
                closeEpoch()
                try commitIfDue()
                wakeForDeadlines()
            }
        }
    }

    private func ask(_ question: JoinQuestion, _ slot: PartitionSlot) {
        switch question {
        case .members: metrics.membersReads.add()
        case .original: metrics.originalReads.add()
        }
        lookups?.ask(question, partition: slot.partition, life: slot.life)
    }

    private func answered(_ answer: LookupAnswer) throws {
        // By now the partition may be another process's.
        guard let slot = slots[Int(answer.partition)], slot.life == answer.life else { return }
        switch (answer.question, answer.content) {
        case (.members, .members(let membership)):
            slot.task.membersRead(membership, table: table, output: &output)
            touch(slot)
            try write()
            log.info(
                "the log is late, members read from Postgres",
                [
                    "chat": "\(membership.chat)", "meta_version": .init(membership.metaVersion),
                    "members": .init(membership.members.count),
                ])
        case (.original(let seq), .original(let original)): slot.task.originalRead(seq: seq, original)
        default: slot.task.questionFailed(answer.question, nowNs: loop.monotonicNs)
        }
        try drain(slot)
    }

    // MARK: Others' partitions

    private func follow(_ message: borrowing Message) throws {
        guard message.topic == topics.members, let follower = followed[message.partition] else { return }
        follower.take(key: message.key, value: message.value, offset: message.offset, &table)
        checkpoints.hasChanged = true
        guard follower.waiting.byteCount > PartitionSlot.backlogBytesMax, !follower.isPaused else { return }
        follower.isPaused = true
        try consumer.pause([TopicPartition(configuration.names[.members], follower.partition)])
    }

    private func follow(to committed: [Int32: Int64]) throws {
        for follower in followed.values {
            guard let position = committed[follower.partition] else { continue }
            follower.committed(position, &table)
            guard follower.isPaused, follower.waiting.isEmpty else { continue }
            follower.isPaused = false
            try consumer.resume([TopicPartition(configuration.names[.members], follower.partition)])
        }
    }

    /// How far others have come is known from their commits alone.
    private func askCommitsIfDue() {
        guard !followed.isEmpty, clock.monotonicNs &- lastFollowNs >= Self.followEveryNs else { return }
        lastFollowNs = clock.monotonicNs
        lookups?.askCommits(Array(followed.keys))
    }

    private static let followEveryNs: UInt64 = 1_000_000_000

    // MARK: Ticks

    private func scheduleTick() {
        loop.schedule(afterMs: configuration.commitIntervalMs) { [unowned self] in
            guarded {
                try commitIfDue(isTick: true)
                askCommitsIfDue()
                countUp()
                saveCheckpointIfDue()
            }
            consumer.stayInGroup()
            health.cameRound(inFlight: producer.inFlight)
            scheduleTick()
        }
    }

    private func countUp() {
        for case let slot? in slots {
            let last = lastCounts[slot.partition]
            metrics.add(slot.task.counts, since: last?.life == slot.life ? last?.counts ?? JoinCounts() : JoinCounts())
            lastCounts[slot.partition] = (slot.life, slot.task.counts)
        }
        metrics.waitingChanges.set(slots.reduce(0) { $0 + ($1?.task.waitingChanges ?? 0) })
        metrics.memberships.set(table.memberCount)
        metrics.chats.set(table.chatCount)
        metrics.users.set(table.userCount)
        metrics.tableBytes.set(table.bytes)
    }
}
