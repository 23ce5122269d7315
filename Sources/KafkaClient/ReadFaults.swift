public import Runtime

/// Tells of what a stage's readers met in a log and could not read: a line and a count for each, so that nothing is left out
/// without a word. Where a reader goes on after it has lost its place is its stage's to say.
public struct ReadFaults: Sendable {
    private let log: Log
    private let lostPlaces: Counter
    private let passedOver: Counter

    /// `stage` as in the names of its metrics.
    public init(_ log: Log, _ metrics: Metrics, stage: String) {
        self.log = log
        lostPlaces = metrics.counter(
            "fanout_\(stage)_lost_places_total",
            "Times a partition could not be read on: made again, deleted, cut off, or its position gone")
        passedOver = metrics.counter(
            "fanout_\(stage)_passed_over_offsets_total", "Offsets left out because their batches are damaged")
    }

    /// Events of other kinds are nothing to it.
    public func tell(_ event: ConsumerEvent?) {
        switch event {
        case .lostPlace(let place):
            lostPlaces.add()
            log.error(
                "a reader lost its place in the log",
                [
                    "partition": "\(place.partition)", "offset": .int(place.position ?? -1), "why": "\(place.kind)",
                    "what": "\(place)",
                ])
        case .passedOver(let partition, let offsets, let reason):
            passedOver.add(offsets.count)
            log.error(
                "damaged records were passed over",
                [
                    "partition": "\(partition)", "from": .int(offsets.lowerBound), "to": .int(offsets.upperBound - 1),
                    "reason": "\(reason)",
                ])
        case .assigned, .revoked, .endOfPartition, .committed, .error, nil: break
        }
    }
}
