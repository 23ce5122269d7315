internal import PostgresClient
internal import Runtime

/// Tables that change their shape. One that cannot be followed has its topic put aside: its changes are counted and not
/// written, every other topic goes on, and when it can be followed again the topic is read whole, by itself.
extension Session {
    /// What a table needs to be followed as it is now, and to be read whole.
    func check(_ route: TableRoute, reading: Bool = true) throws(CDCError) {
        try database.check(route, publication: configuration.publication, reading: reading)
        _ = try encoder(for: database.table(route, publication: configuration.publication).relation)
    }

    /// The tables of the topics that are not aside.
    var followedRoutes: [TableRoute] {
        let aside = store.current?.aside ?? []
        return configuration.routes.filter { route in !aside.contains { $0.topic == route.topic } }
    }

    /// What the marks of the topics are at present; none for a topic of which a table is not there or not published.
    func marks() throws(CDCError) -> [String: String] {
        let identities = try database.identities(configuration.routes, publication: configuration.publication)
        for (route, identity) in zip(configuration.routes, identities) {
            if let identity { routesByID[identity.tableID] = route }
        }
        var marks: [String: String] = [:]
        for topic in outlet.topicNames {
            let tables = zip(configuration.routes, identities).filter { $0.0.topic == topic }
            let known = tables.compactMap { route, identity in identity.map { (route, $0) } }
            if known.count == tables.count { marks[topic] = TableIdentity.mark(topic, known) }
        }
        return marks
    }

    /// The topics that cannot be followed at present, or not be read.
    func obstacles(at position: LSN, reading: Bool) throws(CDCError) -> [Aside] {
        var found: [Aside] = []
        for route in configuration.routes where !found.contains(where: { $0.topic == route.topic }) {
            do throws(CDCError) {
                try check(route, reading: reading)
            } catch {
                guard error.isFinal else { throw error }
                found.append(Aside(topic: route.topic, table: route.name, since: position, reason: "\(error)"))
            }
        }
        return found
    }

    /// Before the stream goes on where it was left: what has happened to the tables meanwhile.
    func lookAtTables() throws(CDCError) {
        guard var state = store.current else { return }
        state.aside.removeAll { !outlet.topicNames.contains($0.topic) }
        let marks = try marks()
        // An older version has stored none: what there is now is what it followed.
        if state.marks == nil { state.marks = Set(marks.values) }
        var new = try obstacles(at: state.position, reading: false)
        for (topic, mark) in marks.sorted(by: { $0.key < $1.key })
        where state.marks?.contains(mark) == false && !new.contains(where: { $0.topic == topic }) {
            new.append(changed(topic, at: state.position))
        }
        for aside in new where !state.aside.contains(where: { $0.topic == aside.topic }) { state.putAside(aside) }
        for aside in state.aside { tell(aside) }
        // Of topics that are not configured any more nothing is known when they come back.
        state.marks = state.marks?.intersection(marks.values)
        guard state != store.current else { return }
        try store.update(firstPartitionEnd: outlet.firstPartitionEnd) {
            ($0.aside, $0.marks) = (state.aside, state.marks)
        }
    }

    private func changed(_ topic: String, at position: LSN) -> Aside {
        let tables = configuration.routes.filter { $0.topic == topic }.map(\.name).joined(separator: ", ")
        return Aside(
            topic: topic, table: tables, since: position,
            reason: "new here, made again, published again or with another key: changes may be missing")
    }

    func tell(_ aside: Aside) {
        log.error(
            "a table cannot be followed: its topic is put aside, and read whole when it can be",
            [
                "table": "\(aside.table)", "topic": "\(aside.topic)", "since": "\(aside.since)",
                "reason": "\(aside.reason)",
            ])
    }

    // MARK: In the stream

