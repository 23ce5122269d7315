internal import KafkaClient
internal import PostgresClient
internal import Runtime
internal import System
internal import Wire

/// Streaming: the plugin's messages in, records out, positions back.
extension Session {
    /// So much is read before Kafka and the clock are looked at again.
    private static let turnMessagesMax = 2_000

    func stream() throws(CDCError) {
        guard let start = store.current else { throw CDCError(.transient, "no position to stream from") }
        outlet.tracker = PositionTracker(from: start.position)
        received = start.position
        replication = try openStream(from: start.position)
        defer { replication = nil }
        let watches = try watch()
        defer { watches.forEach { $0.cancel() } }
        log.info("streaming", ["slot": "\(configuration.slot)", "from": "\(start.position)"])
        metrics.streaming.set(1)
        defer { metrics.streaming.set(0) }

        var stream = StreamState(filters: start.filters)
        var lastConfirmNs: UInt64 = 0
        var lastHealthNs: UInt64 = 0
        try sendStatus(clock.monotonicNs)
        while !isStopped() {
            let isEmpty = try readTurn(&stream)
            try outlet.poll()
            if try store.poll() {
                metrics.confirmed.set(Int(truncatingIfNeeded: store.current?.position.value ?? 0))
                try sendStatus(clock.monotonicNs)
            }
            let now = clock.monotonicNs
            watchKafka(now)
            if stream.mustReply || now - lastStatusNs > UInt64(configuration.statusIntervalMs) * 1_000_000 {
                stream.mustReply = false
                try sendStatus(now)
            }
            if now - lastConfirmNs > UInt64(configuration.confirmIntervalMs) * 1_000_000, try confirm() {
                lastConfirmNs = now
            }
            if now - lastHealthNs > UInt64(configuration.statusIntervalMs) * 1_000_000 {
                lastHealthNs = now
                try lookAfterSlot()
            }
            stream.publish(to: metrics, outlet)
            if isEmpty { loop.runOnce(timeoutMs: configuration.confirmIntervalMs) }
        }
        try finish()
    }

    private func openStream(from position: LSN) throws(CDCError) -> ReplicationConnection {
        do throws(PostgresError) {
            var replication = try ReplicationConnection(configuration.postgres)
            try replication.start(
                slot: configuration.slot, from: position,
                options: [
                    ("proto_version", "1"), ("publication_names", SQL.identifier(configuration.publication)),
                    ("messages", "true"), ("binary", configuration.binary ? "true" : "false"),
                ])
            return replication
        } catch {
            throw CDCError(error, "cannot stream from slot \(configuration.slot)")
        }
    }

    private func watch() throws(CDCError) -> [Registration] {
        do {
            return try [replication?.socket ?? -1, outlet.producer.wakeDescriptor, store.wakeDescriptor].map {
                try loop.watch($0) { _ in }
            }
        } catch {
            throw CDCError(.transient, "cannot watch the connections: \(error)")
        }
    }

    /// Reads what has come, a bounded number of messages. True when there is nothing more for now.
    private func readTurn(_ stream: inout StreamState) throws(CDCError) -> Bool {
        for _ in 0..<Self.turnMessagesMax {
            let input: ReplicationConnection.Input
            do throws(PostgresError) {
                guard let next = try replication?.next() else { return true }
                input = next
            } catch {
                throw CDCError(error, "the replication stream broke")
            }
            switch consume input {
            case .message(let data): try take(data.bytes, &stream)
            case .nothingYet: return true
            case .ended: throw CDCError(.transient, "the server has ended the replication stream")
            }
        }
        return false
    }

    private func take(_ bytes: Span<UInt8>, _ stream: inout StreamState) throws(CDCError) {
        do throws(PgOutputError) {
            switch try ReplicationMessage.decode(bytes) {
            case .keepalive(let end, let reply):
                received = max(received, end)
                if !outlet.isTransactionOpen { outlet.tracker.reached(end) }
                if reply { stream.mustReply = true }
                return
            case .data(_, let end, let payload):
                received = max(received, end)
                stream.payload = payload
            }
        } catch {
            throw CDCError(error)
        }
        let body = bytes.extracting(stream.payload...)
        let message: PgOutputMessage
        do throws(PgOutputError) {
            message = try stream.decoder.decode(body).message
        } catch {
            throw CDCError(error)
        }
        switch message {
        case .insert(let relation, let tuple):
            guard let table = try stream.table(relation) else { return }
            stream.changes += 1
            try writer.insert(table, tuple, in: body, stream.context, to: outlet)
        case .update(let relation, let old, let tuple):
            guard let table = try stream.table(relation) else { return }
            stream.changes += 1
            try writer.update(table, old, tuple, in: body, stream.context, to: outlet)
        case .delete(let relation, let old):
            guard let table = try stream.table(relation) else { return }
            stream.changes += 1
            try writer.delete(table, old, in: body, stream.context, to: outlet)
        case .begin(let lsn, let time, let xid):
            outlet.begin()
            stream.context = context(
                lsn: lsn, xid: xid, commitMs: Timestamp.milliseconds(postgres: time), isSnapshot: false)
            stream.began(xid)
        case .commit(_, let end, _):
            guard outlet.isTransactionOpen else { throw CDCError(.protocol, "a Commit without a Begin") }
            outlet.end(at: end)
            stream.transactions += 1
        case .relation(let relation):
            let encoder = try encoder(for: relation)
            if encoder == nil {
                log.warning(
                    "changes of a published table go nowhere: it has no topic",
                    ["table": "\(relation.schema).\(relation.name)"])
            }
            stream.learn(relation.id, encoder)
        case .truncate(let relations, _, _):
            for relation in relations {
                if let table = try stream.table(relation) { try truncate(table, stream.context) }
            }
        case .message(_, _, let prefix, let content):
            if prefix == SnapshotRequest.prefix, !outlet.isTransactionOpen {
                try snapshotOnRequest(
                    String(decoding: [UInt8](copying: body.extracting(content)), as: UTF8.self), &stream)
            }
        case .origin, .type: break
        case .streamStart, .streamStop, .streamCommit, .streamAbort:
            throw CDCError(.protocol, "the server streams a transaction that is under way, which was not asked for")
        }
    }

