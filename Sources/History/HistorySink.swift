// The sink's one thread.
//
// Where it is stands in Postgres, in the transactions that store the records. So whatever goes wrong has one remedy:
// forget what is under way, read the positions from the database, and go on from there. It is done when the group gives
// partitions, when Postgres was away, and when another sink turns out to have moved a position.
//
// The group's offsets are committed after the transaction, for `fanout lag` to see; nobody starts from them.
internal import KafkaClient
internal import PostgresClient
internal import Runtime
internal import Store
internal import Wire

final class HistorySink {
    private let stage: History
    private let configuration: HistoryConfiguration
    private let log: Log
    private let consumer: Consumer
    private let rejects: RejectLog
    private let messages: ConsumerTopic
    private let messagesName: String
    private let signalsName: String

    private let database: ReconnectingStore
    private let thread: Health.Condition
    private let probe: LogProbe
    private var doesPostgresAnswer = false
    private var state = State.idle
    private var days = Days()
    /// Partitions that the group gave.
    private var assigned: [Int32] = []
    /// What is stored, and what is with the batch.
    private var stored: [PartitionKey: SinkBatch.Position] = [:]
    private var pending: [PartitionKey: SinkBatch.Position] = [:]
    private var batch = SinkBatch()
    private var early = EarlyMarks()
    private var isHoldingSignals = false
    /// Of messages: when the end of the partition's log was last seen stored.
    private var completeMs: [Int32: Int64] = [:]
    /// Records of the batch that cannot be stored.
    private var refusals: [Refusal] = []
    private var batchSinceMs: Int64 = 0
    private var lastUpkeepMs: Int64 = 0
    private var lastRetentionMs: Int64 = 0
    /// Where logs were cut off, until it is looked at.
    private var cuts: [PartitionKey: Int64] = [:]
    private let guardian: DatabaseGuard
    private var backoffMs = HistorySink.backoffMinMs
    /// When to say who holds the partitions that a rebuild waits for; `nil` once it is said.
    private var tellHoldersAtMs: Int64?
    /// Where the partitions ended when they were first read (`fanout history rebuild`).
    private var ends: [PartitionKey: Int64] = [:]

    private enum State: Equatable {
        /// The group has given nothing.
        case idle
        /// The positions are to be read, not before this time.
        case startingOver(notBeforeMs: Int64)
        case running
    }

    /// A transaction that is lost in a crash of the server is read again from the log, position and all. And the sink looks
    /// rows up by their keys, always: to join a batch of thousands the planner would read all chats instead, every time.
    private static let settings = """
        SET application_name = 'fanout history'; SET synchronous_commit = off;
        SET enable_hashjoin = off; SET enable_mergejoin = off
        """

    static let backoffMinMs = 50
    static let backoffMaxMs = 5000
    static let postgresPatienceMs = 10_000
    static let upkeepEveryMs: Int64 = 1000
    static let holdersAfterMs: Int64 = 2000
    static let retentionEveryMs: Int64 = 3_600_000

    init(_ stage: History) throws {
        self.stage = stage
        configuration = stage.configuration
        let log = stage.log
        self.log = log
        let kafkaLog: KafkaLogSink = { line in log.debug("librdkafka", ["line": "\(line.facility) \(line.message)"]) }
        var options = ConsumerOptions(groupID: configuration.names.group("history"))
        options.groupInstanceID = configuration.groupInstanceID
        // Nobody waits for the sink: what comes within a moment comes in one answer and goes into one transaction.
        options.fetchBytesMin = 1 << 20
        options.fetchWaitMs = 200
        consumer = try Consumer(configuration.kafka, options, log: kafkaLog)
        messagesName = configuration.names[.messages]
        signalsName = configuration.names[.signals]
        messages = consumer.topic(messagesName)
        _ = consumer.topic(signalsName)
        database = ReconnectingStore(configuration.postgres, setUp: Self.settings) {
            log.debug("postgres", ["notice": "\($0)"])
        }
        thread = stage.health.thread("history")
        probe = try LogProbe(configuration.kafka, topics: [messagesName, signalsName], stage.health)
        guardian = DatabaseGuard(log)
        rejects = try RejectLog(configuration.kafka, topic: configuration.names[.rejected], log: kafkaLog)
    }

