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
        hasSlot = true
        received = start.position
        replication = try openStream(from: start.position)
        defer { replication = nil }
        let watches = try watch()
        defer { watches.forEach { $0.cancel() } }
        log.info("streaming", ["slot": "\(configuration.slot)", "from": "\(start.position)"])
        metrics.streaming.set(1)
        health.streams()
        // Outside of the stream it waits for Postgres, and for locks there, for as long as that takes.
        defer {
            metrics.streaming.set(0)
            health.thread.met()
        }

        var stream = StreamState(start)
        var lastConfirmNs: UInt64 = 0
        try sendStatus(clock.monotonicNs)
        while !isStopped() {
            health.thread.beat()
            let isEmpty = try readTurn(&stream)
            try outlet.poll()
            if try store.poll() {
                metrics.confirmed.set(Int(truncatingIfNeeded: store.current?.position.value ?? 0))
                try sendStatus(clock.monotonicNs)
            }
            let now = clock.monotonicNs
            if stream.mustReply {
                stream.mustReply = false
                try sendStatus(now)
            }
            try lookAround(now)
            if now - lastConfirmNs > UInt64(configuration.confirmIntervalMs) * 1_000_000, try confirm(&stream) {
                lastConfirmNs = now
            }
            stream.publish(to: metrics, outlet)
            health.follows(exceptFor: stream.aside.keys)
            publishCuts()
            metrics.spilledBytes.set(Int(spilled.bytes))
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
                    ("proto_version", "2"), ("publication_names", SQL.identifier(configuration.publication)),
                    ("messages", "true"), ("binary", configuration.binary ? "true" : "false"),
                    ("streaming", configuration.streamsLarge ? "on" : "off"),
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
        let xid: UInt32?
        do throws(PgOutputError) {
            (message, xid) = try stream.decoder.decode(body)
        } catch {
            throw CDCError(error)
        }
        switch message {
        case .streamStart(let xid, _): try spilled.start(xid)
        case .streamStop: try spilled.stop()
        case .streamAbort(let xid, let subXID): spilled.abort(xid, subXID)
        case .streamCommit(let xid, let lsn, let end, let time):
            try begin(xid, at: lsn, time, &stream)
            try apply(streamed: xid, &stream)
            outlet.end(at: end)
            stream.transactions += 1
        default:
            if let xid {
                try spilled.append(body, of: xid)
            } else {
                try apply(message, body, &stream)
            }
        }
    }

    private func begin(_ xid: UInt32, at lsn: LSN, _ timeUs: Int64, _ stream: inout StreamState) throws(CDCError) {
        outlet.begin()
        stream.context = context(lsn: lsn, xid: xid, commitMs: Timestamp.milliseconds(postgres: timeUs))
        stream.began(xid)
    }

    /// A transaction that was kept on disk while it was under way.
    private func apply(streamed xid: UInt32, _ stream: inout StreamState) throws(CDCError) {
        var count = 0
        try spilled.commit(xid) { body throws(CDCError) in
            var decoder = PgOutputDecoder(isInStream: true)
            let message: PgOutputMessage
            do throws(PgOutputError) {
                message = try decoder.decode(body).message
            } catch {
                throw CDCError(error)
            }
            try apply(message, body, &stream)
            count += 1
            guard count.isMultiple(of: Self.turnMessagesMax) else { return }
            try outlet.poll()
            try keepUp()
            stream.publish(to: metrics, outlet)
        }
    }

    private func apply(_ message: PgOutputMessage, _ body: Span<UInt8>, _ stream: inout StreamState) throws(CDCError) {
        switch message {
        case .insert(let relation, let tuple):
            guard let table = try table(relation, &stream) else { return }
            stream.changes += 1
            try writer.insert(table, tuple, in: body, stream.context, to: outlet)
        case .update(let relation, let old, let tuple):
            guard let table = try table(relation, &stream) else { return }
            stream.changes += 1
            try writer.update(table, old, tuple, in: body, stream.context, to: outlet)
        case .delete(let relation, let old):
            guard let table = try table(relation, &stream) else { return }
            stream.changes += 1
            try writer.delete(table, old, in: body, stream.context, to: outlet)
        case .begin(let lsn, let time, let xid): try begin(xid, at: lsn, time, &stream)
        case .commit(_, let end, _):
            guard outlet.isTransactionOpen else { throw CDCError(.protocol, "a Commit without a Begin") }
            outlet.end(at: end)
            stream.transactions += 1
        case .relation(let relation):
            stream.learn(relation.id, try destination(of: relation))
        case .truncate(let relations, _, _):
            for relation in relations {
                if let table = try table(relation, &stream) { try truncate(table, stream.context) }
            }
        case .message(_, let lsn, let prefix, let content):
            // One that is part of a transaction asks for nothing: in its middle the snapshot would be of another moment.
            let text = String(showing: body.extracting(content))
            if prefix == SnapshotRequest.prefix, !outlet.isTransactionOpen {
                let order = SnapshotOrder(text: text)
                if order.isFor(slot: configuration.slot) { try snapshotOnRequest(order, &stream) }
            }
            if prefix == Heartbeat.prefix, let ms = Int64(text) {
                stream.heartbeat.passed(lsn, ms)
                if !outlet.isTransactionOpen { try lookAfterTables(&stream) }
            }
        case .origin, .type, .streamStart, .streamStop, .streamCommit, .streamAbort: break
        }
    }

    // MARK: Positions

    /// Stores what Kafka has acknowledged; only what is stored is then confirmed to Postgres.
    private func confirm(_ stream: inout StreamState) throws(CDCError) -> Bool {
        let position = outlet.tracker.confirmable
        guard var state = store.current, position > state.position, !store.isCommitting else { return false }
        state.position = position
        state.atMs = stream.heartbeat.reached(position) ?? state.atMs
        state.filters.removeAll { $0.until <= position }
        try store.storeLater(state, firstPartitionEnd: outlet.firstPartitionEnd)
        return true
    }

    /// Asked to stop: what is under way is finished, within reason.
    private func finish() throws(CDCError) {
        let deadline = clock.monotonicNs + 5_000_000_000
        while outlet.producer.inFlight > 0, clock.monotonicNs < deadline { try outlet.poll(timeoutMs: 50) }
        let position = outlet.tracker.confirmable
        guard let state = store.current, position > state.position else { return }
        try store.update(firstPartitionEnd: outlet.firstPartitionEnd) { $0.position = max($0.position, position) }
        try sendStatus(clock.monotonicNs)
        log.info("confirmed", ["position": "\(position)"])
    }
}

