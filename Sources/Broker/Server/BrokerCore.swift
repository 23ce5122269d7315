internal import Runtime
internal import System
import Wire

/// The broker's state and the order of its work. Everything here happens on the loop's thread.
final class BrokerCore {
    let configuration: BrokerConfiguration
    let log: Log
    let metrics: BrokerMetrics
    let loop: EventLoop
    let storage: Storage
    let commits: CommitQueue
    let groups: GroupService
    let maintenance: LoopThread
    let held: HeldBytes
    private let disk: DiskHealth
    private var connections: [ObjectIdentifier: Connection] = [:]
    /// Ids begin somewhere else at each start, and nobody keeps what was given: producers outlive a data directory that is
    /// lost, or put back as it once was, and an id that is given twice makes one producer's records the other's repeats.
    private var lastProducerID: Int64
    private var checkpointInProgress: Storage.PendingCheckpoint?
    var isCompacting = false
    private(set) var isStopping = false
    private var quietUntilMs: UInt64 = 0
    private var checkpointWanted: UInt64?
    var listener: Listener?
    /// The port clients are told, once it is known.
    var port = 0
    static let nodeID: Int32 = 1
    private static let filesAtStopMax = 500

    init(
        _ configuration: BrokerConfiguration, log: Log, metrics: BrokerMetrics, _ health: Health, loop: EventLoop
    ) throws(BrokerError) {
        self.configuration = configuration
        self.log = log
        self.metrics = metrics
        self.loop = loop
        lastProducerID = configuration.lastProducerID ?? .random(in: 1000...Int64.max / 2)
        held = HeldBytes(bytesMax: configuration.heldBytesMax, loop: loop)
        storage = try Storage(configuration, log: log, nowMs: loop.nowMs)
        if storage.topics[Topic.offsetsName] == nil {
            let config: TopicConfig
            do throws(TopicConfig.Invalid) {
                config = try TopicConfig(overrides: ["cleanup.policy": "compact", "segment.bytes": "16777216"])
            } catch {
                throw BrokerError(.corrupt, error.message)
            }
            try storage.create([(name: Topic.offsetsName, partitions: 1, config: config)], nowMs: loop.nowMs)
        }
        commits = try CommitQueue(
            loop: loop, fsync: configuration.fsync, directory: storage.journalDirectory,
            fileBytes: configuration.journalBytes, generation: storage.nextGeneration,
            reusing: storage.reusableJournals, metrics: metrics)
        groups = try GroupService(
            storage: storage, commits: commits, loop: loop, log: log,
            offsetsRetentionMs: configuration.offsetsRetentionMs)
        do {
            maintenance = try LoopThread.start(name: "maintenance") { (_: EventLoop) throws(BrokerError) in }
        } catch {
            throw BrokerError(.storage, "cannot start the maintenance thread", cause: error)
        }
        disk = DiskHealth(health, directory: configuration.dataDirectory, on: loop, maintenance)
        held.connections = { [unowned self] in Array(connections.values) }
        commits.onDirty = { [storage] in storage.noteDirty($0) }
        commits.onCommit = { $0.wakeWaiters() }
        commits.onRotation = { [unowned self] generation in checkpoint(upTo: generation) }
        commits.onFailure = { [log, disk] error in
            metrics.storageFailures.add()
            disk.failed(error)
            log.error("records could not be made durable", ["reason": .string(error.description)])
        }
        scheduleUpkeep()
        scheduleMeasurement()
        if storage.needsCheckpoint { checkpoint(upTo: storage.nextGeneration - 1) }
    }

    // MARK: Connections

    func accept(_ socket: consuming Socket) {
        guard connections.count < configuration.connectionsMax else {
            metrics.refusedConnections.add()
            log.warning("refused a connection", ["connections": .int(Int64(connections.count))])
            return
        }
        do throws(SystemError) {
            let connection = try Connection(socket, broker: self, loop: loop)
            connections[ObjectIdentifier(connection)] = connection
            metrics.connections.set(connections.count)
        } catch {
            log.warning("could not take a connection", ["reason": .string(error.description)])
        }
    }

    func closed(_ connection: Connection) {
        connections[ObjectIdentifier(connection)] = nil
        metrics.connections.set(connections.count)
    }

    /// Decodes one request and has it answered.
    func handle(_ reader: inout RequestReader, _ reply: Reply) throws(BrokerError) {
        guard let type = API.byKey[reply.header.key] else {
            throw .malformed("request \(reply.header.key), which this broker does not have")
        }
        guard type.api.versions.contains(reply.version) else {
            // The only request that a client sends before it can know the versions.
            if type.api.key == ApiVersionsRequest.api.key { return ApiVersionsRequest.refuseVersion(reply) }
            throw .malformed("\(type.api.name) version \(reply.version); \(type.api.versions) are spoken")
        }
        metrics.requests[type.api.key]?.add()
        try run(type, &reader, reply)
    }