    func run() throws {
        try consumer.subscribe([messagesName])
        defer { finish() }
        if configuration.stopsAtEnd { tellHoldersAtMs = nowMs + Self.holdersAfterMs }
        while !stage.mustStop {
            thread.beat()
            if case .startingOver(let notBeforeMs) = state, nowMs >= notBeforeMs { try startOver() }
            let wait =
                batch.isEmpty
                ? (state == .running ? 100 : 20) : max(0, configuration.lingerMs - Int(nowMs - batchSinceMs))
            let room = configuration.batchRecordsMax - batch.recordCount
            let polled = consumer.poll(maxMessages: max(1, room), timeoutMs: wait)
            let event = polled.event
            take(polled)
            if let event { try handle(event) }
            let isFull = batch.recordCount >= configuration.batchRecordsMax
            if !batch.isEmpty, isFull || nowMs - batchSinceMs >= configuration.lingerMs { try storeBatch() }
            try rejects.poll()
            try upkeep()
            try holdSignals()
            if let time = tellHoldersAtMs, nowMs >= time { tellHolders() }
            if configuration.stopsAtEnd, isAtEnd() { break }
        }
        if !batch.isEmpty { try storeBatch() }
    }

    private var nowMs: Int64 { stage.clock.wallMs }

    private func finish() {
        rejects.close()
        probe.close()
        if configuration.keepsPartitions {
            consumer.close(deadlineMs: 5000)
        } else if let error = consumer.closeForGood(deadlineMs: 5000) {
            log.warning("others get the partitions only when the session times out", ["why": "\(error)"])
        }
    }

    // MARK: Taking

    private func take(_ polled: consuming MessageBatch) {
        guard !polled.isEmpty else { return }
        if batch.isEmpty { batchSinceMs = nowMs }
        let now = nowMs
        let oldestMs = Day.start(of: now) - Int64(configuration.retentionDays) * Day.ms
        for index in 0..<polled.count {
            let message = polled[index]
            let isMessage = message.topic == messages
            let key = PartitionKey(topic: isMessage ? messagesName : signalsName, partition: message.partition)
            // Only what follows what we have: nothing of a partition that was taken away meanwhile.
            guard var position = pending[key], message.offset >= position.nextOffset else { continue }
            let outcome =
                isMessage
                ? batch.add(
                    message: message.value, partition: message.partition, offset: message.offset,
                    recordMs: message.timestampMs, nowMs: now, oldestMs: oldestMs, position: &position)
                : batch.add(
                    signal: message.value, partition: message.partition, offset: message.offset,
                    recordMs: message.timestampMs, position: &position,
                    reachedSeq: reached(message.partition)?.seq ?? -1, early: &early)
            pending[key] = position
            switch outcome {
            case .taken: break
            case .repeated: stage.counts.repeated.add()
            case .bad(let reason):
                var refusal = Refusal(
                    source: SourcePosition(topic: key.topic, partition: key.partition, offset: message.offset),
                    reason: "malformed", detail: reason)
                if let key = message.key { refusal.key = [UInt8](copying: key) }
                if let value = message.value { refusal.value = [UInt8](copying: value) }
                refusals.append(refusal)
            }
        }
    }

    // MARK: Events

