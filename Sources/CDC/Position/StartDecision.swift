internal import PostgresClient

/// What the server says about our slot.
struct SlotFacts: Equatable {
    var plugin: String
    var database: String
    var isActive: Bool
    var confirmed: LSN
    /// `reserved`, `extended`, `unreserved` or `lost`.
    var walStatus: String?
}

/// How to begin, given what is remembered and what is there.
enum StartDecision: Equatable {
    /// Make a slot and read everything; `reason` is why a former state is of no use.
    case snapshot(reason: String)
    /// Go on reading the tables that are still unread.
    case resumeSnapshot
    case stream

    /// The one place where a lost, replaced or moved slot is noticed: before anything is streamed.
    static func decide(
        stored: StoredState?, slot: SlotFacts?, systemID: String, serverPosition: LSN, database: String
    ) -> StartDecision {
        guard let stored else {
            return .snapshot(reason: slot == nil ? "first start" : "the slot is there, but Kafka does not know of it")
        }
        if stored.systemID != systemID { return .snapshot(reason: "this is another database cluster than before") }
        guard let slot else { return .snapshot(reason: "the replication slot is gone") }
        if slot.database != database { return .snapshot(reason: "the slot belongs to database \(slot.database)") }
        if slot.plugin != "pgoutput" { return .snapshot(reason: "the slot decodes with \(slot.plugin)") }
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
        return stored.unread.isEmpty ? .stream : .resumeSnapshot
    }
}
