internal import KafkaClient
internal import PostgresClient
internal import Runtime
internal import System

/// One life of CDC: from connecting to the first failure. What it knows beyond it is in Kafka and in the slot.
final class Session {
    let configuration: CDCConfiguration
    let log: Log
    let clock: any Clock
    let metrics: CDCMetrics
    let health: CDCHealth
    let loop: EventLoop
    let isStopped: () -> Bool

    var database: Database
    let store: StateStore
    let outlet: Outlet
    var writer = RowWriter()
    /// From where on the slot is there, and must not vanish.
    var hasSlot = false
    /// Set while the stream runs.
    var replication: ReplicationConnection?
    var contextID: UInt64 = 0
    var lastStatusNs: UInt64 = 0
    /// The newest place that the server has told.
    var received = LSN.zero
    let spilled: SpilledTransactions
    /// Whose changes the stream may still tell under another name.
    var routesByID: [UInt32: TableRoute] = [:]
    private let slotWatch: SlotWatch
    private var publishedCuts = 0
    private var silence: AcknowledgementWatch

    init(
        _ configuration: CDCConfiguration, _ database: consuming Database, log: Log, clock: any Clock,
        metrics: CDCMetrics, _ health: CDCHealth, loop: EventLoop, isStopped: @escaping () -> Bool
    ) throws(CDCError) {
        let systemID = try database.server().systemID
        self.configuration = configuration
        self.database = database
        self.log = log
        self.clock = clock
        self.metrics = metrics
        self.health = health
        self.loop = loop
        self.isStopped = isStopped
        var names: [String] = []
        for route in configuration.routes where !names.contains(route.topic) { names.append(route.topic) }
        let store = try StateStore(configuration, topic: names[0], clock: clock)
        self.store = store
        outlet = try Outlet(
            configuration, topics: names, from: store.current?.position ?? .zero, firstPartitionEnd: store.offset)
        slotWatch = SlotWatch(configuration, log: log, metrics: metrics)
        spilled = SpilledTransactions(
            directory: "\(configuration.spillDirectory)/fanout-cdc-\(systemID)-\(configuration.slot)")
        silence = AcknowledgementWatch(from: clock.monotonicNs)
        writer.valueBytesMax = configuration.producer.messageBytesMax - 1000
        // Broken before this session goes; the outlet does not outlive it.
        outlet.whileFull = { [unowned self] () throws(CDCError) in try keepUp() }
    }

    func close() {
        outlet.whileFull = { () throws(CDCError) in }
        outlet.producer.close(deadlineMs: 0) { _ in }
        store.close()
        spilled.close()
    }

    // MARK: From start to end

    func run() throws(CDCError) {
        // Later on a table that cannot be followed is no reason to stop for the others.
        if store.current == nil { for route in configuration.routes { try check(route) } }
        let server = try serverFacts()
        let slot = try database.slot(configuration.slot)
        switch StartDecision.decide(stored: store.current, slot: slot, server: server) {
        case .stream: try lookAtTables()
        case .restored(let reason):
            guard configuration.acceptsRestoredDatabase else {
                throw CDCError(
                    .restoredDatabase,
                    "\(reason): it was restored from a backup, or is not the one that was meant; reading it again would "
                        + "delete from \(outlet.topicNames.joined(separator: ", ")) every row that it does not have",
                    hint: "fanout cdc --accept-restored-database once, if these rows shall go")
            }
            log.warning(
                "reading a restored database, and deleting from the topics what it does not have",
                ["reason": "\(reason)"])
            try snapshot(server, replacing: slot)
        case .refuse(let reason): throw CDCError(foreignSlot: configuration.slot, reason)
        case .resumeSnapshot:
            try lookAtTables()
            log.info(
                "resuming the snapshot", ["unread": .init(store.current?.unread(of: outlet.topicNames).count ?? 0)])
            try resumeSnapshot()
        case .snapshot(let reason):
            let isFirst = store.current == nil && slot == nil
            if !isFirst, configuration.resnapshot == .never {
                throw CDCError(
                    .slotLost, "\(reason); changes may be missing from the topics",
                    hint: "fanout cdc --resnapshot auto, which reads the tables again and deletes what is gone")
            }
            if isFirst { log.info("reading the tables", ["reason": "\(reason)"]) }
            if !isFirst { log.warning("reading the tables again", ["reason": "\(reason)"]) }
            do throws(CDCError) {
                try snapshot(server, replacing: slot)
            } catch {
                if isFirst, error.isFinal || store.current == nil { dropSlotOfFailedStart() }
                throw error
            }
        }
        // A standby has taken over that has all of what we know, or an older version did not store it.
        if store.current?.timeline != server.timeline || store.current?.databaseID != server.databaseID {
            try store.update(firstPartitionEnd: outlet.firstPartitionEnd) {
                ($0.timeline, $0.databaseID) = (server.timeline, server.databaseID)
            }
        }
        try stream()
    }