    private func handle(_ event: ConsumerEvent) throws {
        stage.counts.faults.tell(event)
        switch event {
        case .assigned(let partitions):
            assigned = partitions.filter { $0.topic == messagesName }.map(\.partition)
            log.info("assigned", ["partitions": .int(Int64(assigned.count))])
            try consumer.assign([])
            state = .startingOver(notBeforeMs: 0)
        case .revoked(let partitions, let lost):
            log.info("revoked", ["partitions": .int(Int64(partitions.count)), "lost": .bool(lost)])
            // What is under way can still be stored: the positions decide, not the group.
            if !lost, !batch.isEmpty { try storeBatch() }
            forget()
            assigned = []
            state = .idle
            try consumer.unassign()
        case .committed(_, let error):
            if let error { log.debug("offsets not committed", ["error": "\(error)"]) }
        case .endOfPartition, .passedOver: break
        case .lostPlace(let place):
            if case .truncated(let end?) = place.reason {
                cuts[PartitionKey(topic: place.partition.topic, partition: place.partition.partition)] = end
            }
            try startOverLater()
        case .error(let error, _):
            if error.isFatal { throw HistoryError(error.isNameTaken ? .nameTaken : .kafka, "\(error)") }
            if error.code == .authentication || error.code == .authorization {
                throw HistoryError(.kafka, "\(error)")
            }
            log.warning("kafka", ["error": "\(error)"])
        }
    }

    private func forget() {
        batch.removeAll()
        early.removeAll()
        completeMs = [:]
        refusals = []
        pending = [:]
        stored = [:]
    }

    /// Reads nothing for a while, still a member of the group, and starts over.
    private func startOverLater() throws {
        forget()
        try consumer.assign([])
        state = .startingOver(notBeforeMs: nowMs + Int64(backoffMs))
        backoffMs = min(backoffMs * 2, Self.backoffMaxMs)
    }

    /// Goes on from the positions in the database. The group's partitions are assigned by then, with nothing to read.
    private func startOver() throws {
        forget()
        let keys = assigned.flatMap {
            [PartitionKey(topic: messagesName, partition: $0), PartitionKey(topic: signalsName, partition: $0)]
        }
        let partitionCount: Int32
        let isComplete: Bool
        let extents: [PartitionKey: LogExtent]
        do throws(KafkaError) {
            partitionCount = try rejects.partitionCount(of: messagesName)
            let logs = try configuration.kafka.identities(of: [messagesName, signalsName])
            extents = try consumer.extents(
                of: keys, logs: [messagesName: logs[0], signalsName: logs[1]].compactMapValues { $0 })
        } catch {
            log.warning("the log does not tell how far it reaches", ["error": "\(error)"])
            return try startOverLater()
        }
        if configuration.stopsAtEnd, extents.count < keys.count {
            log.warning("waiting for all partitions", ["found": .int(Int64(extents.count))])
            return try startOverLater()
        }
        do throws(PostgresError) {
            isComplete = try takesPart()
            if isComplete {
                stored = try use { store throws(PostgresError) in
                    // What is kept of them may be of another database by now.
                    days = Days()
                    try days.makeAhead(nowMs: nowMs, &store)
                    return try SinkWriter.positions(of: keys, partitionCount: partitionCount, &store)
                }
                for (key, extent) in extents { try compare(key, extent) }
                try learnLogs(extents)
            }
        } catch {
            return try postgresFailed(error)
        }
        guard isComplete else { return try startOverLater() }
        pending = stored
        try consumer.assign(
            keys.map { key in
                // Before its beginning a log gives nothing; the first record read then shows what is missing.
                let offset = max(stored[key]?.nextOffset ?? 0, extents[key]?.begin ?? 0)
                return PartitionStart(
                    TopicPartition(key.topic, key.partition), at: .offset(offset), log: stored[key]?.log)
            })
        state = .running
        isHoldingSignals = false
        stage.counts.postgresUp.set(1)
    }

    /// Writes down which logs the positions are of, where it was not known.
    private func learnLogs(_ extents: [PartitionKey: LogExtent]) throws(PostgresError) {
        var learned: [PartitionKey: LogIdentity] = [:]
        for (key, extent) in extents where stored[key] != nil && stored[key]?.log == nil {
            guard let log = extent.log else { continue }
            learned[key] = log
            stored[key]?.log = log
        }
        try use { store throws(PostgresError) in try SinkWriter.setLogs(learned, &store) }
    }