/// What the stream has told so far.
struct StreamState {
    var decoder = PgOutputDecoder()
    var context = ChangeContext(id: 0, lsn: .zero, xid: nil, commitMs: 0, snapshot: .none, nowMs: 0)
    var heartbeat = Heartbeat()
    var payload = 0
    var mustReply = false
    var changes = 0
    var transactions = 0
    var filters: [SnapshotFilter]
    /// The topics that are put aside, and how many changes of each were not written.
    var aside: [String: Int]
    private(set) var asideChanges = 0
    var asideLookNs: UInt64 = 0
    var asideToldNs: UInt64 = 0
    private var tables: [UInt32: Destination] = [:]
    /// Those whose snapshot shows the present transaction already.
    private var skipping: [SnapshotFilter] = []
    private var lastID: UInt32 = 0
    private var lastTable: TableEncoder?
    private var published = (changes: 0, transactions: 0, records: 0, bytes: 0, aside: 0)

    /// Where a table's changes go.
    enum Destination {
        case topic(TableEncoder)
        /// It has no topic, which is to be told.
        case nowhere(String)
        case skipped
        /// It has one, and cannot be followed as the stream describes it.
        case obstacle(TableRoute, reason: String)
    }

    init(_ state: StoredState) {
        filters = state.filters
        aside = Dictionary(state.aside.map { ($0.topic, 0) }) { first, _ in first }
    }

    mutating func learn(_ id: UInt32, _ destination: Destination) {
        tables[id] = destination
        lastTable = nil
    }

    mutating func putAside(_ topic: String) {
        aside[topic] = 0
        lastTable = nil
    }

    mutating func began(_ xid: UInt32) {
        guard !filters.isEmpty || !skipping.isEmpty else { return }
        filters.removeAll { $0.until <= context.lsn }
        skipping = filters.filter { $0.snapshot.shows(xid) }
        lastTable = nil
    }

    /// Where a table's change goes.
    @inline(__always)
    mutating func destination(_ id: UInt32) throws(CDCError) -> Destination {
        if let lastTable, lastID == id { return .topic(lastTable) }
        return try find(id)
    }

    private mutating func find(_ id: UInt32) throws(CDCError) -> Destination {
        guard let known = tables[id] else { throw CDCError(.protocol, "a row of a table that was not described") }
        let topic: String
        switch known {
        case .topic(let table): topic = table.route.topic
        case .obstacle(let route, _): topic = route.topic
        case .nowhere, .skipped: return known
        }
        // First: what a snapshot shows already was not missed, whatever the table looked like then.
        if skipping.contains(where: { $0.covers(topic) }) { return .skipped }
        if let count = aside[topic] {
            aside[topic] = count + 1
            asideChanges += 1
            return .skipped
        }
        if case .topic(let table) = known { (lastID, lastTable) = (id, table) }
        return known
    }

    mutating func publish(to metrics: CDCMetrics, _ outlet: Outlet) {
        metrics.changes.add(changes - published.changes)
        metrics.transactions.add(transactions - published.transactions)
        metrics.records.add(outlet.writtenCount - published.records)
        metrics.bytes.add(outlet.writtenBytes - published.bytes)
        metrics.pending.set(outlet.tracker.pendingCount)
        if context.commitMs > 0 { metrics.lastCommitMs.set(Int(context.commitMs)) }
        metrics.asideChanges.add(asideChanges - published.aside)
        metrics.topicsAside.set(aside.count)
        published = (changes, transactions, outlet.writtenCount, outlet.writtenBytes, asideChanges)
    }
}