    private func run<R: Request>(_ type: R.Type, _ reader: inout RequestReader, _ reply: Reply) throws(BrokerError) {
        let request: R
        do throws(BrokerError) {
            request = try R(from: &reader, version: reply.version)
            // Bytes behind the request are passed over, as Apache Kafka does: librdkafka 2.0.2 ends some flexible requests
            // (ListGroups 4, OffsetFetch 7) with too many tag sections, 2.16 leaves some behind a null list of topics.
            try reader.skipTags()
        } catch {
            throw .malformed("\(R.api.name) \(reply.version): \(error.message)")
        }
        try request.answer(self, reply, frame: reader.bytes)
    }

    // MARK: Topics

    func partition(_ topic: String, _ partition: Int32) -> PartitionLog? { storage.topics[topic]?.log(partition) }

    var totalPartitions: Int { storage.topics.values.reduce(0) { $0 + $1.logs.count } }

    /// Deletes a topic; whoever waits for its records is told.
    func delete(_ topic: Topic) -> ErrorCode {
        do throws(BrokerError) {
            try storage.delete(topic)
        } catch {
            reportStorage(error)
            return error.protocolCode
        }
        for log in topic.logs { log.wakeWaiters(mustAnswer: true) }
        groups.forgetOffsets(ofTopic: topic.name)
        return .none
    }

    /// Tells the operator of a failure that clients see as an error code; at most once a second, however many see it.
    func reportStorage(_ error: BrokerError) {
        metrics.storageFailures.add()
        disk.failed(error)
        guard loop.monotonicMs >= quietUntilMs else { return }
        quietUntilMs = loop.monotonicMs + 1000
        log.error("the data directory failed", ["reason": .string(error.description)])
    }

    func nextProducerID() -> Int64 {
        lastProducerID += 1
        return lastProducerID
    }

    /// Where clients are sent.
    func address(for connection: Connection) -> (host: String, port: Int32) {
        var host = configuration.advertisedHost ?? configuration.host
        if configuration.advertisedHost == nil, ["", "*", "0.0.0.0", "::", "[::]"].contains(host) {
            host = connection.localAddress?.host ?? "127.0.0.1"
        }
        return (host, Int32(configuration.advertisedPort ?? port))
    }

    // MARK: Checkpoints

    private func checkpoint(upTo generation: UInt64) {
        guard checkpointInProgress == nil else {
            checkpointWanted = generation
            return
        }
        let pending = storage.beginCheckpoint(upTo: generation)
        checkpointInProgress = pending
        let core = LoopBound(self, on: loop)
        let remote = loop.remote
        maintenance.remote.execute { _ in
            var failure: BrokerError?
            do throws(BrokerError) { try pending.perform() } catch { failure = error }
            let outcome = failure
            remote.execute { core.value(on: $0).finishCheckpoint(outcome) }
        }
    }

    private func finishCheckpoint(_ failure: BrokerError?) {
        guard let done = checkpointInProgress.take() else { return }
        if let failure {
            log.error("a checkpoint failed", ["reason": .string(failure.description)])
            storage.restore(done)
        } else {
            commits.release(upTo: done.generation, from: done.first)
        }
        if let wanted = checkpointWanted.take() { checkpoint(upTo: wanted) }
    }

    // MARK: Stopping

    /// Ends connections, brings everything to disk, and writes the checkpoint that makes the next start short.
    func stop(_ done: @escaping () -> Void) {
        isStopping = true
        for connection in Array(connections.values) { connection.close() }
        commits.drain { [self] in
            guard checkpointInProgress == nil, !isCompacting else {
                loop.schedule(afterMs: 1) { self.stop(done) }
                return
            }
            commits.stop()
            maintenance.stop()
            maintenance.join()
            do throws(BrokerError) {
                for topic in storage.topics.values {
                    for log in topic.logs where !log.segments.isEmpty {
                        if configuration.fsync == .never || log.isNotedDirty { storage.noteDirty(log) }
                    }
                }
                // With very many files the journal is left to the next start, which is faster than synchronizing each.
                if storage.dirtyFiles.count <= Self.filesAtStopMax {
                    try storage.checkpoint(upTo: commits.generation)
                }
            } catch {
                log.error(
                    "the last checkpoint failed; the next start checks the logs", ["reason": .string(error.description)]
                )
            }
            done()
        }
    }
}