    /// Makes a position one that the log has.
    private func compare(_ key: PartitionKey, _ extent: LogExtent) throws(PostgresError) {
        guard let position = stored[key] else { return }
        if ends[key] == nil { ends[key] = extent.end }
        let facts: Log.Fields = [
            "partition": "\(key)", "stored": .int(position.nextOffset), "end": .int(extent.end),
            "was": "\(position.log.map { "\($0.topicID)" } ?? "unknown")",
            "now": "\(extent.log.map { "\($0.topicID)" } ?? "unknown")",
        ]
        // Signals are kept for a day, and missing some is nothing to tell devices.
        let isLoss = key.topic == messagesName
        switch extent.judge(nextOffset: position.nextOffset, of: position.log, cutAt: cuts[key]) {
        case .goOn: break
        case .startAtBeginning:
            log.error(
                "the topic was made again: what was not stored of the old log is lost; starting at its beginning", facts
            )
            // Where it is known which log is which, seqs go on. Else they may have begun again with their topic.
            let lastSeq = extent.log == nil || position.log == nil ? -1 : position.lastSeq
            try move(key, to: SinkBatch.Position(nextOffset: 0, lastSeq: lastSeq, log: extent.log), isLoss)
        case .goBack(let offset):
            log.error("the log has lost its end; going on with what stands there now", facts)
            var moved = position
            moved.nextOffset = offset
            try move(key, to: moved, isLoss)
        case .skip(let offset):
            if isLoss { log.error("the log has let go of messages that were not stored", facts) }
            let now = nowMs
            try use { store throws(PostgresError) in
                try SinkWriter.skip(key, to: offset, lostBeforeMs: isLoss ? now : nil, &store)
            }
            stored[key]?.nextOffset = offset
        }
    }

    private func move(_ key: PartitionKey, to position: SinkBatch.Position, _ isLoss: Bool) throws(PostgresError) {
        stage.counts.logChanged[key.topic == messagesName]?.add()
        let now = nowMs
        try use { store throws(PostgresError) in
            try SinkWriter.move(key, to: position, lostBeforeMs: isLoss ? now : nil, &store)
        }
        stored[key] = position
        cuts[key] = nil
    }

    // MARK: Storing

    private func storeBatch() throws {
        let begin = stage.clock.monotonicNs
        for (reader, reading) in early.take(reached) { batch.add(reading, of: reader) }
        var steps: [PartitionKey: SinkWriter.Step] = [:]
        let firsts = early.positions
        for (key, read) in pending {
            var to = read
            if key.topic == signalsName, let first = firsts[key.partition] {
                to.nextOffset = min(to.nextOffset, first)
            }
            guard let from = stored[key], from != to else { continue }
            steps[key] = SinkWriter.Step(from: from, to: to, reachedMs: to.lastRecordMs)
        }
        let outcome: SinkWriter.Outcome
        var refused = refusals
        do throws(PostgresError) {
            outcome = try use { store throws(PostgresError) in
                try write(steps, &store) { rows in
                    refused = refusals + rows.map(refusal(ofRow:))
                    return tell(refused)
                }
            }
        } catch {
            return try postgresFailed(error)
        }
        switch outcome {
        case .fenced:
            log.warning("another sink has moved the positions")
            try startOverLater()
        case .untold: try startOverLater()
        case .stored:
            stage.counts.stored.add(batch.rowCount - (refused.count - refusals.count))
            stage.counts.batches.record(ns: stage.clock.monotonicNs - begin)
            for refusal in refused { count(refusal) }
            for (key, step) in steps { stored[key] = step.to }
            batch.removeAll()
            refusals = []
            backoffMs = Self.backoffMinMs
            try? consumer.commitLater(
                steps.map { step in
                    CommittedOffset(
                        TopicPartition(step.key.topic, step.key.partition), offset: step.value.to.nextOffset)
                })
        }
    }