    /// What to do with the changes of a table as the stream describes it from here on.
    func destination(of relation: Relation) throws(CDCError) -> StreamState.Destination {
        do throws(CDCError) {
            if let encoder = try encoder(for: relation) {
                routesByID[relation.id] = encoder.route
                return .topic(encoder)
            }
        } catch {
            guard error.isFinal,
                let route = configuration.routes.first(where: {
                    $0.schema == relation.schema && $0.table == relation.name
                })
            else { throw error }
            return .obstacle(route, reason: "\(error)")
        }
        let name = "\(relation.schema).\(relation.name)"
        if let route = routesByID[relation.id] {
            return .obstacle(route, reason: "table \(route.name) is named \(name)")
        }
        return .nowhere(name)
    }

    /// How to write a change of a table; nil when it is not written.
    @inline(__always)
    func table(_ id: UInt32, _ stream: inout StreamState) throws(CDCError) -> TableEncoder? {
        switch try stream.destination(id) {
        case .topic(let table): return table
        case .nowhere(let name):
            // At its first change: the server describes partitions, too, whose changes it tells as those of the whole table.
            log.warning("changes of a published table go nowhere: it has no topic", ["table": "\(name)"])
            stream.learn(id, .skipped)
            return nil
        case .skipped: return nil
        case .obstacle(let route, let reason):
            let since = stream.context.lsn
            try putAside(Aside(topic: route.topic, table: route.name, since: since, reason: reason), &stream)
            // Counts it.
            _ = try stream.destination(id)
            return nil
        }
    }

    /// Stored at once: the position moves on without the topic's changes from here.
    private func putAside(_ aside: Aside, _ stream: inout StreamState) throws(CDCError) {
        tell(aside)
        stream.putAside(aside.topic)
        metrics.topicsAside.set(stream.aside.count)
        health.follows(exceptFor: stream.aside.keys)
        try store.update(firstPartitionEnd: outlet.firstPartitionEnd) { $0.putAside(aside) }
    }

    /// Between two transactions, now and then: tables that have become others without a change in the stream, and those
    /// that can be followed again.
    func lookAfterTables(_ stream: inout StreamState) throws(CDCError) {
        let now = clock.monotonicNs
        guard now - stream.asideLookNs > UInt64(configuration.heartbeatMs) * 500_000 else { return }
        stream.asideLookNs = now
        let marks = try marks()
        for topic in outlet.topicNames where stream.aside[topic] == nil {
            guard let mark = marks[topic] else {
                let route = configuration.routes.first { $0.topic == topic }
                let reason = "a table of this topic is not there or not in publication \(configuration.publication)"
                try putAside(
                    Aside(topic: topic, table: route?.name ?? "", since: received, reason: reason), &stream)
                continue
            }
            if store.current?.marks?.contains(mark) != true { try putAside(changed(topic, at: received), &stream) }
        }
        for topic in outlet.topicNames where stream.aside[topic] != nil {
            guard marks[topic] != nil else { continue }
            do throws(CDCError) {
                _ = try readAgain(topic, marks, &stream)
            } catch {
                guard try giveUpReading(error) else { throw error }
                try keepAside(topic, "\(error)")
            }
        }
        remind(now, &stream)
    }

    /// What keeps a topic aside may be something else than what put it there.
    private func keepAside(_ topic: String, _ reason: String) throws(CDCError) {
        guard var aside = store.current?.aside.first(where: { $0.topic == topic }) else { return }
        let before = aside.reason
        aside = Aside(topic: topic, table: aside.table, since: aside.since, reason: reason)
        guard aside.reason != before, !before.isEmpty else { return }
        log.warning("a topic stays aside", ["topic": "\(topic)", "reason": "\(reason)"])
        try store.update(firstPartitionEnd: outlet.firstPartitionEnd) { $0.putAside(aside) }
    }

    private func remind(_ now: UInt64, _ stream: inout StreamState) {
        guard !stream.aside.isEmpty, now - stream.asideToldNs > 60_000_000_000 else { return }
        stream.asideToldNs = now
        for aside in store.current?.aside ?? [] {
            log.warning(
                "a topic is still aside",
                [
                    "topic": "\(aside.topic)", "table": "\(aside.table)", "since": "\(aside.since)",
                    "changes_not_written": .init(stream.aside[aside.topic] ?? 0), "reason": "\(aside.reason)",
                ])
        }
    }
}
