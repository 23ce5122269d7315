internal import PostgresClient

/// The times that CDC writes into the database's log and reads there again. When everything up to one is confirmed, the
/// topics hold what the database held at that time, by the database's clock: the age of a position, where the position
/// itself tells only a place.
struct Heartbeat {
    /// Of the messages in the log; their content is the time in milliseconds since 1970.
    static let prefix = "fanout.heartbeat"

    private struct Beat {
        var position: LSN
        var ms: Int64
    }

    /// The first that was read and is not confirmed, and the newest: what waits is bounded however long Kafka is silent.
    private var waiting: Beat?
    private var newest: Beat?

    /// One was read.
    mutating func passed(_ position: LSN, _ ms: Int64) {
        let beat = Beat(position: position, ms: ms)
        if waiting == nil { waiting = beat }
        newest = beat
    }

    /// Everything up to there is confirmed: answers the time that is confirmed with it.
    mutating func reached(_ position: LSN) -> Int64? {
        guard let newest else { return nil }
        if newest.position < position {
            (waiting, self.newest) = (nil, nil)
            return newest.ms
        }
        guard let first = waiting, first.position < position else { return nil }
        waiting = newest
        return first.ms
    }
}