    /// How far the messages of a partition are stored, when the batch is.
    private func reached(_ partition: Int32) -> EarlyMarks.Reached? {
        pending[PartitionKey(topic: messagesName, partition: partition)].map {
            EarlyMarks.Reached(seq: $0.lastSeq, ms: max($0.lastRecordMs, completeMs[partition] ?? 0))
        }
    }

    private func write(
        _ steps: [PartitionKey: SinkWriter.Step], _ store: inout StoreConnection, tell: ([Int]) -> Bool
    ) throws(PostgresError) -> SinkWriter.Outcome {
        try days.make(batch.days, &store)
        do throws(PostgresError) {
            return try SinkWriter.write(batch, steps, &store, tell: tell)
        } catch {
            guard Self.isAboutData(error) else { throw error }
            // Some row is there already, or not to Postgres' liking. Find it, and store the others.
            log.warning("storing row by row", ["error": "\(error)"])
            return try SinkWriter.write(batch, steps, carefully: true, &store, tell: tell)
        }
    }

    /// Classes 22 and 23 of SQLSTATE, but for a foreign key: a chat deleted meanwhile is a race that is lost once.
    private static func isAboutData(_ error: PostgresError) -> Bool {
        guard error.code == .server, let state = error.sqlState else { return false }
        return (state.hasPrefix("22") || state.hasPrefix("23")) && state != "23503"
    }

    // MARK: Refusing

    /// Of a row that Postgres would not take.
    private func refusal(ofRow index: Int) -> Refusal {
        let source = batch.sources[index]
        return Refusal(
            source: SourcePosition(topic: messagesName, partition: source.partition, offset: source.offset),
            reason: "not_stored", detail: "Postgres refuses the row", key: Array(source.chat.description.utf8),
            value: batch.value(index))
    }

    /// Whether `chat.rejected` has them. If not, nothing is stored, and all is read again.
    private func tell(_ refused: [Refusal]) -> Bool {
        do throws(KafkaError) {
            if try rejects.write(refused) { return true }
            log.warning("rejected records could not be written in time", ["count": .int(Int64(refused.count))])
        } catch {
            log.error("rejected records cannot be written", ["error": "\(error)"])
        }
        return false
    }

    private func count(_ refusal: Refusal) {
        stage.counts.rejected.add()
        log.warning(
            "rejected",
            ["source": "\(refusal.source)", "reason": .string(refusal.reason), "detail": .string(refusal.detail)])
    }

    // MARK: Postgres

    /// Waits for Postgres for as long as it takes; that is Postgres' fault, not a thread that is stuck.
    private func use<Value>(
        _ body: (inout StoreConnection) throws(PostgresError) -> Value
    ) throws(PostgresError) -> Value {
        if doesPostgresAnswer { stage.postgres.met(forMs: Self.postgresPatienceMs, else: "Postgres does not answer") }
        thread.met()
        doesPostgresAnswer = false
        defer { thread.beat() }
        let value = try database.use(body)
        doesPostgresAnswer = true
        stage.postgres.met()
        return value
    }

    /// Whether this is a database that positions may be kept in. One that is being restored has tables without their keys,
    /// in which the same position could stand twice.
    private func takesPart() throws(PostgresError) -> Bool {
        let isComplete = try use { store throws(PostgresError) in try guardian.look(at: &store) }
        if !isComplete { stage.postgres.failed("the database is not complete; is it being restored?") }
        return isComplete
    }

