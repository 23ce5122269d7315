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

/// How to begin, given what is remembered and what is there.
enum StartDecision: Equatable {
    /// Make a slot and read everything; `reason` is why a former state is of no use.
    case snapshot(reason: String)
    /// Go on reading the tables that are still unread.
    case resumeSnapshot
    case stream
    /// The slot is somebody else's, and not ours to drop.
    case refuse(reason: String)

    /// The one place where a lost, replaced or moved slot is noticed: before anything is streamed.
    static func decide(
        stored: StoredState?, slot: SlotFacts?, systemID: String, serverPosition: LSN, database: String
    ) -> StartDecision {
        if let owner = slot?.owner(otherThan: database) { return .refuse(reason: owner) }
        guard let stored else {
            return .snapshot(reason: slot == nil ? "first start" : "the slot is there, but Kafka does not know of it")
        }
        if stored.systemID != systemID { return .snapshot(reason: "this is another database cluster than before") }
        guard let slot else { return .snapshot(reason: "the replication slot is gone") }
        if slot.walStatus == "lost" {
            return .snapshot(reason: "the slot is lost: the server removed log that had not been read")
        }
        if slot.confirmed > stored.position {
            return .snapshot(
                reason: "the slot is at \(slot.confirmed), beyond \(stored.position) which Kafka holds: "
                    + "it was made anew or read by another")
        }
        if stored.position > serverPosition {
            return .snapshot(
                reason: "the server is at \(serverPosition), before \(stored.position) which Kafka holds: "
                    + "it was restored from a backup")
        }
        return stored.unreadFrom == nil ? .stream : .resumeSnapshot
    }
}