    private func serverFacts() throws(CDCError) -> ServerFacts {
        let known = try database.server()
        var connection = try replicationConnection()
        do throws(PostgresError) {
            let timeline = try connection.identifySystem().timeline
            let forks = try connection.forks(of: timeline).map { ServerFacts.Fork(timeline: $0.timeline, at: $0.at) }
            return ServerFacts(
                systemID: known.systemID, database: database.name, databaseID: known.databaseID, timeline: timeline,
                forks: forks, position: known.position)
        } catch {
            throw CDCError(error, "cannot read the server's timeline")
        }
    }

    func encoder(for relation: Relation) throws(CDCError) -> TableEncoder? {
        guard
            let route = configuration.routes.first(where: {
                $0.schema == relation.schema && $0.table == relation.name
            }), let topic = outlet.topicNames.firstIndex(of: route.topic)
        else { return nil }
        return try TableEncoder(
            relation, route: route, topic: topic, partitions: outlet.partitions[topic], database: database.name,
            binary: configuration.binary)
    }

    func context(lsn: LSN, xid: UInt32, commitMs: Int64) -> ChangeContext {
        contextID += 1
        return ChangeContext(
            id: contextID, lsn: lsn, xid: xid, commitMs: commitMs, snapshot: .none, nowMs: clock.wallMs)
    }

    /// For what a snapshot shows, or shows no more.
    func context(ofSnapshotAt lsn: LSN, _ snapshot: ChangeContext.Snapshot) -> ChangeContext {
        contextID += 1
        return ChangeContext(
            id: contextID, lsn: lsn, xid: nil, commitMs: clock.wallMs, snapshot: snapshot, nowMs: clock.wallMs)
    }

    /// What must go on while something else takes long, and a stop is heard.
    func keepUp() throws(CDCError) {
        health.thread.met()
        if isStopped() { throw CDCError(.stopped, "stopped") }
        try lookAround(clock.monotonicNs)
    }

    /// What must go on in any case: the server hears from us, silence of Kafka's is told, the slot is looked after.
    func lookAround(_ now: UInt64) throws(CDCError) {
        watchKafka(now)
        if now - lastStatusNs > UInt64(configuration.statusIntervalMs) * 1_000_000 { try sendStatus(now) }
        guard hasSlot else { return }
        let isAnswered = try slotWatch.look(now)
        if isAnswered, replication != nil { health.streams() }
    }

    /// Not while a row is being written: the writer is taken then.
    func publishCuts() {
        metrics.cut.add(writer.cutCount - publishedCuts)
        publishedCuts = writer.cutCount
    }

    private func watchKafka(_ now: UInt64) {
        switch silence.look(now, acknowledged: outlet.acknowledgedCount, inFlight: outlet.producer.inFlight) {
        case .silent:
            log.warning(
                "waiting for Kafka, which acknowledges nothing", ["records": .init(outlet.producer.inFlight)])
            health.output.failed("the log acknowledges nothing that is written")
        case .back:
            log.info("Kafka acknowledges again")
            health.output.met()
        case nil: break
        }
    }

    func sendStatus(_ now: UInt64) throws(CDCError) {
        lastStatusNs = now
        guard replication != nil else { return }
        let flushed = store.current?.position ?? .zero
        do throws(PostgresError) {
            try replication?.sendStatus(written: max(received, flushed), flushed: flushed, nowMs: clock.wallMs)
        } catch {
            throw CDCError(error, "cannot answer the server")
        }
    }
}