    private func postgresFailed(_ error: PostgresError) throws {
        stage.postgres.failed("Postgres takes nothing: \(error.message)")
        if error.sqlState == "42P01", !guardian.hasSeenComplete {
            throw HistoryError(.schemaMissing, "\(error.message); run fanout db migrate")
        }
        guard error.isTransient || error.sqlState == "23503" || guardian.isAboutSchema(error) else {
            throw HistoryError(.postgres, "\(error)")
        }
        stage.counts.postgresUp.set(error.code == .server && !guardian.isAboutSchema(error) ? 1 : 0)
        log.warning("cannot store", ["error": "\(error)", "retry_ms": .int(Int64(backoffMs))])
        try startOverLater()
    }

    /// Reads no signals while too many marks wait for their messages.
    private func holdSignals() throws(KafkaError) {
        guard state == .running, early.isFull != isHoldingSignals else { return }
        isHoldingSignals = early.isFull
        let partitions = assigned.map { TopicPartition(signalsName, $0) }
        if isHoldingSignals { try consumer.pause(partitions) } else { try consumer.resume(partitions) }
    }

    // MARK: Upkeep

    /// Each second: tell how far the sink is. Each hour: make and drop days.
    private func upkeep() throws {
        let now = nowMs
        guard state == .running, now - lastUpkeepMs >= Self.upkeepEveryMs else { return }
        lastUpkeepMs = now
        // Marks that have waited for messages which did not come.
        if !early.isEmpty, batch.isEmpty { try storeBatch() }
        do throws(PostgresError) {
            try tellHowFar()
            guard now - lastRetentionMs >= Self.retentionEveryMs else { return }
            lastRetentionMs = now
            let oldestMs = Day.start(of: now) - Int64(configuration.retentionDays) * Day.ms
            let dropped = try use { store throws(PostgresError) in
                try days.makeAhead(nowMs: now, &store)
                return try days.drop(beforeMs: oldestMs, &store)
            }
            for name in dropped { log.info("dropped", ["partition": "\(name)"]) }
        } catch {
            try postgresFailed(error)
        }
    }

    /// Where the log's end was when asked is stored, everything from before the question is.
    private func tellHowFar() throws(PostgresError) {
        let asked = nowMs
        let keys = stored.keys.filter { $0.topic == messagesName }
        let partitions = keys.map { TopicPartition($0.topic, $0.partition) }
        let answers: [Result<Int64, KafkaError>]
        do throws(KafkaError) {
            answers = try consumer.endOffsets(partitions, timeoutMs: 1000)
        } catch {
            return log.debug("cannot tell how far", ["error": "\(error)"])
        }
        var complete: [PartitionKey] = []
        for (key, answer) in zip(keys, answers) {
            guard case .success(let end) = answer else { continue }
            guard let position = stored[key], position.nextOffset >= end else { continue }
            complete.append(key)
            completeMs[key.partition] = asked
        }
        if complete.count == keys.count { stage.counts.reachedMs.set(Int(asked)) }
        try use { store throws(PostgresError) in
            try SinkWriter.setReached(complete, stored, reachedMs: asked, &store)
        }
    }

    /// For `rebuild`: whether all is stored that was there when it was first read, signals and all.
    private func isAtEnd() -> Bool {
        guard state == .running, batch.isEmpty, !stored.isEmpty else { return false }
        return stored.allSatisfy { key, position in ends[key].map { position.nextOffset >= $0 } ?? false }
    }

    /// For `rebuild`, while the group gives it nothing: says who must be stopped first, and goes on waiting.
    private func tellHolders() {
        tellHoldersAtMs = nil
        guard assigned.isEmpty else { return }
        let group = configuration.names.group("history")
        do throws(KafkaError) {
            let holders = try PartitionHolders.names(of: group, configuration.kafka)
            guard !holders.isEmpty else { return tellHoldersAtMs = nowMs + Self.holdersAfterMs }
            log.warning(
                "waiting: others hold the partitions; stop them",
                ["group": .string(group), "members": .string(holders.joined(separator: ", "))])
        } catch {
            log.warning("cannot tell who holds the partitions", ["error": "\(error)"])
        }
    }
}