    // MARK: Positions

    /// Stores what Kafka has acknowledged; only what is stored is then confirmed to Postgres.
    private func confirm() throws(CDCError) -> Bool {
        let position = outlet.tracker.confirmable
        guard var state = store.current, position > state.position, !store.isCommitting else { return false }
        state.position = position
        state.filters.removeAll { $0.until <= position }
        try store.storeLater(state, firstPartitionEnd: outlet.firstPartitionEnd)
        return true
    }

    /// Asked to stop: what is under way is finished, within reason.
    private func finish() throws(CDCError) {
        let deadline = clock.monotonicNs + 5_000_000_000
        while outlet.producer.inFlight > 0, clock.monotonicNs < deadline { try outlet.poll(timeoutMs: 50) }
        guard var state = store.current, outlet.tracker.confirmable > state.position else { return }
        state.position = outlet.tracker.confirmable
        try store.store(state, firstPartitionEnd: outlet.firstPartitionEnd)
        try sendStatus(clock.monotonicNs)
        log.info("confirmed", ["position": "\(state.position)"])
    }

    /// Watches what the slot costs the server, and pushes it on when only other tables or databases are busy.
    private func lookAfterSlot() throws(CDCError) {
        guard let health = try database.health(of: configuration.slot) else {
            throw CDCError(.transient, "the replication slot has gone")
        }
        metrics.retainedBytes.set(Int(health.retainedBytes))
        metrics.safeBytes.set(Int(health.safeBytes ?? -1))
        metrics.behindBytes.set(Int(health.behindBytes))
        let isInDanger = health.walStatus == "unreserved" || health.walStatus == "lost"
        metrics.slotInDanger.set(isInDanger ? 1 : 0)
        if isInDanger {
            log.error(
                "the slot is about to be lost",
                ["wal_status": "\(health.walStatus)", "retained_bytes": .init(health.retainedBytes)])
        }
        if health.behindBytes > configuration.heartbeatBytes, outlet.tracker.isIdle {
            _ = try database.ask(
                "push the slot on", "SELECT pg_logical_emit_message(false, 'fanout.heartbeat', '')")
        }
    }
}

/// What the stream has told so far.
struct StreamState {
    var decoder = PgOutputDecoder()
    var context = ChangeContext(id: 0, lsn: .zero, xid: nil, commitMs: 0, isSnapshot: false, nowMs: 0)
    var payload = 0
    var mustReply = false
    var changes = 0
    var transactions = 0
    var filters: [SnapshotFilter]
    private var tables: [UInt32: TableEncoder?] = [:]
    /// Tables whose last snapshot shows the present transaction already.
    private var skipped: Set<String> = []
    private var lastID: UInt32 = 0
    private var lastTable: TableEncoder?
    private var published = (changes: 0, transactions: 0, records: 0, bytes: 0)

    init(filters: [SnapshotFilter]) { self.filters = filters }

    mutating func learn(_ id: UInt32, _ table: TableEncoder?) {
        tables[id] = .some(table)
        lastTable = nil
    }

    mutating func began(_ xid: UInt32) {
        guard !filters.isEmpty || !skipped.isEmpty else { return }
        filters.removeAll { $0.until <= context.lsn }
        skipped = Set(filters.filter { $0.snapshot.shows(xid) }.map(\.table))
        lastTable = nil
    }

    /// How to write a table's rows; nil when they go nowhere.
    @inline(__always)
    mutating func table(_ id: UInt32) throws(CDCError) -> TableEncoder? {
        if let lastTable, lastID == id { return lastTable }
        guard let known = tables[id] else { throw CDCError(.protocol, "a row of a table that was not described") }
        guard let known, !skipped.contains(known.route.name) else { return nil }
        lastID = id
        lastTable = known
        return known
    }

    mutating func publish(to metrics: CDCMetrics, _ outlet: Outlet) {
        metrics.changes.add(changes - published.changes)
        metrics.transactions.add(transactions - published.transactions)
        metrics.records.add(outlet.writtenCount - published.records)
        metrics.bytes.add(outlet.writtenBytes - published.bytes)
        metrics.pending.set(outlet.tracker.pendingCount)
        if context.commitMs > 0 { metrics.lastCommitMs.set(Int(context.commitMs)) }
        published = (changes, transactions, outlet.writtenCount, outlet.writtenBytes)
    }
}
