internal import PostgresClient

/// What the server says about our slot.
struct SlotFacts: Equatable {
    var plugin: String
    var database: String
    var isActive: Bool
    var confirmed: LSN
    /// `reserved`, `extended`, `unreserved` or `lost`.
    var walStatus: String?

    /// Why it is somebody else's, if it is. A slot's name is one for the whole server: two databases that use the same
    /// would drop it from under one another for ever.
    func owner(otherThan database: String) -> String? {
        if plugin != "pgoutput" { return "is another program's, with plugin \(plugin)" }
        return self.database == database ? nil : "belongs to database \(self.database)"
    }
}

/// The server and the database that we are connected to.
struct ServerFacts: Equatable {
    struct Fork: Equatable {
        var timeline: Int64
        var at: LSN
    }

    var systemID: String
    var database: String
    var databaseID: UInt32
    var timeline: Int64
    /// Where the timelines before were left, oldest first.
    var forks: [Fork] = []
    var position: LSN

    /// Why this is not the database of which Kafka holds the changes, or an older state of it, if so. What the topics have
    /// and it lacks may be what a backup did not have: only a person knows whether that shall go.
    func lacks(_ stored: StoredState) -> String? {
        let reached = stored.position
        if stored.systemID != systemID { return "this is another database cluster than the one that was read" }
        if let before = stored.databaseID, before != databaseID {
            return "database \(database) was dropped and made again"
        }
        if position < reached { return "the server is at \(position), before \(reached) which Kafka holds" }
        guard let before = stored.timeline, before != timeline else { return nil }
        guard let fork = forks.first(where: { $0.timeline == before }) else {
            return "the server is on timeline \(timeline), which does not come from timeline \(before) that was read"
        }
        return fork.at < reached
            ? "the server left timeline \(before) at \(fork.at), before \(reached) which Kafka holds" : nil
    }
}

/// How to begin, given what is remembered and what is there.
enum StartDecision: Equatable {
    /// Make a slot and read everything; `reason` is why a former state is of no use.
    case snapshot(reason: String)
    /// Go on reading the tables that are still unread.
    case resumeSnapshot
    case stream
    /// The database is another or older than the one whose changes the topics hold.
    case restored(reason: String)
    /// The slot is somebody else's, and not ours to drop.
    case refuse(reason: String)

    /// The one place where a lost, replaced or moved slot is noticed: before anything is streamed.
    static func decide(stored: StoredState?, slot: SlotFacts?, server: ServerFacts) -> StartDecision {
        if let owner = slot?.owner(otherThan: server.database) { return .refuse(reason: owner) }
        guard let stored else {
            return .snapshot(reason: slot == nil ? "first start" : "the slot is there, but Kafka does not know of it")
        }
        if let reason = server.lacks(stored) { return .restored(reason: reason) }
        guard let slot else { return .snapshot(reason: "the replication slot is gone") }
        if slot.walStatus == "lost" {
            return .snapshot(reason: "the slot is lost: the server removed log that had not been read")
        }
        if slot.confirmed > stored.position {
            return .snapshot(
                reason: "the slot is at \(slot.confirmed), beyond \(stored.position) which Kafka holds: "
                    + "it was made anew or read by another")
        }
        return stored.unreadFrom == nil ? .stream : .resumeSnapshot
    }
}
