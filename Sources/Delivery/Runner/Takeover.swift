import KafkaClient
import Runtime
import Wire

/// Where a partition that has just been assigned is read from, and under which term.
struct Takeover {
    let partition: Int32
    /// Where reading begins, for the sources.
    let readsFrom: Int64
    /// Where the hot window begins to be refilled.
    let remembersFrom: Int64
    /// The first record to deliver: what the last owner had committed.
    let liveFrom: Int64
    let knownEnd: Int64
    /// The last owner's note under the next term.
    let note: CommitNote
    let committed: CommittedOffset
    /// The log that the last owner's position was of, when another stands under the name now: what was not delivered of it
    /// is lost.
    let lost: LogIdentity?

    func tellLoss(_ out: Log, _ counter: Counter) {
        guard lost != nil else { return }
        counter.add()
        func name(_ log: LogIdentity?) -> Log.Value { .string(log.map { "\($0.topicID)" } ?? "unknown") }
        out.error(
            "the topic was made again: what was not delivered of the old log is lost; beginning anew",
            [
                "topic": .string(Topic.deliveries.rawValue), "partition": .int(Int64(partition)), "was": name(lost),
                "now": name(note.log),
            ])
    }

    /// Bytes that a record of the window has at least, by experience: bounds how far back it is worth reading.
    private static let recordBytesTypical = 300

    /// Records read before the window's reach, for their sources only: repeats of what came just before are recognised.
    private static let margin: Int64 = 1_000

    static func plan(
        _ partitions: [Int32], _ consumer: Consumer, _ runner: DeliveryRunner
    ) throws(KafkaError) -> [Takeover] {
        let configuration = runner.configuration
        let places = partitions.map { runner.topicPartition($0) }
        let present = try configuration.kafka.identities(of: [configuration.names[.deliveries]])[0]
        let committed = try consumer.committed(places)
        let from = runner.nowMs - configuration.windowAgeMs
        let recent = try consumer.offsets(at: places.map { ($0, timestampMs: from) })
        let recordsMax = Int64(configuration.windowBytesMax / max(1, partitions.count) / recordBytesTypical)
        var plan: [Takeover] = []
        for (index, place) in places.enumerated() {
            let log = try consumer.watermarks(place)
            let found = committed[index]
            var liveFrom = found?.offset ?? log.low
            // A committed offset that the log does not have is of another life of the topic, or past retention.
            let last = CommitNote(text: found?.metadata ?? "")
            let isOther = last.log != nil && present != nil && last.log != present
            let isSameLog = last.log != nil && last.log == present
            if isOther || liveFrom < log.low || (liveFrom > log.high && !isSameLog) { liveFrom = log.low }
            // The log has lost its end: what stands there now is new.
            liveFrom = max(log.low, min(liveFrom, log.high, runner.cuts[place.partition] ?? .max))
            let reach = min(liveFrom, max(log.low, recent[index] ?? liveFrom, liveFrom - recordsMax))
            let isSame = !isOther && found?.offset == liveFrom
            let note = CommitNote(
                term: last.term + 1, log: present, dedupe: isSame ? last.dedupe : "", at: isSame ? last.at : 0)
            plan.append(
                Takeover(
                    partition: place.partition, readsFrom: max(log.low, reach - margin), remembersFrom: reach,
                    liveFrom: liveFrom,
                    knownEnd: log.high, note: note,
                    committed: CommittedOffset(place, offset: liveFrom, metadata: note.text),
                    lost: isOther ? last.log : nil))
        }
        return plan
    }
}
